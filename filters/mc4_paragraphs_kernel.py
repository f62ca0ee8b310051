# mypy: disallow-untyped-defs=False
"""The compiled pass behind mC4's paragraphs."""

from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.utf8 import NEWLINE, count_characters, find_byte


@kernel
def count_long_lines(data, offsets, min_length, counts):
    """Fills `counts` (int64, one a text) with the lines of `text.split("\\n")` that have at least `min_length` characters."""
    for text in range(offsets.size - 1):
        at, end = offsets[text], offsets[text + 1]
        while at < end:
            stop = find_byte(data, at, end, NEWLINE)
            counts[text] += stop - at >= min_length and count_characters(data, at, stop) >= min_length
            at = stop + 1
