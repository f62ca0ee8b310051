# mypy: disallow-untyped-defs=False
"""Words of `str.split()` as spans of the text, one by one, for kernels that look into words."""

from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.classes import SPACE
from corpusmill.pipeline.text.table import hash_span
from corpusmill.pipeline.text.utf8 import decode


@kernel
def walk_chunk(data, at, end, kinds):
    """`(end, characters, kinds of any of its characters or-ed)` of the word that begins at `at`, a character that is no space.

    `kinds` is uint8 of length 0x110000 in which spaces have SPACE; the other bits are the caller's.
    """
    characters, found = 0, kinds[0] & 0
    while at < end:
        byte = data[at]
        if byte < 0x80:
            kind, width = kinds[byte], 1
        else:
            point, width = decode(data, at)
            kind = kinds[point]
        if kind & SPACE:
            break
        characters += 1
        found |= kind
        at += width
    return at, characters, found


@kernel
def skip_space(data, at, end, kinds):
    """Where the next word begins, or `end`."""
    while at < end:
        point, width = decode(data, at)
        if not kinds[point] & SPACE:
            return at
        at += width
    return end


@kernel
def hash_chunks(data, start, end, kinds, hashes, ends, seen):
    """Fills `hashes` (uint64), `ends` (int64, one item more: characters before each word, spaces not counted) and `seen`
    (uint8, the or-ed kinds) for the words of `data[start:end]`; returns how many there are."""
    count = 0
    ends[0] = 0
    at = skip_space(data, start, end, kinds)
    while at < end:
        stop, characters, seen[count] = walk_chunk(data, at, end, kinds)
        hashes[count] = hash_span(data, at, stop)
        ends[count + 1] = ends[count] + characters
        count += 1
        at = skip_space(data, stop, end, kinds)
    return count
