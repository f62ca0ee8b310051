"""Differences between variants, with intervals that hold for new data of the same sources.

A draw is one part of the documents (the same share of every variant, by hash) together with one seed; draws share no document. Each
variant trains one model a draw, so the differences of the draws are independent of each other, and their spread holds both kinds of noise:
seeds, and which documents were drawn. The documents of a reference set are drawn, too, but all models are measured on the same ones. Draws
and reference documents are therefore crossed, and the variance of a mean is estimated as the sum of both one-way variances, which is
never too small on average (Owen, "The pigeonhole bootstrap", 2007). The quantile is Student's with as many degrees of freedom as there are
draws, less one: Satterthwaite's number would be larger where the draws happen to agree, and the interval then fails too often.

Several variants are compared with the first: the error rate is divided by their number (Bonferroni), so all intervals hold together.
A comparison may be decided early, after half of the draws. Each look spends a part of the error rate (`SPENT`), and the parts add up to
it, so early looks do not raise it, whatever the looks have in common.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
#: The share of the error rate that is spent by the look after half of the draws, and by the one at the end.
SPENT = (0.2, 0.8)
#: The power with which a difference counts as one that a budget can show.
POWER = 0.8


@dataclass(frozen=True)
class Scores:
    """What a judge has measured of a variant's models: `values` float64 [draws, documents] (bits, or wrong choices), and the documents'
    `sizes` (UTF-8 bytes, or choices) and sets, `set_of` (int64, numbers of sets from 0), both [documents]. Less is better."""

    values: Floats
    sizes: Floats
    set_of: npt.NDArray[np.int64]

    def of_set(self, number: int) -> Floats:
        """Returns float64 [draws]: the values of a set's documents for each unit of their size."""
        chosen = self.set_of == number
        found: Floats = self.values[:, chosen].sum(axis=1) / self.sizes[chosen].sum()
        return found


@dataclass(frozen=True)
class PairedDifference:
    """A score of a variant minus that of the first one: the mean over draws, its interval, and what they rest on.

    `draws`: the draws' differences. `seeds` and `documents`: the standard errors from draws, and from reference documents.
    `can_show`: the smallest difference that as many draws show in 80% of cases.
    """

    mean: float
    low: float
    high: float
    error: float
    draws: tuple[float, ...]
    seeds: float
    documents: float
    can_show: float

    @property
    def decided(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


def difference(variant: Scores, first: Scores, sets: Sequence[int], error_rate: float) -> PairedDifference:
    """Compares two variants on the mean of some sets, each with equal weight. The interval fails with `error_rate`.

    Raises ValueError for fewer than two draws.
    """
    from scipy import stats

    if len(variant.values) < 2:
        raise ValueError("two draws at least are needed for an interval")
    draws = np.mean([variant.of_set(number) - first.of_set(number) for number in sets], axis=0)
    count = len(draws)
    of_draws = float(np.var(draws, ddof=1)) / count
    of_documents = 0.0
    change = (variant.values - first.values).mean(axis=0)
    for number in sets:
        chosen = variant.set_of == number
        sizes, some = variant.sizes[chosen], change[chosen]
        if len(sizes) > 1:
            rest = some - some.sum() / sizes.sum() * sizes  # the linear part of a ratio's error
            of_documents += len(sizes) / (len(sizes) - 1) * float((rest**2).sum()) / sizes.sum() ** 2 / len(sets) ** 2
    error, mean = math.sqrt(of_draws + of_documents), float(draws.mean())
    quantile = float(stats.t.ppf(1 - error_rate / 2, count - 1))
    can_show = (quantile + float(stats.t.ppf(POWER, count - 1))) * error
    return PairedDifference(
        mean, mean - quantile * error, mean + quantile * error, error, tuple(draws.tolist()), math.sqrt(of_draws),
        math.sqrt(of_documents), can_show,
    )  # fmt: skip


def error_rates(confidence: float, comparisons: int) -> tuple[float, float]:
    """Returns the error rates of one comparison among several, at the look after half of the draws and at the end."""
    each = (1 - confidence) / comparisons
    return each * SPENT[0], each * SPENT[1]
