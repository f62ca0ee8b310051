"""The page's charts as plotly figures. Colours are CSS variables that the page's script fills in from its theme."""

import html
import json
from typing import Any

from corpusmill.pipeline.report.clusters import BARS, Clusters
from corpusmill.pipeline.report.funnel import FunnelRow
from corpusmill.pipeline.report.histogram import Histogram, number
from corpusmill.pipeline.report.read import Rule
from corpusmill.pipeline.report.safe import safe_line
from corpusmill.pipeline.report.tokenizers import Judgement

Figure = dict[str, Any]
#: Languages that a chart shows.
MOST_LANGUAGES = 16


def label(text: str, limit: int = 60) -> str:
    """Crawl text for a chart: plotly understands some HTML in its labels, so none may be left."""
    return html.escape(safe_line(text, limit), quote=False)


def language_figure(found: Judgement) -> Figure:
    """Bytes a token of each tokenizer, by language."""
    import plotly.graph_objects as go

    languages = found.groups("language")[:MOST_LANGUAGES]
    figure = go.Figure()
    for place, tokenizer in enumerate(found.tokenizers):
        values = [tokenizer.languages[language].bytes_per_token for language in languages]
        figure.add_bar(
            x=[label(language, 20) for language in languages], y=values, name=label(tokenizer.name, 30),
            marker_color=f"var(--series{place % 4})", hovertemplate="%{y:.2f}",
        )  # fmt: skip
    axis = {"title": "bytes a token", "rangemode": "tozero"}
    return finish(figure, 320, barmode="group", yaxis=axis, showlegend=True, bargap=0.25)


def finish(figure: Any, height: int, **layout: Any) -> Figure:
    """A figure as plain data, laid out as all of the page's are."""
    legend = {"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0}
    every = {
        "template": "none",
        "height": height,
        "margin": {"l": 56, "r": 16, "t": 28, "b": 44},
        "hovermode": "x unified",
        "legend": legend,
    }
    figure.update_layout({**every, **layout})
    figure.update_xaxes(automargin=True, fixedrange=True)
    figure.update_yaxes(automargin=True, fixedrange=True)
    plain: Figure = json.loads(figure.to_json(engine="json"))
    plain["layout"].pop("template", None)
    return plain


def funnel_figure(rows: list[FunnelRow]) -> Figure:
    """Documents kept and dropped by each stage."""
    import plotly.graph_objects as go

    stages = [row.stage for row in rows]
    figure = go.Figure()
    for name, values in (("kept", [r.documents_out for r in rows]), ("dropped", [r.dropped for r in rows])):
        figure.add_bar(y=stages, x=values, name=name, orientation="h", marker_color=f"var(--{name})", hovertemplate="%{x:,}")
    figure.update_yaxes(autorange="reversed")
    return finish(figure, 100 + 44 * len(rows), barmode="stack", xaxis_title="documents", bargap=0.35)


def histogram_figure(histogram: Histogram, rules: list[Rule]) -> Figure:
    """Documents over the values of a column, kept and dropped, with the thresholds drawn in. Without any, zeros that are most of the values
    are left out."""
    import plotly.graph_objects as go

    figure = go.Figure()
    edges = histogram.edges.tolist()
    if histogram.whole and not histogram.logarithmic and len(edges) <= 80 and edges[1] - edges[0] == 1:
        edges = [edge - 0.5 for edge in edges]  # a bar stands over its whole number
    if histogram.logarithmic and edges[0] == 0:
        edges[0] = edges[1] / 2  # zeros have no place on a logarithmic axis: they are drawn as its first step
    first = 1 if histogram.mostly_zeros and not rules else 0
    for name, every in (("kept", histogram.kept.tolist()), ("dropped", histogram.dropped.tolist())):
        counts = every[first:]
        figure.add_scatter(
            x=edges[first:], y=[*counts, counts[-1]], name=name, mode="lines", line={"shape": "hv", "width": 1, "color": f"var(--{name})"},
            stackgroup="all", fillcolor=f"var(--{name}-fill)", hovertemplate="%{y:,}",
        )  # fmt: skip
    shapes, notes = [], []
    for place, rule in enumerate(rules):
        if isinstance(rule.threshold, int | float) and not isinstance(rule.threshold, bool):
            x = max(float(rule.threshold), edges[0]) if histogram.logarithmic else float(rule.threshold)  # zero has no place there
            line = {"color": "var(--line)", "dash": "dash"}
            shapes.append({"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper", "line": line})
            at = _log10(x) if histogram.logarithmic else x
            text = f"{html.escape(rule.comparison)} {number(rule.threshold)}"
            notes.append({"x": at, "y": 1 - 0.13 * (place % 3), "yref": "paper", "text": text, "showarrow": False, "xanchor": "left"})
    axis = {"type": "log"} if histogram.logarithmic else {}
    return finish(figure, 240, shapes=shapes, annotations=notes, xaxis=axis, yaxis={"rangemode": "tozero"}, showlegend=False)


def _log10(value: float) -> float:
    import math

    return math.log10(value) if value > 0 else 0.0


def cluster_figure(found: Clusters) -> Figure:
    """How many clusters there are of each size."""
    import plotly.graph_objects as go

    sizes = sorted(found.sizes)
    counts = [found.sizes[size] for size in sizes]
    many = bool(sizes) and (sizes[-1] > 60 or max(counts) > 100)
    axis = {"type": "log", "dtick": 1} if many else {"dtick": 1 if sizes and sizes[-1] <= 20 else None}
    figure = go.Figure(go.Scatter(x=sizes, y=counts, mode="markers", marker={"color": "var(--kept)", "size": 9}))
    if not many:
        figure = go.Figure(go.Bar(x=sizes, y=counts, marker_color="var(--kept)"))
    count_axis = {"type": "log", "dtick": 1} if many else {"rangemode": "tozero"}
    return finish(figure, 260, xaxis={"title": "documents in a cluster", **axis}, yaxis={"title": "clusters", **count_axis})


def similarity_figure(found: Clusters, threshold: float | None) -> Figure:
    """Removed near copies over their similarity to the kept document, with the threshold."""
    import plotly.graph_objects as go

    filled = [place for place, count in enumerate(found.similarities.tolist()) if count]
    at = BARS if threshold is None else int(threshold * BARS + 1e-9)
    first = max(0, min([at, *filled]) - 5)
    centres = [(place + 0.5) / BARS for place in range(first, BARS)]
    counts = found.similarities[first:].tolist()
    figure = go.Figure(go.Bar(x=centres, y=counts, marker_color="var(--dropped)", hovertemplate="%{y:,}", width=0.9 / BARS))
    marks: Figure = {}
    if threshold is not None:
        line = {"color": "var(--line)", "dash": "dash"}
        marks["shapes"] = [{"type": "line", "x0": threshold, "x1": threshold, "y0": 0, "y1": 1, "yref": "paper", "line": line}]
        note = {"x": threshold, "y": 1, "yref": "paper", "text": f"threshold {number(threshold)}", "showarrow": False, "xanchor": "left"}
        marks["annotations"] = [note]
    axis = {"title": "similarity to the kept document", "range": [first / BARS, 1]}
    return finish(figure, 260, xaxis=axis, yaxis={"title": "removed documents", "rangemode": "tozero"}, bargap=0, **marks)
