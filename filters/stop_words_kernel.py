# mypy: disallow-untyped-defs=False
"""The compiled pass behind `filters.stop_words`."""

import numpy as np

from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.hashing import BASE, ONE, find
from corpusmill.pipeline.text.utf8 import WORD, decode


@kernel
def count_stop_words(data, offsets, documents, kinds, lower, stop_words, out):
    """Fills the rows `documents` of `out` (int64, texts x 3): words (runs of `\\w`), stop words, different stop words.

    `stop_words` is a table of the `hash_word` of each in lower case (`lower`: uint32, code point to code point).
    """
    seen = np.full(stop_words.size, -1, np.int64)
    for text in documents:
        at, end = offsets[text], offsets[text + 1]
        words, stops, different = 0, 0, 0
        while at < end:
            point, width = decode(data, at)
            at += width
            if not kinds[point] & WORD:
                continue
            value = np.uint64(0)
            while True:
                value = value * BASE + np.uint64(lower[point]) + ONE
                if at >= end:
                    break
                point, width = decode(data, at)
                if not kinds[point] & WORD:
                    break
                at += width
            words += 1
            slot = find(stop_words, stop_words.size - 1, value)
            if slot >= 0:
                stops += 1
                different += seen[slot] != text
                seen[slot] = text
        out[text, 0], out[text, 1], out[text, 2] = words, stops, different
