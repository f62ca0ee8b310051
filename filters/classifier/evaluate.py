"""Measures a classifier on labelled files: `corpusmill classifier evaluate`."""

from collections import namedtuple
from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.filters.classifier.card import read_classifier
from corpusmill.filters.classifier.examples import gather_examples
from corpusmill.filters.classifier.score import Scorer, in_training
from corpusmill.filters.classifier.spec import TrainingSpec
from corpusmill.pipeline.errors import InputError

# ---- Measures, for many resamples of the same examples at once
#
# The examples are sorted once. A resample is then a count for each example, and sums of counts give all measures. The measures equal
# scikit-learn's, ties included: `roc_auc_score`, `average_precision_score`, `brier_score_loss`, `precision_score`, `recall_score`,
# `f1_score`, with the counts as `sample_weight`. The expected calibration error is that of Nguyen & O'Connor 2015, with bins of equal
# mass, divided as in `sklearn.calibration.calibration_curve`.

#: The most bins of a reliability curve; as in Guo et al. 2017.
BINS = 15
#: The fewest examples of a bin of equal mass; with too few examples there are fewer bins.
BIN_EXAMPLES = 20
#: The order of `measure`'s results: first MEASURES, then PER_THRESHOLD for each threshold.
MEASURES = ("roc_auc", "average_precision", "brier", "calibration_error")
PER_THRESHOLD = ("precision", "recall", "f1", "kept")

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]

#: n examples in descending order of scores. `score` float64 (n,), `yes` bool (n,). `last` bool (n,): whether it is the last with its score.
#: `cuts` int64 (thresholds,): how many examples have at least that score. `bins` int64 (n,): their bins of equal mass.
Ranking = namedtuple("Ranking", "score yes last cuts bins")


def rank(score: npt.ArrayLike, yes: npt.ArrayLike, thresholds: Sequence[float] = (), bins: int = BINS) -> Ranking:
    """Sorts examples (n,) of finite scores and answers into a `Ranking` for `measure`."""
    given = np.asarray(score, np.float64)
    order = np.argsort(-given, kind="stable")
    sorted_score = given[order]
    last = np.ones(len(order), np.bool_)
    last[:-1] = sorted_score[1:] != sorted_score[:-1]
    cuts = np.searchsorted(-sorted_score, -np.asarray(thresholds, np.float64), "right")
    positions = bin_of(sorted_score, mass_edges(sorted_score, bins))
    return Ranking(sorted_score, np.asarray(yes, np.bool_)[order], last, cuts.astype(np.int64), positions)


