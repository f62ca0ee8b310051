# mypy: disallow-untyped-defs=False
"""Windows of so many words in formed texts, and what a text is given of the scores of its windows."""

import numba
import numpy as np

from corpusmill.filters.classifier.forms import NEW_LINE
from corpusmill.filters.fasttext_tokens import is_space, starts_with, token_end

NEW_LINE_BYTES = tuple(NEW_LINE.encode())


@numba.njit(cache=True, nogil=True)
def cut_windows(data, offsets, words, mark_lines):
    """`(borders, first)`: window w is `data[borders[w]:borders[w + 1]]`, and text i has the windows from `first[i]` up to `first[i + 1]`.

    A window begins with every so manyth word, counted from the start of the text; what is left at the end is a window of its own where it
    has half as many words or more, else it belongs to the window before. Each text has a window, if an empty one. With `mark_lines`
    the token `<nl>` is no word.
    """
    first = np.zeros(offsets.size, np.int64)
    for text in range(offsets.size - 1):
        total = walk(data, offsets[text], offsets[text + 1], words, mark_lines, 0, 0, first)
        rest = total % words
        first[text + 1] = first[text] + max(total // words + (rest > 0 and 2 * rest >= words), 1)
    borders = np.empty(first[-1] + 1, np.int64)
    for text in range(offsets.size - 1):
        walk(data, offsets[text], offsets[text + 1], words, mark_lines, first[text], first[text + 1], borders)
    borders[first[-1]] = offsets[-1]
    return borders, first


@numba.njit(cache=True, nogil=True)
def walk(data, start, end, words, mark_lines, window, last, borders):
    """Counts the words of a text, and writes down where its windows from `window` up to `last` begin."""
    if window < last:
        borders[window] = start
    total, at = 0, start
    while True:
        while at < end and is_space(data[at]):
            at += 1
        if at >= end:
            return total
        stop = token_end(data, at, end)
        if not (mark_lines and stop - at == len(NEW_LINE_BYTES) and starts_with(data, at, stop, NEW_LINE_BYTES)):
            if total and total % words == 0 and window + total // words < last:
                borders[window + total // words] = at
            total += 1
        at = stop


@numba.njit(cache=True, nogil=True)
def gather_windows(first, raw, score, threshold, out_score, out_share, out_raw):
    """A text's greatest score, the share of its windows at or above the threshold, and the raw score of the greatest window.

    Of windows with the same score, the greatest raw score counts. Windows without a score (NaN) are below every threshold; where a text has no other, all is NaN.
    """
    for text in range(first.size - 1):
        best, best_raw, above = np.nan, np.nan, 0
        for window in range(first[text], first[text + 1]):
            if np.isnan(score[window]):
                continue
            above += score[window] >= threshold
            if not score[window] <= best:  # also where `best` is NaN
                best, best_raw = score[window], raw[window]
            elif score[window] == best:
                best_raw = max(best_raw, raw[window])
        out_score[text], out_raw[text] = best, best_raw
        out_share[text] = np.nan if np.isnan(best) else above / (first[text + 1] - first[text])
