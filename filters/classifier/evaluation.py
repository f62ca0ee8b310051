"""How good a classifier's scores are, as numbers that a card, a table or a page can show."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.filters.classifier.bootstrap import intervals
from corpusmill.filters.classifier.metrics import BINS, MEASURES, PER_THRESHOLD, Floats, bin_of, mass_edges, measures, rank

#: The thresholds of the table, beside the classifier's own.
THRESHOLDS = (0.01, *(round(0.05 * step, 2) for step in range(1, 20)), 0.99)
#: Where bins of text lengths begin, in characters.
LENGTHS = (0, 50, 100, 500, 2_000, 10_000)
#: Sources that are measured by themselves: those with most examples.
MOST_SOURCES = 50

Bools = npt.NDArray[np.bool_]


def evaluate(
    score: npt.ArrayLike, answer: npt.ArrayLike, source: Sequence[str] | pa.Array | pa.ChunkedArray, length: npt.ArrayLike,
    threshold: float, seed: int, resamples: int = 1000, confidence: float = 0.95,
) -> dict[str, Any]:  # fmt: skip
    """Measures n examples: calibrated scores in [0, 1], answers (1 yes, 0 no, anything else unknown), sources, lengths in characters.

    Unknown answers are counted and left out. A score that is NaN (a text with nothing that the model knows) never reaches a threshold where
    the classifier is applied, so it counts as 0 here, and is counted. The result can be written as JSON; each measure is
    `{value, low, high}` (`metrics.py` says which there are, `bootstrap.py` what the interval is), or None where it is not defined: the AUC
    of examples with one answer. `kept` is the share of examples with a score of at least the threshold.
    """
    scores, answers, lengths = np.asarray(score, np.float64), np.asarray(answer), np.asarray(length, np.int64)
    names = source.combine_chunks() if isinstance(source, pa.ChunkedArray) else pa.array(source, pa.string())
    known = np.asarray((answers == 0) | (answers == 1))
    unscored = int((known & np.isnan(scores)).sum())
    scores, yes, lengths = np.nan_to_num(scores[known], nan=0.0), answers[known] == 1, lengths[known]
    places = names.filter(pa.array(known)).dictionary_encode()
    options = {"threshold": float(threshold), "resamples": resamples, "confidence": confidence, "seed": seed}
    whole = _slice(scores, yes, (threshold, *THRESHOLDS), options)
    by_source, others = _sources(places)
    return {
        "unknown": int((~known).sum()), "without_score": unscored, **options, **whole,
        "reliability": [_bin(scores, yes, edges) for edges in _bins(scores, mass_edges(scores))],
        "reliability_equal_width": [_bin(scores, yes, edges) for edges in _bins(scores, np.linspace(0, 1, BINS + 1))],
        "by_source": {name: _slice(scores[rows], yes[rows], (threshold,), options) for name, rows in by_source.items()},
        "sources_left_out": others,
        "by_length": {name: _slice(scores[rows], yes[rows], (threshold,), options) for name, rows in _lengths(lengths).items()},
    }  # fmt: skip


def _slice(score: Floats, yes: Bools, thresholds: Sequence[float], options: dict[str, Any]) -> dict[str, Any]:
    """The measures of some examples; the first threshold is the classifier's own."""
    ranking = rank(score, yes, thresholds)
    ends = intervals(ranking, options["resamples"], options["confidence"], options["seed"])
    found = [_measure(*numbers) for numbers in zip(measures(ranking), *ends, strict=True)]
    first = len(MEASURES)
    table = [
        {"threshold": float(at), **dict(zip(PER_THRESHOLD, found[first + 4 * place : first + 4 * place + 4], strict=True))}
        for place, at in enumerate(thresholds)
    ]
    result = {"examples": len(score), "yes": int(yes.sum()), "no": int((~yes).sum()), **dict(zip(MEASURES, found[:first], strict=True))}
    return {**result, "at_threshold": table[0], **({"thresholds": table[1:]} if table[1:] else {})}


def _measure(value: float, low: float, high: float) -> dict[str, float] | None:
    return {"value": float(value), "low": float(low), "high": float(high)} if np.isfinite([value, low, high]).all() else None


def _bins(score: Floats, edges: Floats) -> list[Bools]:
    """The rows of each bin that holds any."""
    places = bin_of(score, edges)
    return [places == place for place in range(len(edges) - 1) if (places == place).any()]


def _bin(score: Floats, yes: Bools, rows: Bools) -> dict[str, Any]:
    """A point of the reliability curve, with Wilson's interval of the share of yes."""
    from scipy.stats import binomtest

    right, count = int(yes[rows].sum()), int(rows.sum())
    ends = binomtest(right, count).proportion_ci(0.95, "wilson")
    return {"examples": count, "score": float(score[rows].mean()), "yes": right / count, "low": float(ends.low), "high": float(ends.high)}


def _sources(places: pa.DictionaryArray) -> tuple[dict[str, Bools], int]:
    """The rows of each of the largest sources, by name, and how many sources are left out."""
    codes, names = places.indices.fill_null(len(places.dictionary)).to_numpy(), [*places.dictionary.to_pylist(), "(no source)"]
    counts = np.bincount(codes, minlength=len(names))
    filled = sorted((name, code) for code, name in enumerate(names) if counts[code])
    chosen = sorted(sorted(filled, key=lambda pair: -counts[pair[1]])[:MOST_SOURCES])
    return {name: codes == code for name, code in chosen}, len(filled) - len(chosen)


def _lengths(lengths: npt.NDArray[np.int64]) -> dict[str, Bools]:
    """The rows of each length that there is, by what is said of it."""
    places = np.searchsorted(LENGTHS, lengths, "right") - 1
    names = [f"{begin:,} to {end - 1:,}" for begin, end in pairwise(LENGTHS)] + [f"{LENGTHS[-1]:,} and more"]
    return {name: places == place for place, name in enumerate(names) if (places == place).any()}
