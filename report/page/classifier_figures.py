"""Charts of how good a classifier is. Colours are CSS variables, as in figures.py."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from corpusmill.report.page.figures import Figure, finish, label

HEIGHT = 320
#: Lines of one chart, the first for all examples.
MOST_LINES = 9
SHARE = {"range": [0, 1.02], "tickformat": ".1f"}


@dataclass(frozen=True)
class Line:
    """A curve of `x` and `y` (n,) with its name."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


def roc_figure(lines: Sequence[Line]) -> Figure:
    """True positives over false positives; a guess is the diagonal."""
    return _curves(lines, "no that are taken for yes", "yes that are found", guess=True)


def precision_recall_figure(lines: Sequence[Line]) -> Figure:
    """Precision over recall."""
    return _curves(lines, "recall", "precision", guess=False)


def _curves(lines: Sequence[Line], x: str, y: str, guess: bool) -> Figure:
    import plotly.graph_objects as go

    figure = go.Figure()
    for place, line in enumerate(lines[:MOST_LINES]):
        drawn = {"width": 2.5, "color": "var(--line)"}
        if place:
            drawn = {"width": 1.5, "color": f"var(--series{(place - 1) % 4})", "dash": ("solid", "dot")[(place - 1) // 4]}
        figure.add_scatter(
            x=list(line.x), y=list(line.y), name=label(line.name, 30), mode="lines", line=drawn, hovertemplate="%{x:.3f}, %{y:.3f}"
        )
    shapes = [_diagonal()] if guess else []
    axes: dict[str, Any] = {"xaxis": {"title": x, **SHARE}, "yaxis": {"title": y, **SHARE}}
    return finish(figure, HEIGHT, shapes=shapes, hovermode="closest", showlegend=len(lines) > 1, **axes)


def reliability_figure(bins: Sequence[Mapping[str, Any]], height: int = HEIGHT) -> Figure:
    """The share of yes over the mean score of each bin, with its interval; scores that are probabilities lie on the diagonal."""
    import plotly.graph_objects as go

    yes = [b["yes"] for b in bins]
    errors = {
        "type": "data", "symmetric": False, "array": [b["high"] - b["yes"] for b in bins],
        "arrayminus": [b["yes"] - b["low"] for b in bins], "color": "var(--soft)", "thickness": 1, "width": 3,
    }  # fmt: skip
    figure = go.Figure(
        go.Scatter(
            x=[b["score"] for b in bins], y=yes, error_y=errors, mode="lines+markers", marker={"color": "var(--kept)", "size": 8},
            line={"color": "var(--kept)", "width": 1}, customdata=[b["examples"] for b in bins],
            hovertemplate="score %{x:.3f}, yes %{y:.3f}, %{customdata:,} examples<extra></extra>",
        )
    )  # fmt: skip
    axes: dict[str, Any] = {"xaxis": {"title": "mean score", **SHARE}, "yaxis": {"title": "share of yes", **SHARE}}
    return finish(figure, height, shapes=[_diagonal()], hovermode="closest", showlegend=False, **axes)


def scores_figure(yes: Sequence[int], no: Sequence[int], threshold: float) -> Figure:
    """Histograms of the scores of yes and no (bins,) over [0, 1], each as shares of its examples, with the threshold."""
    import plotly.graph_objects as go

    figure = go.Figure()
    bins = len(yes)
    centres = [(place + 0.5) / bins for place in range(bins)]
    for name, counts, color in (("no", no, "var(--series2)"), ("yes", yes, "var(--series3)")):
        total = sum(counts)
        if total:
            figure.add_bar(
                x=centres, y=[count / total for count in counts], name=f"{name} ({total:,})", customdata=list(counts), opacity=0.65,
                width=1 / bins, marker={"color": color, "line": {"width": 0}}, hovertemplate="%{y:.1%} (%{customdata:,})",
            )  # fmt: skip
    axes: dict[str, Any] = {"xaxis": {"title": "score", "range": [0, 1]}, "yaxis": {"tickformat": ".0%", "rangemode": "tozero"}}
    line = {"type": "line", "x0": threshold, "x1": threshold, "y0": 0, "y1": 1, "yref": "paper", "line": _dashed()}
    return finish(figure, 240, barmode="overlay", bargap=0, showlegend=True, shapes=[line], **axes)


def thresholds_figure(rows: Sequence[Mapping[str, Any]], threshold: float, height: int = HEIGHT) -> Figure:
    """Precision, recall, F1 and the share of yes over the threshold; `rows` as `evaluate` has them in `thresholds`."""
    import plotly.graph_objects as go

    figure = go.Figure()
    names = {"precision": "precision", "recall": "recall", "f1": "F1", "kept": "yes"}
    for place, (key, name) in enumerate(names.items()):
        points = [(row["threshold"], row[key]["value"]) for row in rows if row[key] is not None]
        figure.add_scatter(
            x=[x for x, _ in points], y=[y for _, y in points], name=name, mode="lines", hovertemplate="%{y:.3f}",
            line={"width": 1.5, "color": f"var(--series{place})"},
        )  # fmt: skip
    axes: dict[str, Any] = {"xaxis": {"title": "threshold", "range": [0, 1]}, "yaxis": SHARE}
    line = {"type": "line", "x0": threshold, "x1": threshold, "y0": 0, "y1": 1, "yref": "paper", "line": _dashed()}
    return finish(figure, height, shapes=[line], showlegend=True, **axes)


def _diagonal() -> dict[str, Any]:
    return {"type": "line", "x0": 0, "x1": 1, "y0": 0, "y1": 1, "line": _dashed()}


def _dashed() -> dict[str, Any]:
    return {"color": "var(--soft)", "dash": "dash", "width": 1}
