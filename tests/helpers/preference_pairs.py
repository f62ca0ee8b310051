"""Preference pairs of made-up words, as the stage `align` reads them."""

import random

import pyarrow as pa

from corpusmill.train.align import PAIRS, PreferencePair
from corpusmill.train.template import assistant_turn, user_turn
from corpusmill.train.tuning import items_table


def pair_table(count: int, words: int = 9) -> pa.Table:
    """Returns pairs whose completions have 1 to `words` words."""
    choose = random.Random(0)

    def text() -> str:
        return " ".join(choose.choice(("river", "bridge", "stone", "the", "of")) for _ in range(choose.randint(1, words)))

    return items_table(
        [
            PreferencePair(str(number), None, "file", False, [user_turn("Go on.")], [assistant_turn(text())], [assistant_turn(text())])
            for number in range(count)
        ],
        PAIRS,
    )
