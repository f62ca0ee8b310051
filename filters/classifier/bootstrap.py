"""Intervals of all measures of a classifier, from resamples of its examples (the bootstrap of Efron 1979, drawn by SciPy)."""

import warnings

import numpy as np

from corpusmill.filters.classifier.metrics import MEASURES, Floats, Ranking, measure, measures

#: Draws that are in memory at a time.
DRAWS = 1 << 22


def intervals(ranking: Ranking, resamples: int, confidence: float, seed: int) -> tuple[Floats, Floats]:
    """The lower and the upper ends (5 + 4 * thresholds,) of the measures' intervals; NaN where a measure is not defined.

    They are the percentiles of the resamples in which the measure is defined. A calibration error is the exception: chance makes it greater
    in every sample and again in every resample, so its interval is the basic one (2 * value - percentile), from 0 on and up to the value
    at least.
    """
    from scipy.stats import DegenerateDataWarning, bootstrap

    n = len(ranking.score)
    if n < 2:
        value = measures(ranking)
        return value, value.copy()

    def statistic(draws: Floats, axis: int = -1) -> Floats:
        return np.asarray(measure(np.atleast_2d(draws), *ranking).T)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)  # its own interval, which is not used, knows no undefined resamples
        result = bootstrap(
            (np.arange(n),), statistic, n_resamples=resamples, batch=max(1, DRAWS // n), vectorized=True, axis=-1,
            method="percentile", rng=np.random.Generator(np.random.Philox(seed)),
        )  # fmt: skip
    outside = (1 - confidence) / 2
    low, high = _quantiles(result.bootstrap_distribution, outside), _quantiles(result.bootstrap_distribution, 1 - outside)
    value = measures(ranking)
    for place, name in enumerate(MEASURES):
        if name.startswith("calibration_error"):
            least = 0.0, value[place]
            low[place], high[place] = (max(at, 2 * value[place] - end[place]) for at, end in zip(least, (high, low), strict=True))
    return low, high


def _quantiles(distribution: Floats, at: float) -> Floats:
    """Quantiles (k,) of the finite values of each row of (k, resamples)."""
    return np.array([np.quantile(row[np.isfinite(row)], at) if np.isfinite(row).any() else np.nan for row in distribution])
