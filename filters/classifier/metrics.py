# mypy: disallow-untyped-defs=False
"""How well scores tell yes from no and how far they can be taken for probabilities, for many resamples of the same examples at once.

Sorted once, a resample is nothing but a count for each example, so all measures come from one walk. They are scikit-learn's, ties
included: `roc_auc_score`, `average_precision_score`, `brier_score_loss`, `precision_score`, `recall_score`, `f1_score`, with the counts as
`sample_weight`. The expected calibration error is that of Naeini et al. 2015 (bins of equal width, as in Guo et al. 2017) and, with bins
of equal mass, that of Nguyen & O'Connor 2015; bins are cut as `sklearn.calibration.calibration_curve` cuts them.
"""

from collections import namedtuple
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from corpusmill.pipeline.kernel import kernel

#: The bins of a reliability curve, at most; as in Guo et al. 2017.
BINS = 15
#: A bin of equal mass has at least so many examples, or there are fewer bins.
BIN_EXAMPLES = 20
#: What `measure` finds, in its order, before the four of each threshold: `PER_THRESHOLD`.
MEASURES = ("roc_auc", "average_precision", "brier", "calibration_error", "calibration_error_equal_width")
PER_THRESHOLD = ("precision", "recall", "f1", "kept")

Floats = npt.NDArray[np.float64]

#: n examples by falling score. `score` float64 (n,), `yes` bool (n,), `last` bool (n,): the last of those with its score; `cuts` int64
#: (thresholds,): how many have at least that score; `mass`, `width` int64 (n,): their bins, of equal mass and of equal width.
Ranking = namedtuple("Ranking", "score yes last cuts mass width")


def rank(score: npt.ArrayLike, yes: npt.ArrayLike, thresholds: Sequence[float] = (), bins: int = BINS) -> Ranking:
    """Sorts examples (n,) of finite scores and answers for `measure`."""
    given = np.asarray(score, np.float64)
    order = np.argsort(-given, kind="stable")
    sorted_score = given[order]
    last = np.ones(len(order), np.bool_)
    last[:-1] = sorted_score[1:] != sorted_score[:-1]
    cuts = np.searchsorted(-sorted_score, -np.asarray(thresholds, np.float64), "right")
    return Ranking(
        sorted_score, np.asarray(yes, np.bool_)[order], last, cuts.astype(np.int64),
        bin_of(sorted_score, mass_edges(sorted_score, bins)), bin_of(sorted_score, np.linspace(0, 1, bins + 1)),
    )  # fmt: skip


def mass_edges(score: Floats, bins: int = BINS) -> Floats:
    """Edges (bins + 1,) between which equally many examples lie, of fewer bins where there are few examples. Equal scores share a bin."""
    count = int(np.clip(len(score) // BIN_EXAMPLES, 1, bins))
    return np.quantile(score, np.linspace(0, 1, count + 1)) if len(score) else np.zeros(2)


def bin_of(score: Floats, edges: Floats) -> npt.NDArray[np.int64]:
    """The bin (n,) of each score; one that lies on an edge belongs below it."""
    return np.searchsorted(edges[1:-1], score).astype(np.int64)


def measures(ranking: Ranking) -> Floats:
    """All measures (5 + 4 * thresholds,) of the examples themselves; NaN where one is not defined, as the AUC with one answer only."""
    return np.asarray(measure(np.arange(len(ranking.score))[None, :], *ranking)[0])


@kernel
def measure(draws, score, yes, last, cuts, mass, width):
    """The measures (resamples, 5 + 4 * thresholds) of resamples: `draws` int64 (resamples, any) are places in the ranking."""
    n, bins = len(score), 1
    if n:
        bins = max(mass.max(), width.max()) + 1
    found = np.full((len(draws), 5 + 4 * len(cuts)), np.nan)
    weight = np.zeros(n, np.int64)
    yes_above, no_above = np.zeros(n + 1, np.int64), np.zeros(n + 1, np.int64)
    gaps = np.zeros((2, bins))
    for resample in range(len(draws)):
        out = found[resample]
        weight[:] = 0
        for place in draws[resample]:
            weight[place] += 1
        _count(weight, yes, yes_above, no_above)
        total_yes, total_no = yes_above[n], no_above[n]
        if total_yes + total_no == 0:
            continue
        if total_yes:
            out[1] = _average_precision(last, yes_above, no_above)
            if total_no:
                out[0] = _roc_auc(last, yes_above, no_above)
        _probabilities(weight, score, yes, mass, width, gaps, out)
        for threshold in range(len(cuts)):
            right, wrong = yes_above[cuts[threshold]], no_above[cuts[threshold]]
            of = out[5 + 4 * threshold : 9 + 4 * threshold]
            if right + wrong:
                of[0] = right / (right + wrong)
            if total_yes:
                of[1] = right / total_yes
            if total_yes + right + wrong:
                of[2] = 2 * right / (total_yes + right + wrong)
            of[3] = (right + wrong) / (total_yes + total_no)
    return found


@kernel
def _count(weight, yes, yes_above, no_above):
    """Sets the numbers of yes and no (n + 1,) among the first i examples."""
    for place in range(len(weight)):
        answer = np.int64(yes[place])
        yes_above[place + 1] = yes_above[place] + weight[place] * answer
        no_above[place + 1] = no_above[place] + weight[place] * (1 - answer)


@kernel
def _roc_auc(last, yes_above, no_above):
    """The share of pairs of a yes and a no in which the yes has the greater score; a tie is half a pair."""
    n, first, pairs = len(last), 0, 0.0
    for place in range(n):
        if last[place]:
            tied = no_above[place + 1] - no_above[first]
            below = no_above[n] - no_above[place + 1]
            pairs += (yes_above[place + 1] - yes_above[first]) * (below + tied / 2)
            first = place + 1
    return pairs / yes_above[n] / no_above[n]


@kernel
def _average_precision(last, yes_above, no_above):
    """The precision at each score, weighted by the recall that it adds."""
    n, first, total = len(last), 0, 0.0
    for place in range(n):
        if last[place]:
            right = yes_above[place + 1]
            if right > yes_above[first]:
                total += (right - yes_above[first]) * (right / (right + no_above[place + 1]))
            first = place + 1
    return total / yes_above[n]


@kernel
def _probabilities(weight, score, yes, mass, width, gaps, out):
    """Sets the Brier score and both calibration errors: in each bin, how far the mean score is from the share of yes."""
    gaps[:] = 0.0
    square, total = 0.0, 0
    for place in range(len(weight)):
        gap = score[place] - yes[place]
        square += weight[place] * gap * gap
        total += weight[place]
        gaps[0, mass[place]] += weight[place] * gap
        gaps[1, width[place]] += weight[place] * gap
    out[2] = square / total
    for kind in range(2):
        out[3 + kind] = np.abs(gaps[kind]).sum() / total
