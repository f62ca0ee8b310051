"""Times Gopher's heuristics of dolma or NeMo Curator in a Python that has them; prints {measured function: CPU seconds} as JSON.

python benchmarks/filter_peers.py dolma|nemo TEXTS.json
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def dolma(texts: list[str]) -> dict[str, Callable[[], Any]]:
    from dolma.taggers.gopher import get_attributes

    return {"dolma Gopher, all values": lambda: [get_attributes(text) for text in texts]}


def nemo(texts: list[str]) -> dict[str, Callable[[], Any]]:
    from nemo_curator.stages.text.filters.heuristic import repetition, string

    scores = [
        string.WordCountFilter(), string.MeanWordLengthFilter(), string.SymbolsToWordsFilter(), string.BulletsFilter(),
        string.EllipsisFilter(), string.WordsWithoutAlphabetsFilter(), string.CommonEnglishWordsFilter(),
        repetition.RepeatedLinesFilter(), repetition.RepeatedParagraphsFilter(), repetition.RepeatedLinesByCharFilter(),
        repetition.RepeatedParagraphsByCharFilter(), *(repetition.RepeatingTopNGramsFilter(n=n) for n in (2, 3, 4)),
        *(repetition.RepeatingDuplicateNGramsFilter(n=n) for n in range(5, 11)),
    ]  # fmt: skip
    return {"NeMo Curator Gopher, all values": lambda: [score.score_document(text) for text in texts for score in scores]}


def main() -> None:
    texts = json.loads(Path(sys.argv[2]).read_text())
    seconds = {}
    for what, function in {"dolma": dolma, "nemo": nemo}[sys.argv[1]](texts).items():
        function()
        started = time.process_time()
        function()
        seconds[what] = time.process_time() - started
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
