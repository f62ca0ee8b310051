"""The charts of a training."""

from typing import Any

from corpusmill.report.page.figures import Figure, finish, label
from corpusmill.report.queries.training import SPEED, Curve, Training
from corpusmill.report.tables import number

HEIGHT = 280
VALIDATION, LOW, HIGH = "validation_bits_per_byte", "validation_low", "validation_high"
#: What is drawn first, and how it is called; what else is logged follows under its own name.
TITLES = {
    "loss": "Loss", VALIDATION: "Validation bits per byte", "lr": "Learning rate", "grad_norm": "Gradient norm", SPEED: "Tokens per second",
}  # fmt: skip
#: Drawn with another one, or the same in another unit.
WITHIN = (LOW, HIGH, "validation_nats_per_token")
#: Values over many powers of ten.
LOGARITHMIC = ("grad_norm",)


def training_charts(training: Training) -> list[tuple[str, str, Figure, str]]:
    """(title, caption, figure, log) of every value that changes."""
    return [
        (
            TITLES.get(curve.name, curve.name),
            _caption(curve, training),
            _figure(curve, training),
            "speed" if curve.name == SPEED else "train",
        )
        for curve in drawn(training)
    ]


def drawn(training: Training) -> list[Curve]:
    """The curves that have a chart of their own, in their order."""
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


def _figure(curve: Curve, training: Training) -> Figure:
    import plotly.graph_objects as go

    figure = go.Figure()
    low, high = training.curve(LOW), training.curve(HIGH)
    few = len(curve.steps) <= 60
    if curve.name == VALIDATION and low and high:
        edge: dict[str, Any] = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip"}
        figure.add_scatter(x=low.steps, y=low.values, name="from", **edge)
        figure.add_scatter(x=high.steps, y=high.values, name="to", fill="tonexty", fillcolor="var(--kept-fill)", **edge)
    figure.add_scatter(
        x=curve.steps, y=curve.values, name=label(TITLES.get(curve.name, curve.name), 30), mode="lines+markers" if few else "lines",
        line={"color": "var(--series0)", "width": 1.5}, marker={"size": 5},
    )  # fmt: skip
    if curve.name == "loss" and training.skips:
        at = [_value_at(curve, step) for step in training.skips]
        marker = {"symbol": "x", "size": 8, "color": "var(--dropped)"}
        figure.add_scatter(x=training.skips, y=at, name="skipped", mode="markers", marker=marker, hovertemplate="skipped")
    axis: dict[str, Any] = {"type": "log"} if curve.name in LOGARITHMIC and min(curve.values) > 0 else {}
    if curve.name == SPEED:
        axis["rangemode"] = "tozero"
    return finish(figure, HEIGHT, xaxis_title="step", yaxis=axis, showlegend=False)


def _value_at(curve: Curve, step: int) -> float:
    """The curve at a step, or where it was last drawn before."""
    from bisect import bisect_right

    return curve.values[max(0, bisect_right(curve.steps, step) - 1)]
