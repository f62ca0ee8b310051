"""Makes the page's charts: figures of numbers and names, which `plot.js` draws and describes. Colours are names of `theme.css`."""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

from corpusmill.pipeline.safe import safe_line
from corpusmill.report.queries.duplicates import BARS, Clusters
from corpusmill.report.queries.tokens import Judgement
from corpusmill.report.queries.training import HIGH, LOW, SPEED, VALIDATION, Curve, Training
from corpusmill.report.queries.values import EDGES, Histogram, Lengths
from corpusmill.report.read import ReportRule
from corpusmill.report.tables import number

#: A chart as `plot.js` reads it.
Figure = dict[str, Any]
#: Whole numbers that have a bar each; languages that a chart shows; and how lines of one chart are dashed.
FEW, MOST_LANGUAGES, DASHES = 12, 16, (None, "7 4", "2 3", "7 3 2 3")


def series(kind: str, name: str, color: str, x: Sequence[float], y: Sequence[float | None], **other: Any) -> Figure:
    """Returns a series of a chart. `kind`: steps (with one edge more in `x` than counts in `y`), bars, points or line."""
    return {"kind": kind, "name": safe_line(name, 60), "color": color, "x": list(x), "y": list(y), **other}


def figure(every: list[Figure], x: Figure, y: Figure, **other: Any) -> Figure:
    """Returns a chart of several series over the axes `x` and `y`."""
    return {"series": every, "x": x, "y": y, **other}


def language_figure(found: Judgement) -> Figure:
    """Draws bytes per token of each tokenizer, by language."""
    languages = found.groups("language")[:MOST_LANGUAGES]
    bars = [
        series("bars", tokenizer.name, f"series{place % 4}", [], [tokenizer.languages[language].bytes_per_token for language in languages])
        for place, tokenizer in enumerate(found.tokenizers)
    ]
    names = [safe_line(language, 20) for language in languages]
    return figure(bars, {"names": names}, {"title": "bytes a token", "zero": True}, legend=True)


def histogram_figure(histogram: Histogram, rules: list[ReportRule]) -> Figure:
    """Draws kept and dropped documents over a column's values, with the thresholds: as bars where the values are a few whole numbers. A bar
    of zeros that holds most values would hide the others and is left out."""
    edges, logarithmic, zeros = [*histogram.bins.edges], histogram.bins.logarithmic, histogram.bins.zeros
    every, first = {"kept": histogram.kept, "dropped": histogram.dropped}, int(histogram.mostly_zeros)
    axis: Figure = {"title": safe_line(histogram.column.replace("_", " "), 60), "log": logarithmic}
    if histogram.bins.whole and not logarithmic and len(edges) <= FEW + 1:
        traces = [series("bars", name, name, edges[:-1], counts, stack=True) for name, counts in every.items()]
    else:
        if histogram.bins.whole and not logarithmic and edges[1] - edges[0] == 1:
            edges = [edge - 0.5 for edge in edges]  # a bar is centred on its whole number
        if zeros:
            edges[0] = edges[1] / 2  # a logarithmic axis has no zero: zeros are drawn as its first bar
            axis |= {} if first else {"from": 0}
        traces = [series("steps", name, name, edges[first:], counts[first:], stack=True, fill=True) for name, counts in every.items()]
    marks = [
        {"x": float(rule.threshold), "text": f"{rule.comparison} {number(rule.threshold)}"}
        for rule in rules
        if isinstance(rule.threshold, int | float) and not isinstance(rule.threshold, bool) and math.isfinite(rule.threshold)
    ]
    return figure(traces, axis, {"title": "documents", "zero": True}, marks=marks)


def cluster_figure(found: Clusters) -> Figure:
    """Draws the number of clusters of each size."""
    sizes = sorted(found.sizes)
    counts = [found.sizes[size] for size in sizes]
    many = sizes[-1] > 60 or max(counts) > 100
    x, y = {"title": "documents in a cluster", "log": many}, {"title": "clusters", "log": many, "zero": not many}
    return figure([series("points" if many else "bars", "clusters", "kept", sizes, counts)], x, y)


def similarity_figure(found: Clusters, threshold: float | None) -> Figure:
    """Draws removed near copies over their similarity to the kept document, with the threshold."""
    filled = [place for place, count in enumerate(found.similarities) if count]
    at = BARS if threshold is None else int(threshold * BARS + 1e-9)
    first = max(0, min([at, *filled]) - 5)
    edges = [place / BARS for place in range(first, BARS + 1)]
    trace = series("steps", "removed documents", "dropped", edges, found.similarities[first:], fill=True)
    marks = [] if threshold is None else [{"x": threshold, "text": f"threshold {number(threshold)}"}]
    x = {"title": "similarity to the kept document", "range": [first / BARS, 1]}
    return figure([trace], x, {"title": "removed documents", "zero": True}, marks=marks)


def lengths_figure(sets: list[Lengths]) -> Figure:
    """Draws documents by length, before and after each stage, on a logarithmic axis."""
    filled = [place for each in sets for place, count in enumerate(each.bins) if count]
    first, last = (min(filled), max(filled) + 1) if filled else (0, 1)
    edges = [*EDGES, EDGES[-1] * 10][first : last + 1]
    lines = [
        series("steps", each.name, f"series{place % 4}", edges, each.bins[first:last], dash=DASHES[place % 4])
        for place, each in enumerate(sets)
    ]
    axis = {"title": "characters of a document", "log": True}
    return figure(lines, axis, {"title": "documents", "zero": True}, height=300, legend=True)


