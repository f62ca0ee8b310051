"""Makes the page's charts as plotly figures. Colours are CSS variables, which the page's script replaces by the theme's values."""

import html
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

from corpusmill.pipeline.safe import safe_line
from corpusmill.report.queries.duplicates import BARS, Clusters
from corpusmill.report.queries.rules import FunnelRow, FunnelStep
from corpusmill.report.queries.tokens import Judgement
from corpusmill.report.queries.training import HIGH, LOW, SPEED, VALIDATION, Curve, Training
from corpusmill.report.queries.values import EDGES, Histogram, Lengths
from corpusmill.report.read import ReportRule
from corpusmill.report.tables import number

Figure = dict[str, Any]
#: The style of a line that is drawn only for comparison.
_SOFT: dict[str, Any] = {"color": "var(--soft)", "width": 1}
#: Marks of a logarithmic axis; and whole numbers that have a bar each, so that their chart is no histogram.
TICKS, FEW = 5, 12
#: Languages that a chart shows, and pixels of most charts.
MOST_LANGUAGES, HEIGHT = 16, 240


def label(text: str, limit: int = 60) -> str:
    """Escapes crawl text for a chart, since plotly reads some HTML in labels."""
    return html.escape(safe_line(text, limit), quote=False)


def drawn(traces: list[dict[str, Any]], height: int, **layout: Any) -> Figure:
    """Returns a figure of traces with the layout that all charts of the page share."""
    axis = {"automargin": True, "fixedrange": True, "exponentformat": "none", "separatethousands": True}
    every = {
        "height": height,
        "margin": {"l": 56, "r": 28, "t": 28, "b": 44},
        "hovermode": "x unified",
        "legend": {"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0},
    }
    axes = {name: {**axis, **_axis(layout.pop(name, {}))} for name in ("xaxis", "yaxis")}
    return {"data": traces, "layout": {**every, **layout, **axes}}


def _axis(given: dict[str, Any]) -> dict[str, Any]:
    return {**given, "title": {"text": given["title"]}} if isinstance(given.get("title"), str) else given


def curve(x: Sequence[float], y: Sequence[float], name: str, **other: Any) -> dict[str, Any]:
    """Returns a line trace."""
    return {"type": "scatter", "x": list(x), "y": list(y), "name": name, "mode": "lines", **other}


def marked(x: float, text: str = "", at: float | None = None, height: float = 1, left: bool = False) -> tuple[Figure, Figure]:
    """Returns a dashed line across a chart at `x`, and its label. `at`: the label's place on a logarithmic axis. `left`: the label is left
    of the line, since right of it there is no room."""
    dashes = {"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper", "line": {"dash": "dash", "color": "var(--line)"}}
    side = "right" if left else "left"
    note = {"x": x if at is None else at, "y": height, "yref": "paper", "text": text, "showarrow": False, "xanchor": side}
    return dashes, note


def bars(x: list[Any], y: list[Any], name: str, colour: str, hover: str = "%{y:,}", **other: Any) -> dict[str, Any]:
    """Returns a bar trace in one of the theme's colours."""
    return {"type": "bar", "x": x, "y": y, "name": name, "marker": {"color": f"var(--{colour})"}, "hovertemplate": hover, **other}


def language_figure(found: Judgement) -> Figure:
    """Draws bytes per token of each tokenizer, by language."""
    languages = found.groups("language")[:MOST_LANGUAGES]
    names = [label(language, 20) for language in languages]
    traces = []
    for place, tokenizer in enumerate(found.tokenizers):
        values = [tokenizer.languages[language].bytes_per_token for language in languages]
        traces.append(bars(names, values, label(tokenizer.name, 30), f"series{place % 4}", "%{y:.2f}"))
    axis = {"title": "bytes a token", "rangemode": "tozero"}
    return drawn(traces, 320, barmode="group", yaxis=axis, showlegend=True, bargap=0.25)


def histogram_figure(histogram: Histogram, rules: list[ReportRule]) -> Figure:
    """Draws kept and dropped documents over a column's values, with the thresholds: as bars where the values are a few whole numbers. A bar
    of zeros that holds most values would hide the others and is left out."""
    edges, logarithmic = histogram.bins.edges, histogram.bins.logarithmic
    every = (("kept", histogram.kept), ("dropped", histogram.dropped))
    axis: Figure = {"title": label(histogram.column.replace("_", " "))}
    zeros, first = histogram.bins.zeros, int(histogram.mostly_zeros)
    if histogram.bins.whole and not logarithmic and len(edges) <= FEW + 1:
        traces = [bars(edges[:-1], counts, name, name) for name, counts in every]
        axis["dtick"] = 1
    else:
        if histogram.bins.whole and not logarithmic and edges[1] - edges[0] == 1:
            edges = [edge - 0.5 for edge in edges]  # a bar is centred on its whole number
        if zeros:
            edges[0] = edges[1] / 2  # a logarithmic axis has no zero: zeros are drawn as its first bar
        traces = [outline(edges[first:], counts[first:], name) for name, counts in every]
        if zeros and not first:
            for trace in traces:
                trace["meta"] = {"from": 0}  # the value that the chart's description names for the first bar
    shapes, notes = _thresholds(rules, edges[first], edges[-1], logarithmic)
    axis |= {"type": "log", **_ticks(edges[first:], zeros and not first)} if logarithmic else {}
    counts = {"title": "documents", "rangemode": "tozero"}
    marks: Figure = {"shapes": shapes, "annotations": notes, "barmode": "stack", "bargap": 0.3, "showlegend": False}
    return drawn(traces, HEIGHT, xaxis=axis, yaxis=counts, **marks)


def _ticks(edges: list[float], zeros: bool) -> Figure:
    """Returns the marks of a logarithmic axis: at most `TICKS` powers of ten, or numbers between them; and 0 under the bar of zeros."""
    low, high = edges[1] * 1.5 if zeros else edges[0], edges[-1]
    powers = range(math.floor(_log10(low)), math.ceil(_log10(high)) + 1)
    every = [[factor * 10.0**power for power in powers for factor in factors] for factors in ((1,), (1, 2, 5), range(1, 10))]
    inside = [[value for value in values if low <= value <= high] for values in every]
    values = next((values for values in inside if len(values) > 1), inside[-1])
    values = values[:: -(-len(values) // TICKS) or 1]
    labels = [f"{value / 1e6:g}M" if value >= 1e6 else f"{value / 1000:g}k" if value >= 10_000 else f"{value:g}" for value in values]
    if zeros:
        values, labels = [math.sqrt(edges[0] * edges[1]), *values], ["0", *labels]
    return {"tickmode": "array", "tickvals": values, "ticktext": labels}


def outline(edges: list[float], counts: list[int], name: str) -> dict[str, Any]:
    """Returns a trace of counts between `edges` (one more than counts), to be stacked on others."""
    return {
        "type": "scatter", "x": edges, "y": [*counts, *counts[-1:]], "name": name, "mode": "lines",
        "line": {"shape": "hv", "width": 1, "color": f"var(--{name})"}, "stackgroup": "all", "fillcolor": f"var(--{name}-fill)",
        "hovertemplate": "%{y:,}",
    }  # fmt: skip


def _thresholds(rules: list[ReportRule], lowest: float, highest: float, logarithmic: bool) -> tuple[list[Figure], list[Figure]]:
    """Returns a dashed line and its label for each numeric threshold."""
    found = []
    for place, rule in enumerate(rules):
        if isinstance(rule.threshold, int | float) and not isinstance(rule.threshold, bool) and math.isfinite(rule.threshold):
            x = max(float(rule.threshold), lowest) if logarithmic else float(rule.threshold)  # a logarithmic axis has no zero
            text = f"{html.escape(rule.comparison)} {number(rule.threshold)}"
            at, low, high = (_log10(value) if logarithmic else value for value in (x, lowest, highest))
            found.append(marked(x, text, at, 1 - 0.13 * (place % 3), at - low > 0.6 * (high - low)))
    return [line for line, _ in found], [note for _, note in found]


def _log10(value: float) -> float:
    return math.log10(value) if value > 0 else 0.0


def cluster_figure(found: Clusters) -> Figure:
    """Draws the number of clusters of each size."""
    sizes = sorted(found.sizes)
    counts = [found.sizes[size] for size in sizes]
    many = sizes[-1] > 60 or max(counts) > 100
    axis = {"type": "log", "dtick": 1} if many else {"dtick": 1 if sizes[-1] <= 20 else None}
    trace = bars(sizes, counts, "clusters", "kept", "%{y:,}")
    if many:
        trace |= {"type": "scatter", "mode": "markers", "marker": {"color": "var(--kept)", "size": 9}}
    count_axis = {"type": "log", "dtick": 1} if many else {"rangemode": "tozero"}
    return drawn([trace], HEIGHT, xaxis={"title": "documents in a cluster", **axis}, yaxis={"title": "clusters", **count_axis})


def similarity_figure(found: Clusters, threshold: float | None) -> Figure:
    """Draws removed near copies over their similarity to the kept document, with the threshold."""
    filled = [place for place, count in enumerate(found.similarities) if count]
    at = BARS if threshold is None else int(threshold * BARS + 1e-9)
    first = max(0, min([at, *filled]) - 5)
    centres = [(place + 0.5) / BARS for place in range(first, BARS)]
    counts = found.similarities[first:]
    trace = bars(centres, counts, "removed documents", "dropped", width=0.9 / BARS)
    marks: Figure = {}
    if threshold is not None:
        line, note = marked(threshold, f"threshold {number(threshold)}", left=threshold - first / BARS > 0.6 * (1 - first / BARS))
        marks = {"shapes": [line], "annotations": [note]}
    axis = {"title": "similarity to the kept document", "range": [first / BARS, 1]}
    return drawn([trace], HEIGHT, xaxis=axis, yaxis={"title": "removed documents", "rangemode": "tozero"}, bargap=0, **marks)


def funnel_bars(rows: list[FunnelRow], steps: list[FunnelStep]) -> tuple[list[str], list[int], list[int]]:
    """Returns for each rule its name, the documents left, and those whose first failed rule it is; the documents that became tokens come
    last."""
    names = [f"{step.stage}: {safe_line(step.name, 40)}" for step in steps]
    kept, dropped = [step.left for step in steps], [step.removed for step in steps]
    if rows and rows[-1].stage == "tokens":
        return [*names, "tokens"], [*kept, rows[-1].documents_out], [*dropped, rows[-1].dropped]
    return names, kept, dropped


def funnel_figure(rows: list[FunnelRow], steps: list[FunnelStep]) -> Figure:
    """Draws `funnel_bars`."""
    names, kept, dropped = funnel_bars(rows, steps)
    names = [label(name, 60) for name in names]
    traces = [bars(values, names, name, name, "%{x:,}", orientation="h") for name, values in (("kept", kept), ("dropped", dropped))]
    axes = {"xaxis": {"title": "documents"}, "yaxis": {"autorange": "reversed", "type": "category"}}
    return drawn(traces, 110 + 22 * len(names), barmode="stack", bargap=0.3, showlegend=True, hovermode="y unified", **axes)


def lengths_figure(sets: list[Lengths]) -> Figure:
    """Draws documents by length, before and after each stage, on a logarithmic axis. The outlines are not stacked."""
    counts = [each.bins for each in sets]
    filled = [place for bins in counts for place, count in enumerate(bins) if count]
    first, last = (min(filled), max(filled) + 1) if filled else (0, 1)
    edges = [*EDGES, EDGES[-1] * 10][first : last + 1]
    traces = []
    for place, (each, bins) in enumerate(zip(sets, counts, strict=True)):
        values = bins[first:last]
        line = {"shape": "hv", "width": 2, "color": f"var(--series{place % 4})", "dash": ("solid", "dash", "dot", "dashdot")[place % 4]}
        traces.append({"type": "scatter", "x": edges, "y": [*values, *values[-1:]], "name": each.name, "mode": "lines", "line": line,
                       "stackgroup": f"set{place}", "fill": "none", "hovertemplate": "%{y:,}"})  # fmt: skip
    axis = {"type": "log", "title": "characters of a document"}
    return drawn(traces, 300, xaxis=axis, yaxis={"title": "documents", "rangemode": "tozero"}, showlegend=True)


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
    traces = []
    low, high = training.curve(LOW), training.curve(HIGH)
    if values.name == VALIDATION and low and high:
        edge: dict[str, Any] = {"line": {"width": 0}, "hoverinfo": "skip"}
        traces.append(curve(low.steps, low.values, "from", **edge))
        traces.append(curve(high.steps, high.values, "to", fill="tonexty", fillcolor="var(--kept-fill)", **edge))
    mode = "lines+markers" if len(values.steps) <= 60 else "lines"
    (title, unit), line = map(label, titles(values.name)), {"color": "var(--series0)", "width": 1.5}
    traces.append(curve(values.steps, values.values, title, mode=mode, line=line, marker={"size": 5}))
    if values.name == "loss" and training.skips:
        at = [_value_at(values, step) for step in training.skips]
        marker = {"symbol": "x", "size": 8, "color": "var(--dropped)"}
        traces.append(curve(training.skips, at, "skipped", mode="markers", marker=marker, hovertemplate="skipped"))
    axis: dict[str, Any] = {"title": unit}
    if values.name in LOGARITHMIC and min(values.values) > 0:
        axis["type"] = "log"
    if values.name == SPEED:
        axis["rangemode"] = "tozero"
    return drawn(traces, HEIGHT, xaxis={"title": "step"}, yaxis=axis, showlegend=False)


def _value_at(curve: Curve, step: int) -> float:
    """Returns the curve's value at a step, or at its last point before that step."""
    return curve.values[max(0, bisect_right(curve.steps, step) - 1)]


SHARE = {"range": [0, 1.02], "tickformat": ".1f"}
_DIAGONAL = {"type": "line", "x0": 0, "x1": 1, "y0": 0, "y1": 1, "line": {"dash": "dash", **_SOFT}}


def reliability_figure(bins: Sequence[Mapping[str, Any]]) -> Figure:
    """Draws the share of yes over the mean score of each bin, with its interval. Scores that are probabilities lie on the diagonal."""
    errors = {
        "type": "data", "symmetric": False, "array": [b["high"] - b["yes"] for b in bins],
        "arrayminus": [b["yes"] - b["low"] for b in bins], "color": "var(--soft)", "thickness": 1, "width": 3,
    }  # fmt: skip
    trace = curve(
        [b["score"] for b in bins], [b["yes"] for b in bins], "", error_y=errors, mode="lines+markers",
        marker={"color": "var(--kept)", "size": 8}, line={"color": "var(--kept)", "width": 1}, customdata=[b["examples"] for b in bins],
        hovertemplate="score %{x:.3f}, yes %{y:.3f}, %{customdata:,} examples<extra></extra>",
    )  # fmt: skip
    axes: dict[str, Any] = {"xaxis": {"title": "mean score", **SHARE}, "yaxis": {"title": "share of yes", **SHARE}}
    return drawn([trace], HEIGHT, shapes=[_DIAGONAL], hovermode="closest", showlegend=False, **axes)


def thresholds_figure(rows: Sequence[Mapping[str, Any]], threshold: float) -> Figure:
    """Draws precision, recall, F1 and the share of yes over the threshold. `rows`: the `thresholds` of an `evaluate` result."""
    traces = []
    for place, (key, name) in enumerate({"precision": "precision", "recall": "recall", "f1": "F1", "kept": "yes"}.items()):
        points = [(row["threshold"], row[key]["value"]) for row in rows if row[key] is not None]
        style = {"width": 1.5, "color": f"var(--series{place})"}
        traces.append(curve([x for x, _ in points], [y for _, y in points], name, hovertemplate="%{y:.3f}", line=style))
    axes: dict[str, Any] = {"xaxis": {"title": "threshold", "range": [0, 1]}, "yaxis": SHARE}
    return drawn(traces, HEIGHT, shapes=[marked(threshold)[0]], showlegend=True, **axes)
