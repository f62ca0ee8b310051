# mypy: disallow-untyped-defs=False
"""The languages within a text: option `mixed` of the step `language`.

A text is cut into parts, at line breaks and at the ends of sentences of any script. The model scores each part, but of a short one it is
often unsure. So the languages of a text are a mixture, fitted by expectation and maximisation (Dempster et al. 1977): a language is likely
for a part if its score there is high and if much of the text is in it. Parts up to one that ends with a line break are a paragraph.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from corpusmill.pipeline.kernel import kernel
from corpusmill.text.utf8 import NEWLINE, PUNCTUATION, SPACE, WORD, character_classes, decode

#: Marks that end a sentence. From U+3000 on no space follows them.
ENDS = frozenset(".!?…।॥؟۔։።၊။៕៖。！？｡")
#: A part has at least so many bytes, and a text at most about so many parts; so a long text has longer parts.
LEAST, MOST = 20, 2000
#: Rounds of the fit. The power of a language's share: above 1 it drops languages that a few parts are taken for. It was chosen on half of
#: the languages of `benchmarks/mixed_languages.py`.
ROUNDS, POWER = 20, 1.5
#: Scores below this are no candidates; added to a part's scores, so that one part alone excludes no language.
UNLIKELY, DOUBT = 0.01, 1e-4


class Parts(NamedTuple):
    """The parts of n texts, which follow each other without a gap. Text i has the parts from `first[i]` up to `first[i + 1]`."""

    bounds: npt.NDArray[np.int64]  # part k is `data[bounds[k]:bounds[k + 1]]`
    sizes: npt.NDArray[np.int64]  # characters that are no white space
    paragraphs: npt.NDArray[np.int64]  # the number of the part's paragraph in its text
    first: npt.NDArray[np.int64]


def split(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> Parts:
    """Returns the parts of all texts."""
    most = int(len(data) // LEAST + len(offsets))
    bounds, sizes, paragraphs = np.empty(most + 1, np.int64), np.empty(most, np.int64), np.empty(most, np.int64)
    first = np.zeros(len(offsets), np.int64)
    count = _split(data, offsets, character_classes(ENDS), bounds, sizes, paragraphs, first)
    return Parts(bounds[: count + 1], sizes[:count], paragraphs[:count], first)


@kernel
def _split(data, offsets, classes, bounds, sizes, paragraphs, first):
    count = 0
    bounds[0] = offsets[0]
    for text in range(offsets.size - 1):
        at, end = offsets[text], offsets[text + 1]
        least = max(LEAST, (end - at) // MOST)
        size, paragraph, ended = 0, 0, False
        while at < end:
            point, width = decode(data, at)
            at += width
            kind = classes[point]
            if kind & SPACE:
                line = point == NEWLINE
                complete = line or ended
            else:
                line = False
                size += 1
                ended = kind & PUNCTUATION != 0 or (ended and kind & WORD == 0)
                complete = kind & PUNCTUATION != 0 and point >= 0x3000
            if at == end or (complete and at - bounds[count] >= least):
                sizes[count], paragraphs[count] = size, paragraph
                count += 1
                bounds[count] = at
                size, ended = 0, False
                paragraph += int(line)
        first[text + 1] = count
    return count


def languages(scores: npt.NDArray[np.float64], sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Returns the label of each of a text's n parts, -1 where no label has a score. `scores`: n x labels, below 0 for none."""
    found = np.full(len(sizes), -1)
    known = np.flatnonzero((scores.max(axis=1, initial=0) > UNLIKELY) & (sizes > 0))
    if not len(known):
        return found
    candidates = np.flatnonzero(scores[known].max(axis=0) > UNLIKELY)
    likely = np.maximum(scores[known][:, candidates], 0) + DOUBT
    likely /= likely.sum(axis=1, keepdims=True)
    weights = sizes[known] / sizes[known].sum()
    shares = weights @ likely
    for _ in range(ROUNDS):
        of = likely * shares**POWER
        of /= of.sum(axis=1, keepdims=True)
        shares = weights @ of
    found[known] = candidates[of.argmax(axis=1)]
    return found
