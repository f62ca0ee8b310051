"""Parses a written report: its queries, and the numbers in elements that name a query by `data-query`."""

import json
import math
import re
from dataclasses import dataclass, field
from decimal import Decimal
from html.parser import HTMLParser
from typing import Any

#: A number as the page prints it, in a text that may contain names too.
NUMBER = re.compile(r"(?<![\w.,/-])([-+−]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?)(?![\w/-])")
#: Cells that hold names and texts.
WORDS = {"name", "quoted", "small"}
VOID = {"meta", "link", "br", "img", "hr", "input"}


@dataclass
class Marked:
    """An element and its texts: a list for each row of a table, one list for any other element; `chart` is its chart's number."""

    tag: str
    query: str | None
    title: str
    rows: list[list[str]] = field(default_factory=list)
    chart: int | None = None

    def numbers(self) -> list[list[str]]:
        """Returns the numbers of each row that has any."""
        return [found for row in self.rows if (found := [number for text in row for number in NUMBER.findall(text)])]


class Printed(HTMLParser):
    """A printed page. `sql` is by the id of its element; `marked` has all tables and figures in the order of the page, marked or not."""

    def __init__(self, html: str):
        super().__init__()
        self.sql: dict[str, str] = {}
        self.marked: list[Marked] = []
        self.figures: list[dict[str, Any]] = []
        self._stack: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[Marked | None] = []  # the element that opened each level of the stack
        self._heading = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in VOID:
            return self.handle_data(" ")
        known = dict(attrs)
        began = None
        if "data-query" in known or tag in ("table", "figure"):
            began = Marked(tag, known.get("data-query"), self._heading.strip(), [] if tag == "table" else [[""]])
            self.marked.append(began)
        self._stack.append((tag, known))
        self._open.append(began)
        current = next((each for each in reversed(self._open) if each is not None), None)
        if tag == "tr" and current is not None:
            current.rows.append([])
        if tag == "td" and current is not None:
            current.rows[-1].append("")
        if current is not None and "data-figure" in known:
            current.chart = int(known["data-figure"] or "")
        if tag in ("h2", "h3", "h4"):
            self._heading = ""

    def handle_endtag(self, tag: str) -> None:
        while self._stack:
            name, _ = self._stack.pop()
            self._open.pop()
            if name == tag:
                return

    def handle_data(self, data: str) -> None:
        for tag, known in self._stack:
            if tag == "div" and known.get("class") == "query":
                if self._stack[-1][0] == "code":
                    key = f"{known['id']}"
                    self.sql[key] = self.sql.get(key, "") + data
                return
            if tag == "script":
                if known.get("id") == "figures":
                    self.figures = json.loads(data)
                return
            if tag in ("h2", "h3", "h4"):
                self._heading += data
            if tag in ("td", "th") and (tag == "th" or WORDS & set((known.get("class") or "").split())):
                return
            if tag in ("meter", "bdi", "code", "svg"):
                return
        current = next((each for each in reversed(self._open) if each is not None), None)
        if current is not None and current.tag == "figure" and self._inside("figcaption"):
            return
        if current is not None and (current.tag != "table" or self._inside("td")):
            current.rows[-1][-1] += data

    def _inside(self, tag: str) -> bool:
        return any(name == tag for name, _ in self._stack)


def is_shown(number: str, values: list[Any]) -> bool:
    """Whether a printed number is one of the values, rounded to its last digit, or stands in a name; shares may be percentages."""
    mantissa, _, exponent = number.replace(",", "").replace("−", "-").partition("e")
    digits = len(mantissa.partition(".")[2])
    close = 0.5 * 10.0 ** (int(exponent or 0) - digits) * (1 + 1e-6)
    printed = float(number.replace(",", "").replace("−", "-"))
    numbers = [float(value) for value in values if isinstance(value, int | float | Decimal) and not isinstance(value, bool)]
    named = any(number in NUMBER.findall(value) for value in values if isinstance(value, str))
    return named or any(abs(scale * value - printed) <= close for value in numbers for scale in (1, 100))


def charted(figure: dict[str, Any]) -> list[float]:
    """Returns the numbers that a chart draws: heights of bars, steps and points."""
    return [value for series in figure["series"] for value in series["y"]]


def not_given(folder: str, html: str) -> list[str]:
    """Returns a sentence for each number, table and chart of a page that its printed queries do not give."""
    from corpusmill.report.query.run import open_run

    page, run, missing = Printed(html), open_run(folder), []
    for marked in page.marked:
        what = f"{marked.tag} of {marked.title!r}"
        if marked.query not in page.sql:
            missing.append(f"{what}: no query")
            continue
        if page.sql[marked.query].startswith("FROM json_"):  # numbers straight from a file; the tests of each section check them
            continue
        rows = run.sql(page.sql[marked.query]).fetchall()
        every = [value for row in rows for value in row]
        shown = [row for row in marked.rows if row]
        for place, row in enumerate(shown, 1):
            numbers = [number for text in row for number in NUMBER.findall(text)]
            if any(all(is_shown(number, values) for number in numbers) for values in rows):
                continue
            strict = marked.tag == "table" and len(rows) == len(shown)  # the query has a row for each row of the table
            missing += [f"{what}, row {place}: {number}" for number in numbers if strict or not is_shown(number, every)]
        if marked.chart is not None:
            values = [value for value in every if isinstance(value, int | float | Decimal)]
            drawn = charted(page.figures[marked.chart])
            missing += [f"{what}: {y} is drawn" for y in drawn if y and not any(math.isclose(y, value, rel_tol=1e-9) for value in values)]
    return missing


def not_reproduced(folder: str) -> list[str]:
    """Returns such sentences for a run's page."""
    from corpusmill.report.page.html import render
    from corpusmill.report.queries.summary import read_summary

    return [each for each in not_given(folder, render(read_summary(folder))) if not each.endswith("no query")]
