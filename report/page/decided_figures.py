"""Charts of what became of documents: the funnel rule by rule, and lengths before and after the stages."""

from corpusmill.report.page.figures import Figure, bars, drawn, label
from corpusmill.report.queries.rules import FunnelRow, Step
from corpusmill.report.queries.values import EDGES, Lengths
from corpusmill.report.tables import number


def funnel_figure(rows: list[FunnelRow], steps: list[Step]) -> Figure:
    """Documents that each rule left, and those that it removed as the first one that they failed; the tokens' documents last."""
    names = [f"{step.stage}: {label(step.name, 40)}" for step in steps]
    kept, dropped = [step.left for step in steps], [step.removed for step in steps]
    if rows and rows[-1].stage == "tokens":
        names, kept, dropped = [*names, "tokens"], [*kept, rows[-1].documents_out], [*dropped, rows[-1].dropped]
    traces = [bars(values, names, name, name, "%{x:,}", orientation="h") for name, values in (("kept", kept), ("dropped", dropped))]
    axes = {"xaxis": {"title": "documents"}, "yaxis": {"autorange": "reversed", "type": "category"}}
    return drawn(traces, 110 + 22 * len(names), barmode="stack", bargap=0.3, showlegend=True, hovermode="y unified", **axes)


def lengths_figure(sets: list[Lengths]) -> Figure:
    """Documents of each length, before and after each stage, on a logarithmic axis; each outline is a stack of its own."""
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


def change_text(more: int) -> str:
    """A change of a count, with its sign."""
    return f"+{number(more)}" if more > 0 else f"−{number(-more)}" if more < 0 else "±0"
