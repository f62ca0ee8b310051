# mypy: disallow-untyped-defs=False
"""The words of `str.split()` inside kernels: how many there are, and how long the longest is."""

from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.classes import SPACE
from corpusmill.pipeline.text.utf8 import decode


@kernel
def count_split_words(data, start, end, classes, limit):
    """`len(text.split())`, or `limit` as soon as there are so many (0: no limit)."""
    words, inside, at = 0, False, start
    while at < end:
        point, width = decode(data, at)
        if classes[point] & SPACE:
            inside = False
        elif not inside:
            inside = True
            words += 1
            if words == limit:
                return words
        at += width
    return words


@kernel
def has_longer_word(data, start, end, classes, limit):
    """Whether one of `text.split()` has more than `limit` characters."""
    if end - start <= limit:  # a character has at least one byte
        return False
    length, at = 0, start
    while at < end:
        point, width = decode(data, at)
        length = 0 if classes[point] & SPACE else length + 1
        if length > limit:
            return True
        at += width
    return False
