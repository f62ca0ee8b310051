"""Draws a run's headline and funnel as a picture, by matplotlib's own exporter: no browser is needed. Equal runs give equal pictures."""

from io import BytesIO
from typing import Any

from corpusmill.pipeline.extras import require
from corpusmill.pipeline.safe import safe_line
from corpusmill.report.page.figures import funnel_bars
from corpusmill.report.queries.summary import Summary
from corpusmill.report.tables import number, share

PICTURE_FILE = "report.png"
#: Inches of the picture, pixels of an inch, and bars: of the rules that remove most, and the last. Then the page's light colours.
SIZE, PIXELS, MOST = (12.8, 6.4), 100, 12
INK, SOFT, PAPER, KEPT, DROPPED = "#1d2329", "#5a6570", "#fbfbf9", "#1f6fb2", "#b84f14"


def check_library() -> None:
    """Raises InputError if matplotlib is not installed."""
    require("report --png", "matplotlib")


def picture(summary: Summary) -> bytes:
    """Returns the picture as PNG. Names are drawn as they are: matplotlib reads no formula in them."""
    from matplotlib.figure import Figure

    figure = Figure(SIZE, PIXELS, facecolor=PAPER)
    facts = summary.facts
    _write(figure, 0.03, 0.93, safe_line(facts.name, 60), size=24, weight="bold")
    about = [f"recipe {facts.recipe}" if facts.recipe else "", facts.date, f"corpusmill {facts.version}" if facts.version else ""]
    _write(figure, 0.03, 0.875, safe_line(" · ".join(filter(None, about)), 120), size=11, color=SOFT)
    for place, (name, value) in enumerate(headline(summary)):
        _write(figure, 0.03 + 0.19 * place, 0.795, name, size=11, color=SOFT)
        _write(figure, 0.03 + 0.19 * place, 0.73, value, size=20)
    if summary.page.steps:
        _draw_funnel(figure, summary)
    file = BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def headline(summary: Summary) -> list[tuple[str, str]]:
    """Returns the figures that the picture names: what came in, what stayed, tokens, and the model's result, as (name, value)."""
    found = []
    if summary.funnel:
        pages, last = summary.funnel.pages, summary.rows[-1]
        found = [(f"{summary.unit} in", number(pages)), ("kept", f"{number(last.documents_out)} ({share(last.documents_out, pages)})")]
        found += [("tokens", number(last.tokens))] if last.tokens is not None else []
    result = summary.result
    if result is not None:
        found += [("bits per byte", f"{result.bits[0]:.3f}")] if result.bits else []
        found += [("preferences right", f"{result.preferences[0]:.1%}")] if result.preferences else []
    return found


def _draw_funnel(figure: Any, summary: Summary) -> None:
    names, kept, dropped = funnel_bars(summary.rows, summary.page.steps)
    *before, last = range(len(names))
    most = [*sorted(sorted(before, key=lambda place: -dropped[place])[: MOST - 1]), last]
    axes = figure.add_axes((0.27, 0.09, 0.70, 0.56), facecolor=PAPER)
    places = range(len(most))
    axes.barh(places, [kept[place] for place in most], color=KEPT, height=0.7)
    axes.barh(places, [dropped[place] for place in most], left=[kept[place] for place in most], color=DROPPED, height=0.7)
    axes.invert_yaxis()
    axes.set_yticks(places, [names[place] for place in most], parse_math=False, fontsize=11)
    axes.set_xlabel("documents left after each rule, and those that it dropped first", color=SOFT)
    axes.xaxis.set_major_formatter(lambda value, _: number(value))
    axes.tick_params(colors=INK, length=0)
    axes.spines[["top", "right", "bottom", "left"]].set_visible(False)


def _write(figure: Any, x: float, y: float, text: str, **style: Any) -> None:
    figure.text(x, y, text, parse_math=False, **{"color": INK, **style})
