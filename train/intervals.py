"""Confidence intervals of what is measured."""

import math
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

#: Units that are drawn from.
MOST_UNITS = 10_000


def bootstrap_ratio(
    numerators: npt.NDArray[np.float64], denominators: npt.NDArray[np.float64], resamples: int, confidence: float, seed: int
) -> tuple[float, float]:
    """The percentile interval of sum(numerators) / sum(denominators) when documents are drawn again with replacement.

    Documents and not tokens are resampled, since the tokens of one document are no independent evidence. With one
    document the interval is that value alone. Seeded, so equal data give equal intervals. More than `MOST` documents are drawn in
    so many bundles, which are as independent of each other: the interval is that of the documents, at a bounded price.
    """
    used = denominators > 0
    numerators, denominators = (_bundled(values[used]) for values in (numerators, denominators))
    generator = np.random.Generator(np.random.Philox(seed))
    ratios = np.empty(resamples)
    for number in range(resamples):
        drawn = generator.integers(0, len(numerators), len(numerators))
        ratios[number] = numerators[drawn].sum() / denominators[drawn].sum()
    outside = (1 - confidence) / 2
    low, high = np.quantile(ratios, [outside, 1 - outside])
    return float(low), float(high)


def _bundled(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.bincount(np.arange(len(values)) % MOST_UNITS, values).astype(np.float64) if len(values) > MOST_UNITS else values


def wilson(successes: int, trials: int, confidence: float) -> tuple[float, float]:
    """Wilson's score interval of a share; it stays inside 0 .. 1, also for shares at the borders."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, weight = successes / trials, z * z / trials
    middle = (share + weight / 2) / (1 + weight)
    spread = z / (1 + weight) * math.sqrt(share * (1 - share) / trials + weight / (4 * trials))
    return max(0.0, middle - spread), min(1.0, middle + spread)
