"""What the rules decide about a report, with their own or other thresholds, as SQL for DuckDB.

`rules.py` defines when a value fails, and decides while a stage runs. This says the same to DuckDB for all that look at a report
afterwards; a test compares the two on random values. Names and texts of a run are quoted.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from corpusmill.filters.rules import COMPARISONS, NOT_IN

#: The threshold of a rule that is switched off.
OFF = "off"
FLOATS = ("FLOAT", "DOUBLE")
INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")


@dataclass(frozen=True)
class Report:
    """A report in DuckDB: `table` has a row for each document, with the columns `kept` and `failed`. `kinds`: DuckDB's types by column."""

    table: str
    kinds: Mapping[str, str]

    def fails(self, column: str, comparison: str, threshold: Any) -> str:
        """SQL: whether a document fails; never NULL. Nothing fails without a value, without a threshold (None, NaN), or switched off."""
        kind, value = self.kinds.get(column, ""), identifier(column)
        if not kind or threshold is None or threshold == OFF or threshold != threshold:
            return "false"
        if comparison == NOT_IN:
            return f"({value} IS NOT NULL AND NOT coalesce(list_contains({_texts(threshold)}, {value}::VARCHAR), false))"
        if kind not in (*INTEGERS, *FLOATS, "BOOLEAN") or comparison not in COMPARISONS:
            return "false"
        if kind == "FLOAT":  # numpy compares float32 with a threshold in float32
            with np.errstate(over="ignore"):
                threshold = float(np.float32(threshold))
        value = f"{value}::INTEGER" if kind == "BOOLEAN" else value
        known = f" AND NOT isnan({value})" if kind in FLOATS and comparison.startswith(">") else ""  # DuckDB's NaN is above all numbers
        limit = str(threshold) if isinstance(threshold, int) else f"'{threshold!r}'::DOUBLE"
        return f"({value} IS NOT NULL AND {value} {comparison} {limit}{known})"

    def others(self, moved: Collection[str]) -> str:
        """SQL: whether a document fails a rule that is not in `moved`."""
        return f"NOT list_has_all({_texts(moved)}, failed)"

    def decided(self, rules: Iterable[tuple[str, str, str]], moves: Mapping[str, Any]) -> str:
        """SQL: the report with the verdicts under other thresholds, `moves` by rule. `fails_N`: whether the moved rule number N fails;
        `kept_now`: whether the document is kept. `rules`: (name, column, comparison)."""
        known = list(rules)
        fails = [
            " OR ".join(self.fails(column, comparison, threshold) for rule, column, comparison in known if rule == name) or "false"
            for name, threshold in moves.items()
        ]
        columns = "".join(f", {each} AS fails_{place}" for place, each in enumerate(fails))
        failing = " OR ".join(["others", *(f"fails_{place}" for place in range(len(fails)))])
        return f"(SELECT *, NOT ({failing}) AS kept_now FROM (SELECT *, {self.others(moves)} AS others{columns} FROM {self.table}))"


@cache
def _database() -> duckdb.DuckDBPyConnection:
    """One database for all shards: to open one takes longer than to decide about a shard."""
    return duckdb.connect(config={"threads": 1})


def ask(table: pa.Table, select: str, decided: str = "report") -> duckdb.DuckDBPyConnection:
    """Returns the result of `SELECT select` over a shard of a report, or over what `Report.decided` makes of it."""
    cursor = _database().cursor()
    cursor.register("report", table)
    return cursor.execute(f"SELECT {select} FROM {decided}")


def report_of(table: pa.Table) -> Report:
    """Returns the report for which `ask` answers."""
    rows = ask(table.slice(0, 0), "*")
    return Report("report", {name: str(kind) for name, kind, *_ in rows.description or ()})


def quoted(text: str) -> str:
    """A string literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """Quotes a column's or table's name, which may hold any character."""
    return '"' + name.replace('"', '""') + '"'


def _texts(values: Iterable[str]) -> str:
    return f"[{', '.join(map(quoted, values))}]::VARCHAR[]"
