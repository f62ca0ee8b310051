# mypy: disallow-untyped-defs=False
"""Sentences as spaCy's rule finds them (its `sentencizer` behind the blank English tokenizer), counted by kernels.

A sentence goes on after a mark of the sentencizer as long as tokens are punctuation; tokens of whitespace, which spaCy makes
of all space but one blank between two words, begin sentences too.
"""

from functools import cache

import numpy as np
import numpy.typing as npt

from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.spacy_marks import mark_tokens
from corpusmill.pipeline.text.spacy_rules import PUNCTUATION, SENTENCE_END, SPACE, spacy_rules
from corpusmill.pipeline.text.utf8 import decode

_BLANK = 0x20


def count_sentences(
    data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64], marks: npt.NDArray[np.uint8] | None = None
) -> npt.NDArray[np.int64]:
    """int64: the sentences of each span `data[starts[i]:ends[i]]` of valid UTF-8, as `len(split_into_sentences(span))` of datatrove.

    Spans (lines, mostly) must not overlap, and each counts as a text of its own; an empty one has one sentence, as there.
    `data` and offsets of an Arrow column: `pipeline.text.buffers.text_buffers`. `marks`: those of `mark_tokens` for the same
    spans, where the caller has them.
    """
    counts = np.empty(len(starts), np.int64)
    _count(data, starts, ends, mark_tokens(data, starts, ends) if marks is None else marks, _kinds(), counts)
    return counts


@cache
def _kinds() -> npt.NDArray[np.uint8]:
    return spacy_rules().kinds


@kernel
def _count(data, starts, ends, marks, kinds, counts):
    for span in range(starts.size):
        counts[span] = sentences(data, starts[span], ends[span], marks, kinds)


@kernel
def sentences(data, start, end, marks, kinds):
    """The number of sentences of a span whose tokens are marked."""
    count, ended, at = 1, False, start
    while at < end:
        point, width = decode(data, at)
        if kinds[point] & SPACE:
            skipped = point == _BLANK and at > start
            length = 0
            while at < end and kinds[point] & SPACE:
                length += 1
                at += width
                if at < end:
                    point, width = decode(data, at)
            if length > skipped and ended:
                count += 1
                ended = False
            continue
        length, all_kinds = 0, np.uint8(0xFF)
        while True:
            all_kinds &= kinds[point]
            length += 1
            at += width
            if at >= end or marks[at]:
                break
            point, width = decode(data, at)
            if kinds[point] & SPACE:
                break
        if length == 1 and all_kinds & SENTENCE_END:
            ended = True
        elif ended and not all_kinds & PUNCTUATION:
            count += 1
            ended = False
    return count
