"""`corpusmill.open_run`: the tables of a run for notebooks, scripts and pages. The package's docstring says which there are."""

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Self, TypeVar

import duckdb

from corpusmill.pipeline.errors import InputError
from corpusmill.report.query.records import find_records
from corpusmill.report.query.sql import OF_THE_QUERY, connect, identifier, no_table, quoted, sentence, shut_in
from corpusmill.report.query.tables import Table, add_views, find_files, find_tables, without_damaged, without_torn, without_unreadable
from corpusmill.report.read import ReportRule, RunReader, read_meanings


class Relation:
    """All that DuckDB's relation has: `.df()` gives pandas, `.pl()` polars, `.to_arrow_table()` Arrow, `.fetchall()` tuples,
    `.filter(...)`, `.aggregate(...)`, `.order(...)` and so on another relation.

    Nothing is read before rows are asked for, and each asking reads anew. Where a shard turns out to be damaged, it is left out with a
    warning of the run, and the rows are read again; only a reader of batches (`.to_arrow_reader()`), which has given rows already by then,
    ends with DuckDB's error. Raises InputError for whatever else DuckDB can't do.
    """

    def __init__(self, run: "Run", relation: Any):
        self._run = run
        self._relation = relation

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = self._guarded(lambda: getattr(self._relation, name))
        return self._wrapped(value) if not callable(value) or _is_relation(value) else self._method(name)

    def _method(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            plain = [_plain(value) for value in args]
            named = {key: _plain(value) for key, value in kwargs.items()}
            return self._wrapped(self._guarded(lambda: getattr(self._relation, name)(*plain, **named)))

        return call

    def _guarded(self, action: Any) -> Any:
        return self._run.guarded(action, lambda: self._relation.sql_query())

    def _wrapped(self, value: Any) -> Any:
        return Relation(self._run, value) if _is_relation(value) else value

    def __getitem__(self, name: str) -> "Relation":
        return Relation(self._run, self._guarded(lambda: self._relation[name]))

    def __contains__(self, name: str) -> bool:
        return bool(self._guarded(lambda: name in self._relation))

    def __len__(self) -> int:
        return int(self._guarded(lambda: len(self._relation)))

    def __str__(self) -> str:
        return str(self._guarded(lambda: str(self._relation)))

    def __repr__(self) -> str:
        return str(self)

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> Any:
        """What pyarrow, polars and others read a table from."""
        return self.to_arrow_table().__arrow_c_stream__(requested_schema)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> Any:
        """The first rows as a notebook shows them."""
        return self._guarded(lambda: self._relation._repr_mimebundle_(include, exclude))


def _is_relation(value: Any) -> bool:
    """Also of rows in groups (`.group_by(...)`), whose class has no public name."""
    return isinstance(value, duckdb.DuckDBPyRelation) or type(value).__name__ == "GroupedRelation"


def _plain(value: Any) -> Any:
    return value._relation if isinstance(value, Relation) else value


__all__ = ["Run", "identifier", "open_run", "quoted"]

Answer = TypeVar("Answer")
#: The task of the filter stage that counts on how many documents each score fires.
ANSWERS = "answers"


class Run:
    """A run's tables as relations, from which `.df()` makes pandas, `.pl()` polars and `.to_arrow_table()` Arrow.

    `tables` has those that lie in Parquet files. With `verify` all these files are read and compared with the manifest's sha256 first, so
    that values can be trusted to the bit. With `only_run` a query can read nothing else than the run. `memory`: bytes
    that queries have, by default half of what is free.
    Otherwise only manifests and footers of shards (all of a table's where their columns differ) are read before a relation is asked for its
    rows; where a footer is damaged, the table's shards are compared with the manifest, too. Raises InputError where `folder` is no run.
    """

    def __init__(self, folder: str | RunReader, verify: bool = False, only_run: bool = False, memory: int | None = None):
        self.reader = RunReader(folder) if isinstance(folder, str) else folder
        self.connection = connect(self.reader.storage, memory)
        self.tables: dict[str, Table] = {}
        usable = without_damaged if verify else without_torn
        for table in find_tables(self.reader).values():
            self._set(usable(self.reader, table))
        self._records = find_records(self.reader)
        self._unmade = set(self._records)
        self._files = find_files(self.reader)
        add_views(self.connection, self.reader)
        if only_run:
            shut_in(self.connection, self.reader.storage)

    @property
    def warnings(self) -> list[str]:
        """Which stages are stale; what is damaged, and so left out, as far as it is known by now; scores that fire on more than a tenth of
        the corpus."""
        stale = self.reader.stale
        answers = [task for task in self.reader.stages["filter"].tasks if task.task == ANSWERS]
        fired = [f"filter: {sentence}" for task in answers for sentence in task.warnings]
        return [*([stale.sentence] if stale else []), *self.reader.warnings, *fired]

    @property
    def names(self) -> list[str]:
        """All tables: of Parquet files, of what the run says of itself, of JSON files."""
        return [*self.tables, *self._records, *self._files]

    def scan(self, name: str) -> str:
        """The SQL expression that reads a table's files; it gives the virtual columns `filename` and `file_row_number`, too."""
        return self.tables[name].scan(self.reader.storage)

    def hold(self, names: Iterable[str]) -> None:
        """Reads tables once for many queries. What does not fit into DuckDB's memory goes to its temporary folder.

        Shards that can't be read are found before, and are left out with a warning each.
        """
        self.connection.execute("SET parquet_metadata_cache = false")  # these footers are read once
        for name in names:
            self.leave_out_unreadable(name)
            try:
                if name in self.tables:
                    self.guarded(lambda name=name: self._copy(name), lambda name=name: name)  # type: ignore[misc]
            except InputError as error:
                self.reader.warn(f"{name}: the table can't be read, and is left out: {error}")
                self._set(replace(self.tables[name], shards=()))
        self.connection.execute("SET parquet_metadata_cache = true")

    def leave_out_unreadable(self, name: str) -> None:
        """Leaves out the shards of a table that can't be read to their end, with a warning each."""
        if name in self.tables and (readable := without_unreadable(self.reader, self.tables[name])) != self.tables[name]:
            self._set(readable)

    def _copy(self, name: str) -> None:
        """A table of DuckDB's own in front of the view of the same name; nothing where the view is gone."""
        if name in self.tables:
            self.connection.execute(f"CREATE OR REPLACE TEMP TABLE {identifier(name)} AS FROM {self.scan(name)}")

    def sql(self, query: str, **parameters: Any) -> Relation:
        """A SELECT over all tables; `$name` in it is a parameter. Raises InputError for anything else, and for what DuckDB can't read."""
        self._one_select(query)
        return Relation(self, self.guarded(lambda: self.connection.sql(query, params=parameters or None), lambda: query))

    def table(self, name: str) -> Relation:
        """A table by its name. Raises InputError with names that are like it."""
        if name not in self.names:
            raise InputError(f"{self.reader.storage.root}: {no_table(name, self.names)}")
        return self.sql(f"FROM {identifier(name)}")

    def report(self, stage: str) -> Relation:
        """A stage's report: a row for each document that came in, kept or not, with all measured values."""
        return self.table(f"{stage}_report")

    def documents(self, stage: str) -> Relation:
        """The documents that a stage lets through, with their texts."""
        return self.table(f"{stage}_documents")

    def rules(self, stage: str) -> list[ReportRule]:
        """The thresholds that a stage has applied."""
        return self.reader.rules(stage)

    def meanings(self, stage: str) -> dict[str, str]:
        """What a stage's rules fail documents for, in words, by rule."""
        return read_meanings(self.reader, stage)

    def guarded(self, action: Callable[[], Answer], query: Callable[[], str]) -> Answer:
        """What `action` gives, without the shards that it proves to be damaged. `query` is the SQL that it runs, or the tables' names.

        Raises InputError for an error of DuckDB.
        """
        while True:
            try:
                return action()
            except duckdb.InterruptException as error:
                raise KeyboardInterrupt from error
            except duckdb.Error as error:
                if isinstance(error, OF_THE_QUERY) or not self._mend(query()):
                    raise InputError(f"{self.reader.storage.root}: {sentence(error, self.names)}") from error

    def close(self) -> None:
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _one_select(self, query: str) -> None:
        """Refuses anything else; makes the tables of records that it names."""
        try:
            statements = self.connection.extract_statements(query)
        except duckdb.Error as error:
            raise InputError(f"{self.reader.storage.root}: {sentence(error)}") from error
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise InputError(f"{self.reader.storage.root}: a query is one SELECT, and nothing else.")
        for name in self._named(query, sorted(self._unmade)):
            self.connection.register(name, self._records[name]())
            self._unmade.remove(name)

    def _set(self, table: Table) -> None:
        """Makes a table's view, or takes it away where no shard is left, or where its shards do not fit each other."""
        self.tables.pop(table.name, None)
        if not table.shards:
            self.connection.execute(f"DROP VIEW IF EXISTS {identifier(table.name)}")
            return
        try:
            self.connection.execute(f"CREATE OR REPLACE VIEW {identifier(table.name)} AS FROM {table.scan(self.reader.storage)}")
            self.tables[table.name] = table
        except duckdb.Error as error:
            whole = without_damaged(self.reader, table)
            if whole == table:
                self.reader.warn(f"{table.name}: the table can't be read, and is left out: {sentence(error)}")
                whole = replace(table, shards=())
            self._set(whole)

    def _mend(self, query: str) -> bool:
        """Leaves out what is damaged of the tables that a query names; where nothing is, their columns may differ after all.

        False where neither helps.
        """
        tables = [self.tables[name] for name in self._named(query, self.tables)]
        changed = [whole for table in tables if (whole := without_damaged(self.reader, table)) != table]
        changed = changed or [replace(table, mixed=True) for table in tables if not table.mixed]
        for table in changed:
            self._set(table)
        return bool(changed)

    def _named(self, query: str, names: Iterable[str]) -> list[str]:
        """The names that occur in a query; DuckDB's do not tell small letters from capitals."""
        words = set(re.findall(r"\w+", query.lower()))
        return [name for name in names if name.lower() in words]


def open_run(path: str, verify: bool = False) -> Run:
    """Opens a run's folder, local or on a store (`s3://`); with `verify` all tables are compared with what the stages wrote (sha256).

    Raises InputError where it is no run.
    """
    return Run(str(path), verify)
