# mypy: disallow-untyped-defs=False
"""What a text is given of the scores of its windows."""

import numpy as np

from corpusmill.pipeline.kernel import kernel


@kernel
def gather_windows(first, raw, score, threshold, out_score, out_share, out_raw):
    """A text's greatest score, the share of its windows at or above the threshold, and the raw score of the greatest window.

    Of windows with the same score, the greatest raw score counts. Windows without a score (NaN) are below every threshold; where a text
    has no other, all is NaN.
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
