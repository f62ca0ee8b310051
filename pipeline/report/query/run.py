"""`corpusmill.open_run`: the tables of a run for notebooks, scripts and pages."""

import json
from typing import Any

import duckdb
import pyarrow as pa

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.report.query.files import add_views
from corpusmill.pipeline.report.query.tables import find_tables
from corpusmill.pipeline.report.read import Rule, RunReader


class Run:
    """A run's tables as DuckDB relations, from which `.df()` makes pandas, `.pl()` polars and `.arrow()` Arrow.

    Nothing is read before a relation is asked for its rows. Raises InputError where `folder` is no run.
    """

    def __init__(self, folder: str):
        self.reader = RunReader(folder)
        self.connection = duckdb.connect(":memory:")
        self.tables = find_tables(self.reader)
        for table in self.tables.values():
            self.connection.execute(f"CREATE VIEW {table.name} AS SELECT * FROM {self.scan(table.name)}")
        self.connection.register("rules", self._rules())
        add_views(self.connection, self.reader)

    @property
    def warnings(self) -> list[str]:
        """What is damaged, and so left out."""
        return self.reader.warnings

    def scan(self, name: str) -> str:
        """The SQL expression that reads a table's files; it gives the virtual columns `filename` and `file_row_number`, too."""
        paths = ", ".join(quoted(self.reader.storage.path(path)) for path in self.tables[name].files)
        return f"read_parquet([{paths}], union_by_name=true)"

    def sql(self, query: str, **parameters: Any) -> duckdb.DuckDBPyRelation:
        """A query over all tables; `$name` in it is a parameter."""
        return self.connection.sql(query, params=parameters or None)

    def table(self, name: str) -> duckdb.DuckDBPyRelation:
        """A table by its name. Raises InputError with the names that there are."""
        if name not in self.tables:
            raise InputError(f"{self.reader.storage.root}: no table {name!r} (there are {', '.join(self.tables) or 'none'}).")
        return self.connection.table(name)

    def report(self, stage: str) -> duckdb.DuckDBPyRelation:
        """A stage's report: a row for each document that came in, kept or not, with all measured values."""
        return self.table(f"{stage}_report")

    def documents(self, stage: str) -> duckdb.DuckDBPyRelation:
        """The documents that a stage lets through, with their texts."""
        return self.table(f"{stage}_documents")

    def rules(self, stage: str) -> list[Rule]:
        """The thresholds that a stage has applied."""
        return self.reader.rules(stage)

    def _rules(self) -> pa.Table:
        """All stages' rules as a table; `threshold` is JSON, because some are lists."""
        rows = [
            {
                "stage": stage,
                "step": r.step,
                "rule": r.rule,
                "column": r.column,
                "comparison": r.comparison,
                "threshold": json.dumps(r.threshold),
            }
            for stage in self.reader.present()
            for r in self.reader.rules(stage)
        ]
        names = ("stage", "step", "rule", "column", "comparison", "threshold")
        return pa.Table.from_pylist(rows, pa.schema([(name, pa.string()) for name in names]))


def open_run(path: str) -> Run:
    """Opens a run's folder, local or on a store (`s3://`). Raises InputError where it is no run."""
    return Run(str(path))


def quoted(text: str) -> str:
    """A string literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """A column's or table's name in SQL, whatever it holds."""
    return '"' + name.replace('"', '""') + '"'
