"""Draws a run's headline and funnel as a picture for a slide, by matplotlib's own exporter: no browser is needed. Equal runs give equal
pictures."""

from io import BytesIO
from typing import Any

from corpusmill.pipeline.extras import require
from corpusmill.pipeline.safe import safe_line
from corpusmill.report.queries.rules import NO_PAGE
from corpusmill.report.queries.summary import Summary
from corpusmill.report.tables import number, share

PICTURE_FILE = "report.png"
#: Inches of the picture, pixels of an inch, and bars: of the rules that remove most, and the last. Then the page's light colours.
SIZE, PIXELS, MOST = (16, 9), 100, 13
INK, SOFT, PAPER, GRID, KEPT, DROPPED = "#1d2329", "#5a6570", "#fbfbf9", "#e6e9ec", "#1f6fb2", "#b84f14"
#: Where text begins, as a share of the width.
LEFT = 0.04


def check_library() -> None:
    """Raises InputError if matplotlib is not installed."""
    require("report --png", "matplotlib")


def picture(summary: Summary) -> bytes:
    """Returns the picture as PNG. Names are drawn as they are: matplotlib reads no formula in them."""
    from matplotlib.figure import Figure

    figure = Figure(SIZE, PIXELS, facecolor=PAPER)
    _write(figure, LEFT, 0.915, headline(summary), size=30, weight="bold")
    _write(figure, LEFT, 0.868, about(summary), size=13, color=SOFT)
    for place, (name, value) in enumerate(numbers(summary)):
        _write(figure, LEFT + 0.19 * place, 0.765, value, size=27, color=KEPT, weight="bold")
        _write(figure, LEFT + 0.19 * place, 0.73, name, size=13, color=SOFT)
    if summary.page.steps:
        _draw_funnel(figure, summary)
    file = BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def headline(summary: Summary) -> str:
    """Returns the sentence over the picture: how much of what came in stays; without a data stage, the run's name."""
    if not summary.funnel:
        return safe_line(summary.facts.name, 60)
    pages, last = summary.funnel.pages, summary.rows[-1]
    return f"{number(last.documents_out)} of {number(pages)} {summary.unit} stay ({share(last.documents_out, pages)})"


def about(summary: Summary) -> str:
    """Returns in a line which run it is: its name, recipe, inputs, date and version."""
    facts = summary.facts
    names = [path.rstrip("/").rpartition("/")[2] for path in facts.inputs]
    more = f" and {len(names) - 2:,} more inputs" if len(names) > 2 else ""
    parts = [f"run {facts.name}", facts.recipe and f"recipe {facts.recipe}", names and ", ".join(names[:2]) + more, facts.date,
             facts.version and f"corpusmill {facts.version}"]  # fmt: skip
    return safe_line(" · ".join(part for part in parts if part), 160)


def numbers(summary: Summary) -> list[tuple[str, str]]:
    """Returns the figures that the picture names: what came in, what stayed, tokens, and the model's result, as (name, value)."""
    found = []
    if summary.funnel:
        last = summary.rows[-1]
        found = [(f"{summary.unit} in", number(summary.funnel.pages)), ("kept", number(last.documents_out))]
        found += [("tokens", number(last.tokens))] if last.tokens is not None else []
    result = summary.result
    if result is not None:
        found += [("bits per byte", f"{result.bits[0]:.3f}")] if result.bits else []
        found += [("preferences ranked right", f"{result.preferences[0]:.1%}")] if result.preferences else []
    return found


def _draw_funnel(figure: Any, summary: Summary) -> None:
    steps = [
        (f"{step['stage']}: {safe_line(step['rule'], 40)}", step["documents_left"], step["removed"])
        for step in (summary.page.steps.rows if summary.page.steps else ())
        if step["rule"] != NO_PAGE
    ]
    last = summary.rows[-1]
    steps += [("tokens", last.documents_out, last.dropped)] if last.stage == "tokens" else []
    kept_last = max(0, len(steps) - 1)
    most = sorted([*sorted(range(kept_last), key=lambda place: -steps[place][2])[: MOST - 1], kept_last]) if steps else []
    axes = figure.add_axes((0.26, 0.07, 0.70, 0.55), facecolor=PAPER)
    places, left, dropped = range(len(most)), [steps[place][1] for place in most], [steps[place][2] for place in most]
    axes.barh(places, left, color=KEPT, height=0.72, label="documents left after the rule")
    axes.barh(places, dropped, left=left, color=DROPPED, height=0.72, label="documents that it dropped first")
    for place, (stay, gone) in enumerate(zip(left, dropped, strict=True)):
        axes.text(stay + gone, place, f"  −{number(gone)}" if gone else "", va="center", color=DROPPED, fontsize=12)
    axes.invert_yaxis()
    axes.set_yticks(places, [steps[place][0] for place in most], parse_math=False, fontsize=13)
    axes.set_xlim(0, 1.09 * max([stay + gone for stay, gone in zip(left, dropped, strict=True)], default=1))
    axes.xaxis.set_major_formatter(lambda value, _: number(value))
    axes.tick_params(colors=INK, length=0, labelsize=13)
    axes.tick_params(axis="x", colors=SOFT, labelsize=11)
    axes.grid(axis="x", color=GRID)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "bottom", "left"]].set_visible(False)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize=13, labelcolor=INK, borderaxespad=0.2)


def _write(figure: Any, x: float, y: float, text: str, **style: Any) -> None:
    figure.text(x, y, text, parse_math=False, **{"color": INK, **style})
