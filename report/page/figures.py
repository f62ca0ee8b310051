"""The page's charts as plotly figures. Colours are CSS variables that the page's script fills in from its theme."""

import html
import json
import math
from typing import Any

from corpusmill.pipeline.safe import safe_line
from corpusmill.report.facts.clusters import BARS, Clusters
from corpusmill.report.facts.histogram import Histogram, number
from corpusmill.report.facts.tokenizers import Judgement
from corpusmill.report.read import Rule

Figure = dict[str, Any]
#: Marks of a logarithmic axis.
TICKS = 5
#: Languages that a chart shows.
MOST_LANGUAGES = 16


def label(text: str, limit: int = 60) -> str:
    """Crawl text for a chart: plotly understands some HTML in its labels, so none may be left."""
    return html.escape(safe_line(text, limit), quote=False)


def drawn(traces: list[dict[str, Any]], height: int, **layout: Any) -> Figure:
    """Traces laid out as all of the page's are."""
    axis = {"automargin": True, "fixedrange": True}
    every = {
        "height": height,
        "margin": {"l": 56, "r": 16, "t": 28, "b": 44},
        "hovermode": "x unified",
        "legend": {"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0},
    }
    axes = {name: {**axis, **_axis(layout.pop(name, {}))} for name in ("xaxis", "yaxis")}
    return {"data": traces, "layout": {**every, **layout, **axes}}


def _axis(given: dict[str, Any]) -> dict[str, Any]:
    return {**given, "title": {"text": given["title"]}} if isinstance(given.get("title"), str) else given


def finish(figure: Any, height: int, **layout: Any) -> Figure:
    """A figure of plotly's own classes as plain data, laid out as all of the page's are."""
    plain = json.loads(figure.to_json(engine="json"))
    plain["layout"].pop("template", None)
    for axis in ("xaxis", "yaxis"):
        title = layout.pop(f"{axis}_title", None)
        given = layout.get(axis, {}) if title is None else {**layout.get(axis, {}), "title": title}
        layout[axis] = {**plain["layout"].pop(axis, {}), **given}
    return drawn(plain["data"], height, **plain["layout"], **layout)


def bars(x: list[Any], y: list[Any], name: str, colour: str, hover: str = "%{y:,}", **other: Any) -> dict[str, Any]:
    """A trace of bars in one of the theme's colours."""
    return {"type": "bar", "x": x, "y": y, "name": name, "marker": {"color": f"var(--{colour})"}, "hovertemplate": hover, **other}


def language_figure(found: Judgement) -> Figure:
    """Bytes a token of each tokenizer, by language."""
    languages = found.groups("language")[:MOST_LANGUAGES]
    names = [label(language, 20) for language in languages]
    traces = []
    for place, tokenizer in enumerate(found.tokenizers):
        values = [tokenizer.languages[language].bytes_per_token for language in languages]
        traces.append(bars(names, values, label(tokenizer.name, 30), f"series{place % 4}", "%{y:.2f}"))
    axis = {"title": "bytes a token", "rangemode": "tozero"}
    return drawn(traces, 320, barmode="group", yaxis=axis, showlegend=True, bargap=0.25)


def histogram_figure(histogram: Histogram, rules: list[Rule]) -> Figure:
    """Documents over the values of a column, kept and dropped, with the thresholds drawn in. Without any, zeros that are most of the values
    are left out."""
    edges = histogram.edges.tolist()
    if histogram.whole and not histogram.logarithmic and len(edges) <= 80 and edges[1] - edges[0] == 1:
        edges = [edge - 0.5 for edge in edges]  # a bar stands over its whole number
    zeros = histogram.logarithmic and edges[0] == 0
    if zeros:
        edges[0] = edges[1] / 2  # zeros have no place on a logarithmic axis: they are drawn as its first step
    first = 1 if histogram.mostly_zeros and not rules else 0
    every = (("kept", histogram.kept.tolist()), ("dropped", histogram.dropped.tolist()))
    traces = [outline(edges[first:], counts[first:], name) for name, counts in every]
    shapes, notes = _thresholds(rules, edges[0], histogram.logarithmic)
    axis = {"type": "log", **_ticks(edges[first:], zeros and not first)} if histogram.logarithmic else {}
    if zeros and not first:
        for trace in traces:
            trace["meta"] = {"from": 0}  # what the first step is in the chart's table
    return drawn(traces, 240, shapes=shapes, annotations=notes, xaxis=axis, yaxis={"rangemode": "tozero"}, showlegend=False)


def _ticks(edges: list[float], zeros: bool) -> Figure:
    """Marks of a logarithmic axis: at most `TICKS` powers of ten, or what lies between; and 0 under the first bar, that of the zeros."""
    low, high = edges[1] * 1.5 if zeros else edges[0], edges[-1]
    powers = range(math.floor(_log10(low)), math.ceil(_log10(high)) + 1)
    every = [[factor * 10.0**power for power in powers for factor in factors] for factors in ((1,), (1, 2, 5), range(1, 10))]
    inside = [[value for value in values if low <= value <= high] for values in every]
    values = next((values for values in inside if len(values) > 1), inside[-1])
    values = values[:: -(-len(values) // TICKS) or 1]
    told = [f"{value / 1e6:g}M" if value >= 1e6 else f"{value / 1000:g}k" if value >= 10_000 else f"{value:g}" for value in values]
    if zeros:
        values, told = [math.sqrt(edges[0] * edges[1]), *values], ["0", *told]
    return {"tickmode": "array", "tickvals": values, "ticktext": told}


def outline(edges: list[float], counts: list[int], name: str) -> dict[str, Any]:
    """A trace of counts between `edges` (one more than there are counts), to be stacked on others."""
    return {
        "type": "scatter", "x": edges, "y": [*counts, *counts[-1:]], "name": name, "mode": "lines",
        "line": {"shape": "hv", "width": 1, "color": f"var(--{name})"}, "stackgroup": "all", "fillcolor": f"var(--{name}-fill)",
        "hovertemplate": "%{y:,}",
    }  # fmt: skip


def _thresholds(rules: list[Rule], lowest: float, logarithmic: bool) -> tuple[list[Figure], list[Figure]]:
    """A dashed line for each threshold that is a number, and what stands beside it."""
    shapes, notes = [], []
    for place, rule in enumerate(rules):
        if isinstance(rule.threshold, int | float) and not isinstance(rule.threshold, bool) and math.isfinite(rule.threshold):
            x = max(float(rule.threshold), lowest) if logarithmic else float(rule.threshold)  # zero has no place there
            line = {"color": "var(--line)", "dash": "dash"}
            shapes.append({"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper", "line": line})
            at = _log10(x) if logarithmic else x
            text = f"{html.escape(rule.comparison)} {number(rule.threshold)}"
            notes.append({"x": at, "y": 1 - 0.13 * (place % 3), "yref": "paper", "text": text, "showarrow": False, "xanchor": "left"})
    return shapes, notes


def _log10(value: float) -> float:
    return math.log10(value) if value > 0 else 0.0


def cluster_figure(found: Clusters) -> Figure:
    """How many clusters there are of each size."""
    sizes = sorted(found.sizes)
    counts = [found.sizes[size] for size in sizes]
    many = bool(sizes) and (sizes[-1] > 60 or max(counts) > 100)
    axis = {"type": "log", "dtick": 1} if many else {"dtick": 1 if sizes and sizes[-1] <= 20 else None}
    trace = bars(sizes, counts, "clusters", "kept", "%{y:,}")
    if many:
        trace |= {"type": "scatter", "mode": "markers", "marker": {"color": "var(--kept)", "size": 9}}
    count_axis = {"type": "log", "dtick": 1} if many else {"rangemode": "tozero"}
    return drawn([trace], 260, xaxis={"title": "documents in a cluster", **axis}, yaxis={"title": "clusters", **count_axis})


def similarity_figure(found: Clusters, threshold: float | None) -> Figure:
    """Removed near copies over their similarity to the kept document, with the threshold."""
    filled = [place for place, count in enumerate(found.similarities.tolist()) if count]
    at = BARS if threshold is None else int(threshold * BARS + 1e-9)
    first = max(0, min([at, *filled]) - 5)
    centres = [(place + 0.5) / BARS for place in range(first, BARS)]
    counts = found.similarities[first:].tolist()
    trace = bars(centres, counts, "removed documents", "dropped", width=0.9 / BARS)
    marks: Figure = {}
    if threshold is not None:
        line = {"color": "var(--line)", "dash": "dash"}
        marks["shapes"] = [{"type": "line", "x0": threshold, "x1": threshold, "y0": 0, "y1": 1, "yref": "paper", "line": line}]
        note = {"x": threshold, "y": 1, "yref": "paper", "text": f"threshold {number(threshold)}", "showarrow": False, "xanchor": "left"}
        marks["annotations"] = [note]
    axis = {"title": "similarity to the kept document", "range": [first / BARS, 1]}
    return drawn([trace], 260, xaxis=axis, yaxis={"title": "removed documents", "rangemode": "tozero"}, bargap=0, **marks)