#: Titles and units of the curves, in order; other logged values follow under their own names.
TITLES = {
    "loss": ("Loss", "nats"),
    VALIDATION: ("Validation", "bits per byte"),
    "preference_loss": ("Preference loss", "nats per pair"),
    "accuracy": ("Pairs ranked rightly", "share"),
    "margin": ("Margin of rewards", "chosen less rejected"),
    "reward_chosen": ("Reward of the chosen", "reward"),
    "reward_rejected": ("Reward of the rejected", "reward"),
    "kl": ("KL to the reference model", "nats"),
    "lr": ("Learning rate", "learning rate"),
    "grad_norm": ("Gradient norm", "norm"),
    SPEED: ("Speed", "tokens per second"),
    "count": ("Targets in a step", "targets"),
    "chosen_tokens": ("Length of the chosen", "tokens"),
    "rejected_tokens": ("Length of the rejected", "tokens"),
}
HELD_OUT = "held_out_"
#: Values without a chart of their own: they are drawn in another chart, or are another one in other units.
WITHIN = (LOW, HIGH, "validation_nats_per_token")
#: Values that span many powers of ten; and points that are shown as a pair of numbers.
LOGARITHMIC, PAIR = ("grad_norm",), 2


def titles(name: str) -> tuple[str, str]:
    """Returns title and unit of a curve."""
    title, unit = TITLES.get(name.removeprefix(HELD_OUT), (name.removeprefix(HELD_OUT).replace("_", " "), "value"))
    return (f"Held out: {title[:1].lower()}{title[1:]}" if name.startswith(HELD_OUT) else title), unit


def training_charts(training: Training) -> list[tuple[str, str, Figure, str]]:
    """Returns (title, caption, figure, log) of each curve to draw."""
    return [
        (titles(curve.name)[0], _caption(curve, training), _figure(curve, training), "speed" if curve.name == SPEED else "train")
        for curve in shown_curves(training)
        if len(curve.values) > PAIR
    ]


def training_pairs(training: Training) -> list[tuple[str, str, float, float]]:
    """Returns (title, unit, first value, last value) of each curve that has too few points for a chart."""
    return [(*titles(curve.name), curve.values[0], curve.values[-1]) for curve in shown_curves(training) if len(curve.values) <= PAIR]


def shown_curves(training: Training) -> list[Curve]:
    """Returns the curves that are shown by themselves, in order; of those that never change only the most important."""
    curves = {curve.name: curve for curve in training.curves}
    names = [*(name for name in TITLES if name in curves), *(name for name in curves if name not in TITLES and name not in WITHIN)]
    return [curves[name] for name in names if name in ("loss", VALIDATION) or len(set(curves[name].values)) > 1]


def _caption(curve: Curve, training: Training) -> str:
    last = f"last: {number(curve.values[-1])}"
    low, high = training.curve(LOW), training.curve(HIGH)
    if curve.name == VALIDATION and low and high:
        return f"{last} ({number(low.values[-1])} to {number(high.values[-1])})"
    if curve.name == "loss" and training.skipped:
        return f"{last}; {training.skipped:,} skipped steps are marked"
    return last


def _figure(values: Curve, training: Training) -> Figure:
    title, unit = titles(values.name)
    low, high = training.curve(LOW), training.curve(HIGH)
    band: Figure = {}
    if values.name == VALIDATION and low and high and low.steps == high.steps == values.steps:
        band = {"low": low.values, "high": high.values, "fill": True}
    lines = [series("line", title, "series0", values.steps, values.values, **band)]
    if values.name == "loss" and training.skips:
        at = [_value_at(values, step) for step in training.skips]
        lines.append(series("points", "skipped", "dropped", training.skips, at))
    axis = {"title": unit, "log": values.name in LOGARITHMIC and min(values.values) > 0, "zero": values.name == SPEED}
    return figure(lines, {"title": "step"}, axis)


def _value_at(curve: Curve, step: int) -> float:
    """Returns the curve's value at a step, or at its last point before that step."""
    return curve.values[max(0, bisect_right(curve.steps, step) - 1)]


SHARE = {"range": [0, 1.02]}


def reliability_figure(bins: Sequence[Mapping[str, Any]]) -> Figure:
    """Draws the share of yes over the mean score of each bin, with its interval. Scores that are probabilities lie on the diagonal."""
    notes = [f"yes {b['yes']:.3f} ({b['low']:.3f} to {b['high']:.3f}), {b['examples']:,} examples" for b in bins]
    ends = {end: [b[end] for b in bins] for end in ("low", "high")}
    line = series("line", "", "kept", [b["score"] for b in bins], [b["yes"] for b in bins], notes=notes, **ends)
    return figure([line], {"title": "mean score", **SHARE}, {"title": "share of yes", **SHARE}, diagonal=True)


def thresholds_figure(rows: Sequence[Mapping[str, Any]], threshold: float) -> Figure:
    """Draws precision, recall, F1 and the share of yes over the threshold. `rows`: the `thresholds` of an `evaluate` result."""
    lines = []
    for place, (key, name) in enumerate({"precision": "precision", "recall": "recall", "f1": "F1", "kept": "yes"}.items()):
        points = [(row["threshold"], row[key]["value"]) for row in rows if row[key] is not None]
        lines.append(series("line", name, f"series{place}", [x for x, _ in points], [y for _, y in points], dash=DASHES[place]))
    marks = [{"x": threshold, "text": number(threshold)}]
    return figure(lines, {"title": "threshold", "range": [0, 1]}, dict(SHARE), legend=True, marks=marks)
