"""The page of a comparison: verdicts, differences as intervals, learning curves, what was trained on, what separates the variants."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2


@cache
def _template() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    return jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True).get_template("page.html.jinja")


def page(result: Mapping[str, Any], folder: str) -> bytes:
    """Returns the page of `result.json`: one file that needs no script and no network. `folder`: of the comparison."""
    first, *others = result["variants"]
    rows = [
        {"variant": other["variant"], "set": name, "judges": name in result["judging"], **found}
        for other in others
        for name, found in other["by_set"].items()
    ]
    by_judge = [
        {"variant": other["variant"], "first": not place, "judge": judge, **found}
        for other in others
        for place, (judge, found) in enumerate(other["by_judge"].items())
    ]
    choices = [row for row in by_judge if row["judge"] in ("choice", "topic", "order")]
    reach = _reach([*rows, *(row for row in by_judge if row not in choices)])
    for row in by_judge:
        row["reach"] = _reach(choices) if row in choices else reach
    return _template().render(
        result=result, first=first, others=others, rows=rows, by_judge=by_judge, folder=folder, reach=reach, curves=_curves(result),
        at=lambda value, reach: 200 + 190 * value / reach,
    ).encode()  # fmt: skip


def _reach(rows: Sequence[Mapping[str, Any]]) -> float:
    """Returns how far an axis reaches to both sides, so that it shows all intervals."""
    return 1.05 * max([abs(row[end]) for row in rows for end in ("low", "high")] + [1e-9])


def _curves(result: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the learning curves as points of an SVG of 640 x 240: by variant the mean of its draws, and the band of all of them."""
    values = [point["bits_per_byte"] for row in result["variants"] for curve in row["curves"] for point in curve]
    low, high, last = min(values), max(values), result["plan"]["steps"]

    def point(step: float, value: float) -> str:
        return f"{50 + 570 * step / last:.1f},{220 - 200 * (value - low) / max(high - low, 1e-9):.1f}"

    found = {}
    for row in result["variants"]:
        columns = list(zip(*row["curves"], strict=True))
        steps = [column[0]["step"] for column in columns]
        bits = [[entry["bits_per_byte"] for entry in column] for column in columns]
        there = [point(step, max(some)) for step, some in zip(steps, bits, strict=True)]
        back = [point(step, min(some)) for step, some in zip(steps, bits, strict=True)]
        mean = [point(step, sum(some) / len(some)) for step, some in zip(steps, bits, strict=True)]
        found[row["variant"]] = {"band": " ".join(there + back[::-1]), "mean": " ".join(mean)}
    return {"low": low, "high": high, "of": found}
