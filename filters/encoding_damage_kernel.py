# mypy: disallow-untyped-defs=False
"""The compiled pass behind `filters.encoding_damage`."""

from corpusmill.filters.encoding_damage import CONTROL, PRIVATE, REPLACEMENT
from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.utf8 import decode


@kernel
def count_kinds(data, offsets, kinds, out):
    """Fills `out` (int64, texts x 4): replacement, control and private-use characters, and all characters of each text."""
    for text in range(offsets.size - 1):
        replacement, control, private, characters = 0, 0, 0, 0
        at, end = offsets[text], offsets[text + 1]
        while at < end:
            point, width = decode(data, at)
            kind = kinds[point]
            characters += 1
            replacement += kind & REPLACEMENT != 0
            control += kind & CONTROL != 0
            private += kind & PRIVATE != 0
            at += width
        row = out[text]
        row[0], row[1], row[2], row[3] = replacement, control, private, characters