def mass_edges(score: Floats, bins: int = BINS) -> Floats:
    """Returns the edges (bins + 1,) of bins with equally many examples; of fewer bins for few examples. Equal scores share a bin."""
    count = int(np.clip(len(score) // BIN_EXAMPLES, 1, bins))
    return np.quantile(score, np.linspace(0, 1, count + 1)) if len(score) else np.zeros(2)


def bin_of(score: Floats, edges: Floats) -> npt.NDArray[np.int64]:
    """Returns the bin (n,) of each score; a score on an edge belongs to the bin below."""
    return np.searchsorted(edges[1:-1], score).astype(np.int64)


def measures(ranking: Ranking) -> Floats:
    """Returns all measures (4 + 4 * thresholds,) of the examples; NaN if one is not defined, as the AUC if all answers are the same."""
    return np.asarray(measure(np.arange(len(ranking.score))[None, :], *ranking)[0])


def measure(draws: Integers, score: Floats, yes: Bools, last: Bools, cuts: Integers, bins: Integers) -> Floats:
    """Returns the measures (resamples, 4 + 4 * thresholds) of resamples. `draws` (resamples, any): the drawn positions in the ranking."""
    n, resamples = len(score), len(draws)
    positions = (draws + n * np.arange(resamples)[:, None]).ravel()
    weight = np.bincount(positions, minlength=resamples * n).reshape(resamples, n)
    above = np.zeros((2, resamples, n + 1), np.int64)  # no and yes among the first i examples
    np.cumsum([weight * ~yes, weight * yes], axis=2, out=above[:, :, 1:])
    total_no, total_yes = above[:, :, -1]
    total = total_no + total_yes
    ends = np.flatnonzero(last) + 1  # the ends of runs with the same score
    starts = np.concatenate([[0], ends])[:-1]
    no, right = above[:, :, ends]
    tied, hits = above[:, :, ends] - above[:, :, starts]
    gap = weight * (score - yes)
    with np.errstate(invalid="ignore", divide="ignore"):
        pairs = (hits * (total_no[:, None] - no + tied / 2)).sum(axis=1)  # pairs of a yes and a lower no; a tie is half a pair
        precision = np.where(hits > 0, right / (right + no), 0.0)
        columns = [pairs / total_yes / total_no, (hits * precision).sum(axis=1) / total_yes, (gap * (score - yes)).sum(axis=1) / total]
        inside = bins[:, None] == np.arange(bins.max(initial=0) + 1)
        columns.append(np.abs(gap @ inside).sum(axis=1) / total)
        for wrong, found in above[:, :, cuts].transpose(2, 0, 1):
            columns += [found / (found + wrong), found / total_yes, 2 * found / (total_yes + found + wrong), (found + wrong) / total]
    return np.stack(columns, axis=1)


# ---- Intervals of all measures of a classifier, from resamples of its examples (the bootstrap of Efron 1979).

#: Number of draws in memory at a time.
DRAWS = 1 << 20


def intervals(ranking: Ranking, resamples: int, confidence: float, seed: int) -> tuple[Floats, Floats]:
    """Returns the lower and the upper ends (4 + 4 * thresholds,) of the measures' intervals; NaN if a measure is not defined.

    The ends are percentiles of the resamples in which the measure is defined. The calibration error is the exception: chance increases it
    in every sample, and again in every resample. Its interval is the basic one (2 * value - percentile), with a lower end of at least 0
    and an upper end of at least the value.
    """
    value, n = measures(ranking), len(ranking.score)
    if not n:
        return value, value.copy()
    random, batch = np.random.Generator(np.random.Philox(seed)), max(1, DRAWS // n)
    sizes = [min(batch, resamples - start) for start in range(0, resamples, batch)]
    found = np.concatenate([measure(random.integers(0, n, (size, n)), *ranking) for size in sizes]).T
    defined = [row[np.isfinite(row)] for row in found]
    outside = (1 - confidence) / 2
    low, high = (np.array([np.quantile(row, at) if len(row) else np.nan for row in defined]) for at in (outside, 1 - outside))
    error = MEASURES.index("calibration_error")
    low[error], high[error] = max(0.0, 2 * value[error] - high[error]), max(value[error], 2 * value[error] - low[error])
    return low, high


# ---- All measures of a classifier's scores, for cards, tables and pages.

#: The thresholds of the table, after the classifier's own threshold.
THRESHOLDS = (0.01, *(round(0.05 * step, 2) for step in range(1, 20)), 0.99)
#: The lower ends of ranges of text lengths, in characters.
LENGTHS = (0, 50, 100, 500, 2_000, 10_000)
#: The most sources that are measured by themselves; those with the most examples.
MOST_SOURCES = 50


def evaluate(
    score: npt.ArrayLike, answer: npt.ArrayLike, source: Sequence[str] | pa.Array | pa.ChunkedArray, length: npt.ArrayLike,
    threshold: float, seed: int, resamples: int = 1000, confidence: float = 0.95,
) -> dict[str, Any]:  # fmt: skip
    """Measures n examples: calibrated scores in [0, 1], answers (1 yes, 0 no, anything else unknown), sources, lengths in characters.

    Examples with unknown answers are counted and left out. A score that is NaN (a text without any word or n-gram of the model) reaches no
    threshold when the classifier is used, so it counts as 0 here; these are counted, too. The result can be written as JSON. Each measure
    (MEASURES, PER_THRESHOLD) is `{value, low, high}`, with the ends of `intervals`; or None if it is not defined, such as the AUC if all
    answers are the same. `kept` is the share of examples with a score of at least the threshold.
    """
    scores, answers, lengths = np.asarray(score, np.float64), np.asarray(answer), np.asarray(length, np.int64)
    names = source.combine_chunks() if isinstance(source, pa.ChunkedArray) else pa.array(source, pa.string())
    known = np.asarray((answers == 0) | (answers == 1))
    unscored = int((known & np.isnan(scores)).sum())
    scores, yes, lengths = np.nan_to_num(scores[known], nan=0.0), answers[known] == 1, lengths[known]
    positions = names.filter(pa.array(known)).dictionary_encode()
    options = {"threshold": float(threshold), "resamples": resamples, "confidence": confidence, "seed": seed}
    whole = _slice(scores, yes, (threshold, *THRESHOLDS), options)
    by_source, others = _largest_sources(positions)
    return {
        "unknown": int((~known).sum()), "without_score": unscored, **options, **whole,
        "reliability": _reliability(scores, yes),
        "by_source": {name: _slice(scores[rows], yes[rows], (threshold,), options) for name, rows in by_source.items()},
        "sources_left_out": others,
        "by_length": {name: _slice(scores[rows], yes[rows], (threshold,), options) for name, rows in _lengths(lengths).items()},
    }  # fmt: skip


def _slice(score: Floats, yes: Bools, thresholds: Sequence[float], options: dict[str, Any]) -> dict[str, Any]:
    """Returns the measures of some examples. The first threshold is the classifier's own."""
    ranking = rank(score, yes, thresholds)
    ends = intervals(ranking, options["resamples"], options["confidence"], options["seed"])
    found = [_measure(*numbers) for numbers in zip(measures(ranking), *ends, strict=True)]
    first = len(MEASURES)
    table = [
        {"threshold": float(at), **dict(zip(PER_THRESHOLD, found[first + 4 * position : first + 4 * position + 4], strict=True))}
        for position, at in enumerate(thresholds)
    ]
    result = {"examples": len(score), "yes": int(yes.sum()), "no": int((~yes).sum()), **dict(zip(MEASURES, found[:first], strict=True))}
    return {**result, "at_threshold": table[0], **({"thresholds": table[1:]} if table[1:] else {})}


def _measure(value: float, low: float, high: float) -> dict[str, float] | None:
    return {"value": float(value), "low": float(low), "high": float(high)} if np.isfinite([value, low, high]).all() else None


def _reliability(score: Floats, yes: Bools) -> list[dict[str, Any]]:
    """Returns the points of the reliability curve, with Wilson's intervals for the shares of yes."""
    from scipy.stats import binomtest

    positions, points = bin_of(score, mass_edges(score)), []
    for position in np.unique(positions):
        rows = positions == position
        right, count = int(yes[rows].sum()), int(rows.sum())
        ends = binomtest(right, count).proportion_ci(0.95, "wilson")
        mean = float(score[rows].mean())
        points.append({"examples": count, "score": mean, "yes": right / count, "low": float(ends.low), "high": float(ends.high)})
    return points


def _largest_sources(positions: pa.DictionaryArray) -> tuple[dict[str, Bools], int]:
    """Returns the rows of each of the largest sources, by name, and how many sources are left out."""
    codes, names = positions.indices.fill_null(len(positions.dictionary)).to_numpy(), [*positions.dictionary.to_pylist(), "(no source)"]
    counts = np.bincount(codes, minlength=len(names))
    filled = sorted((name, code) for code, name in enumerate(names) if counts[code])
    chosen = sorted(sorted(filled, key=lambda pair: -counts[pair[1]])[:MOST_SOURCES])
    return {name: codes == code for name, code in chosen}, len(filled) - len(chosen)


def _lengths(lengths: npt.NDArray[np.int64]) -> dict[str, Bools]:
    """Returns the rows of each range of lengths that occurs, by the range's name."""
    positions = np.searchsorted(LENGTHS, lengths, "right") - 1
    names = [f"{begin:,} to {end - 1:,}" for begin, end in pairwise(LENGTHS)] + [f"{LENGTHS[-1]:,} and more"]
    return {name: positions == position for position, name in enumerate(names) if (positions == position).any()}


# ---- Evaluation of files


def evaluate_files(folder: str | Path, spec: TrainingSpec) -> dict[str, Any]:
    """Scores the texts of a spec's sources and measures each of its labels. Returns the output of `--json`. Leaves out texts that the
    classifier in `folder` was trained on. Raises InputError in one sentence if there is nothing to measure.
    """
    classifier = read_classifier(folder)
    heads = {head.label: head for head in classifier.heads}
    for label in spec.labels:
        if label not in heads:
            raise InputError(f"{folder}: the classifier has no label {label!r} (it has {', '.join(heads)}).")
    scorer = Scorer(folder, classifier)
    examples = gather_examples(spec.sources, spec.labels)
    table = examples.table
    seen = in_training(folder, classifier.form, table["text"].combine_chunks())
    if seen is not None:
        table = table.filter(pa.array(~seen))
        if not len(table):
            raise InputError(f"{folder}: all {len(seen):,} texts were training data; none is left to evaluate on.")
    scores = dict(zip(heads, scorer.score(table["text"]), strict=True))
    answers = {label: table[label].fill_null(-1).to_numpy() for label in spec.labels}
    lengths = pc.utf8_length(table["text"]).to_numpy()
    return {
        "classifier": classifier.name, "digest": classifier.digest(), "texts": table.num_rows,
        "sources": [asdict(source) for source in examples.sources],
        "left_out": None if seen is None else int(seen.sum()),
        "not_asked": [label for label in spec.labels if not (answers[label] >= 0).any()],
        "labels": {
            label: evaluate(scores[label], answers[label], table["source"], lengths, heads[label].threshold, seed=0)
            for label in spec.labels if (answers[label] >= 0).any()
        },
    }  # fmt: skip
