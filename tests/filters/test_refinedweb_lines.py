"""Compares texts, counts and verdicts with DCLM's modifiers, written slowly from their definitions (with its regular expressions)."""

import math
import re
from collections import Counter
from collections.abc import Callable

import fasttext
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.filters.refinedweb_lines import DCLM
from corpusmill.filters.rules import StepRule, decide

COUNTER = re.compile(
    r"^\W*\d(?:,|\.|\d)*(?:K|k|M|m|B|b)?\s+"
    r"(?:likes|shares|comments|retweets|reposts|quotes|bookmarks|upvotes|downvotes|downloads|views|followers)\W*$"
)
PHRASES = [re.compile(r"\s?(?:items in cart)", re.I), re.compile(r"\s?(?:read more...)$", re.I), re.compile(r"^(?:sign-in)\s?", re.I)]


def correct(text: str) -> tuple[str, Counter[str]]:
    """Returns the text that DCLM's chain leaves ("" where it drops the document), and the counts by column."""
    counts: Counter[str] = Counter()

    def drop(name: str, text: str, unwanted: Callable[[str], bool]) -> str:
        lines = text.split("\n")
        kept = [line for line in lines if not line or not unwanted(line)]
        counts[name] += len(lines) - len(kept)
        return "\n".join(kept)

    counts["lines"] = len(text.split("\n")) if text else 0
    text = drop("uppercase_lines", text, lambda line: sum(c.isupper() for c in line) / len(line) > 0.5).strip()
    text = drop("numeric_lines", text, lambda line: sum(c.isdigit() for c in line) / len(line) > 0.999999).strip()
    text = drop("counter_lines", text, lambda line: COUNTER.search(line.lower()) is not None).strip()
    text = drop("one_word_lines", text, lambda line: len(line.split()) < 2)
    for pattern in PHRASES:
        kept = []
        for line in text.split("\n"):
            new = pattern.sub("", line) if len(line.split()) <= 10 else line
            if len(line.split()) <= 10 and line and (not new or new.isspace()):
                counts["phrase_lines"] += 1
                continue
            counts["shortened_lines"] += new != line
            kept.append(new)
        text = "\n".join(kept).strip()
    counts["kept_lines"] = len(text.split("\n")) if text else 0
    return text, counts


def count_words(text: str) -> int:
    """Computes DCLM's `split_words` with its defaults: fastText's tokens that begin with a letter or digit."""
    return sum(word[0].isalnum() for word in fasttext.FastText.tokenize(text))


def assert_equal(measure_step: Callable, texts: list[str]) -> dict[str, list[float]]:
    columns, new_texts = measure_step("refinedweb_lines", {}, texts)
    failed = decide([StepRule("", rule) for rule in DCLM], {name: pa.array(values) for name, values in columns.items()}, len(texts))
    for place, text in enumerate(texts):
        new_text, counts = correct(text)
        assert new_texts[place] == new_text, text[:200]
        words, kept_words = count_words(text), count_words(new_text)
        ours = {name.removeprefix("refinedweb_"): values[place] for name, values in columns.items()}
        removed = ours.pop("removed_word_ratio")
        assert ours == {"words": words, "kept_words": kept_words} | {name: counts[name] for name in ours if "words" not in name}
        assert math.isnan(removed) if words == 0 else removed == (words - kept_words) / words
        dropped = not new_text or words == 0 or (words - kept_words) / words > 0.05
        assert dropped == bool(failed[place].as_py()), text[:200]
    return columns


EXTRA = [
    "3 likes\n1.2K views!\n(12,000 FOLLOWERS)\n٣ boo\u212amarks\n5\u212a li\u212aes\n3likes\n3 likes here\n3 l\u0130kes\nlikes\n"
    "7 k views\n",
    "Sign-in now\nSIGN-IN\nPlease Sign-in\nS\u0130GN-\u0131n here\n\u017fign-in\u3000there it is\nSign-in  two spaces\n",
    "3 items in cart\nITEMS IN CART items in cart\nitems in cart and items in cart again\nIn the cart\nx items in cartitems in cart\n",
    "A title here Read more...\nA title here\u3000read moreabc\nread more…\nNo read more...\r\n"
    "One two three four five six seven eight nine ten read more...\n",
    "  ABC\n 123\n\n\n²³¹\n１２３\n4.5\nABCdefg\nABCD efg\nⒶⒷ Ⅷ\nİİ ab\nǅǅǅ a\n",
    "\n\n  one two\n\n \t \nthree four \n\n",
    "1" * 300_000 + "x\n" + "1" * 90_000 + "x\nend of it\n" + "2" * 5000,
]


def test_real_and_hard_texts(texts: list[str], measure_step: Callable) -> None:
    columns = assert_equal(measure_step, texts + EXTRA)
    assert all(any(values) for values in columns.values())


PIECES = st.sampled_from(
    ["\n", " ", "\u3000", "\r", "\t", "\0", "_", "items in cart", "Items In Cart", "read more", "...", "Sign-in", "SIGN-\u0131n", "3",
     "1,2", ".", "K", "\u212a", " likes", " boo\u212amarks", "views", "A", "B", "c", "İ", "²", "٣", "word ", "two ", "!", "漢", "😀",
     "\x85"]
)  # fmt: skip


@given(st.lists(st.lists(PIECES | st.text(max_size=3), max_size=30).map("".join), min_size=1, max_size=4))
def test_any_text(measure_step: Callable, texts: list[str]) -> None:
    assert_equal(measure_step, texts)
