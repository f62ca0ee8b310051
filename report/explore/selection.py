"""Which rows of a report pass a filter: numbers and addresses by DuckDB, verdicts and origins by the arrays beside it."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from corpusmill.report.explore.asked import Filter, Unfit, shown
from corpusmill.report.explore.coding import Bools
from corpusmill.report.explore.table import NUMBER, ORIGINS, Column, StageTable
from corpusmill.report.host import lower


@dataclass
class Conditions:
    """The part of a filter that DuckDB answers: SQL with places for `values`."""

    terms: list[str]
    values: list[Any]

    def add(self, term: str, value: Any) -> None:
        self.values.append(value)
        self.terms.append(term.replace("?", f"${len(self.values)}"))


def select(table: StageTable, asked: Filter) -> Bools:
    """bool (rows): which rows pass everything but the search in texts. Raises Unfit for rules and columns that there are none of."""
    numbers = [_rule(table, name) for name in asked.rule]
    mask = table.verdicts.where(asked.decision, numbers, asked.alone)[table.verdict] if table.rows else np.zeros(0, bool)
    for origin in ORIGINS:
        if (value := getattr(asked, origin)) is not None:
            number = table.names[origin].numbers.get((lower(value) if origin == "host" else value) or None, -1)
            mask &= table.origins[origin] == number
    conditions = _conditions(table, asked)
    if conditions.terms and mask.any():
        mask &= _passing(table, conditions)
    return mask


def _rule(table: StageTable, name: str) -> int:
    number = table.verdicts.rule(name)
    if number is None:
        raise Unfit(f"The stage {table.name} has no rule {shown(name)}.")
    return number


def number_column(table: StageTable, name: str) -> Column:
    """A column of numbers. Raises Unfit where there is none of this name."""
    column = table.columns.get(name)
    if column is None or column.kind != NUMBER:
        raise Unfit(f"The report of {table.name} has no column of numbers {shown(name)}.")
    return column


def _conditions(table: StageTable, asked: Filter) -> Conditions:
    found = Conditions([], [])
    for ends, comparison in ((asked.low, ">="), (asked.high, "<=")):
        for name, end in ends.items():
            found.add(f"{number_column(table, name).sql} {comparison} ?::DOUBLE", end)
    if asked.url is not None:
        found.add("contains(url, ?::VARCHAR)", asked.url)
    return found


def _passing(table: StageTable, conditions: Conditions) -> Bools:
    mask = np.zeros(table.rows, bool)
    query = f"SELECT number FROM {table.table} WHERE {' AND '.join(conditions.terms)}"
    with table.cursor() as cursor:
        mask[cursor.execute(query, conditions.values).fetchnumpy()["number"]] = True
    return mask
