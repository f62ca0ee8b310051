# mypy: disallow-untyped-defs=False
"""The walk over words whose beginnings are marked (`spacy_marks`), as `words.walk_words` for words that a table of classes gives."""

import numpy as np

from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.classes import PUNCTUATION
from corpusmill.pipeline.text.hashing import BASE, ONE
from corpusmill.pipeline.text.utf8 import decode
from corpusmill.pipeline.text.words import VISIBLE, skip_invisible, unpack_words


@kernel
def walk_marked_words(data, start, end, marks, classes, powers, words):
    """Fills `words` with the words of `data[start:end]`, which begin where `marks` says and end at the next or at a space.

    `classes` is the table of a word rule, of which only VISIBLE and the kinds of characters are used.
    """
    ends, prefixes = words.ends, words.prefixes
    ends[0], prefixes[0] = 0, np.uint64(0)
    at = skip_invisible(data, start, end, classes)
    word, characters, joined = np.int64(-1), np.int64(0), np.uint64(0)
    before, any_kind = np.int64(0), np.int64(0)
    while at < end:
        point, width = decode(data, at)
        kind = np.int64(classes[point]) ^ PUNCTUATION
        visible = (kind & VISIBLE) // VISIBLE
        begins = visible & (1 - before | (marks[at] != 0))
        before = visible
        at += width
        word += begins
        kind &= -visible
        any_kind = kind if begins else any_kind | kind
        extended = joined * BASE + (np.uint64(point) + ONE)
        joined = extended if visible else joined
        characters += visible
        prefixes[characters] = joined
        ends[word + 1] = characters << 8 | any_kind
    unpack_words(words, word + 1, powers)
    return word + 1
