"""`corpusmill.open_run`: the tables of a run for notebooks, scripts and pages. The package's docstring lists the tables."""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING, Any, Self, TypeVar

import duckdb

from corpusmill.pipeline.errors import Incomplete, InputError
from corpusmill.pipeline.interrupts import unwrapped_interrupts
from corpusmill.pipeline.manifest import TaskRow
from corpusmill.pipeline.names import in_sentences, path_of
from corpusmill.pipeline.on_ray.engine import make_engine
from corpusmill.pipeline.recipe import STAGES
from corpusmill.pipeline.safe import safe_line
from corpusmill.pipeline.watch.progress import Progress, print_note
from corpusmill.report.query.records import find_records
from corpusmill.report.query.sql import OF_THE_QUERY, connect, identifier, no_table, quoted, restrict_to_run, sentence
from corpusmill.report.query.tables import Table, add_views, find_files, find_tables, without_damaged, without_torn, without_unreadable
from corpusmill.report.read import NO_PAGE, ReportRule, RunReader, read_meanings

if TYPE_CHECKING:
    from corpusmill.filters.whatif import Retuned, Sweep
    from corpusmill.pipeline.on_ray.engine import EngineName
    from corpusmill.report.answers.clusters import ClusterLists
    from corpusmill.report.answers.diff import Difference
    from corpusmill.report.answers.why import Explained


__all__ = ["Run", "identifier", "open_run", "quoted"]

Answer = TypeVar("Answer")
#: What `dir(run)` and editors offer: what is for users, and not what readers of a run call.
USED = (
    *("folder", "names", "warnings", "sql", "rows", "records", "table", "rules", "meanings"),
    *("why", "diff", "sweep", "retune", "fork", "report", "clusters", "close"),
)
#: The filter stage's task that counts the documents on which each score fires.
ANSWERS = "answers"


def _writes_documents(task: TaskRow) -> bool:
    """Whether a task has made documents; those of other phases count other rows."""
    return any(output.path.startswith("data/") for output in task.outputs)


class Run:
    """A run's tables as relations: `.df()` gives pandas, `.pl()` polars, `.to_arrow_table()` Arrow. A notebook shows its funnel.

    `tables`: those in Parquet files. `verify`: first read all these files and compare them with the manifest's sha256, so that every value
    can be trusted. `only_run`: queries can read nothing but the run. `memory`: bytes for queries, by default half of the free memory.

    Without `verify`, only manifests and some footers of shards are read before rows are asked for (all footers of a table whose columns
    differ). Where a footer is damaged, the table's shards are also compared with the manifest. Raises InputError if `folder` is not a
    run.
    """

    def __init__(self, folder: str | RunReader, verify: bool = False, only_run: bool = False, memory: int | None = None):
        self._options = (verify, only_run, memory)
        self._open(RunReader(folder) if isinstance(folder, str) else folder)

    def _open(self, reader: RunReader) -> None:
        """Opens the files as they are now. Relations that were made before keep the former connection."""
        verify, only_run, memory = self._options
        self.reader = reader
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
            restrict_to_run(self.connection, self.reader.storage)

    @property
    def warnings(self) -> list[str]:
        """The run's warnings: stale stages, damaged files found so far, and scores that fire on more than a tenth of the corpus."""
        stale = self.reader.stale
        answers = [task for task in self.reader.stages["filter"].tasks if task.task == ANSWERS]
        fired = [f"filter: {sentence}" for task in answers for sentence in task.warnings]
        return [*([stale.sentence] if stale else []), *self.reader.warnings, *fired]

    @property
    def names(self) -> list[str]:
        """The names of all tables: those of Parquet files, of the run's records, and of JSON files."""
        return [*self.tables, *self._records, *self._files]

    def scan(self, name: str) -> str:
        """Returns the SQL expression that reads a table's files. It adds the virtual columns `filename` and `file_row_number`."""
        return self.tables[name].scan(self.reader.storage)

    def hold(self, names: Iterable[str]) -> None:
        """Reads tables into DuckDB once for many queries. What exceeds DuckDB's memory goes to its temporary folder.

        Shards that can't be read are left out before, with a warning each.
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
        """Copies a table into DuckDB, where the copy hides the view of the same name. Does nothing where the view is gone."""
        if name in self.tables:
            self.connection.execute(f"CREATE OR REPLACE TEMP TABLE {identifier(name)} AS FROM {self.scan(name)}")

    @in_sentences
    def sql(self, query: str, **parameters: Any) -> duckdb.DuckDBPyRelation:
        """Returns a SELECT over all tables as a relation of DuckDB; `$name` in it is a parameter. Nothing is read before rows are asked
        for: a damaged shard is then an error of DuckDB, unless the run was opened with `verify`. Raises InputError for any other
        statement, and for names that are not there."""
        self._one_select(query)
        return self.guarded(lambda: self.connection.sql(query, params=parameters or None), lambda: query)

    def rows(self, query: str, **parameters: Any) -> list[tuple[Any, ...]]:
        """Returns the rows of a SELECT. Damaged shards that it meets are left out, with a warning each. Raises InputError as `sql`, and for
        DuckDB's errors."""
        return self.guarded(lambda: self.sql(query, **parameters).fetchall(), lambda: query)

    def records(self, query: str, **parameters: Any) -> list[dict[str, Any]]:
        """Returns the rows of a SELECT as `rows`, each by the names of its columns."""

        def read() -> list[dict[str, Any]]:
            found = self.sql(query, **parameters)
            names = found.columns
            return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

        return self.guarded(read, lambda: query)

    @in_sentences
    def table(self, name: str) -> duckdb.DuckDBPyRelation:
        """Returns a table by its name. Raises InputError that lists similar names."""
        if name not in self.names:
            raise InputError(f"{self.reader.storage.root}: {no_table(name, self.names)}")
        return self.sql(f"FROM {identifier(name)}")

    # ---- what the commands on a run say and do, with their words and defaults; `print` and a notebook show what the command prints

    @property
    def folder(self) -> str:
        """The run's folder."""
        return self.reader.storage.root

    def __fspath__(self) -> str:
        """Lets a run stand for its folder: `corpusmill.run(fork)`, `run.diff(fork)`."""
        return self.folder

    @in_sentences
    def why(self, document: str, *, text: bool = False, marks: bool = False) -> "Explained":
        """Says why a document was kept or dropped. `document`: its URL, its id or the id's beginning, or a passage of its text; with `text`
        only a passage. `marks`: show the text, with the places that each failed rule counts."""
        from corpusmill.report.answers.why import explain

        return explain(self.folder, document, text, marks)

    @in_sentences
    def diff(
        self, other: str | os.PathLike[str], *, stage: str | None = None, samples: int = 3, chars: int = 400, columns: bool = False
    ) -> "Difference":
        """Compares what this run (A) and another one (B) of the same crawl keep and drop: the whole runs, or the decisions of a `stage`.
        Shows `samples` documents of each side with `chars` characters of text, and with `columns` all measured values."""
        from corpusmill.report.answers.diff import DiffOptions, compare

        return compare(self.folder, path_of(other, "diff"), DiffOptions(stage, samples, chars, columns))

    @in_sentences
    def sweep(self, rule: str, from_: float | None = None, to: float | None = None, *, steps: int = 11, trust: bool = False) -> "Sweep":
        """Counts what each threshold of a rule would keep; `rows` has a row for each of `steps` thresholds between `from_` and `to`, by
        default those that 1% of the values lie below and above.
        `trust`: loads steps that are code of the run's own."""
        from corpusmill.filters.whatif import sweep

        return sweep(self.folder, rule, from_, to, steps, trust)

    @in_sentences
    def retune(
        self, thresholds: Mapping[str, Any], *, dry_run: bool = False, engine: "EngineName" = "auto", workers: int = 0, trust: bool = False
    ) -> "Retuned":
        """Decides again with other thresholds, by rule (`None` switches it off), from the values in the report. With `dry_run` only says
        what would change; `trust` as for `sweep`. Raises NothingKept if no document is left, and Incomplete if some can't be measured."""
        from corpusmill.filters.whatif import retune
        from corpusmill.pipeline.run import note_old_page

        with unwrapped_interrupts(), Progress() as progress:
            made, overrides = make_engine(engine, workers), _overrides(thresholds)
            changes = retune(self.folder, overrides, made, progress, write=not dry_run, on_message=print_note, trust=trust)
        if changes.changed and not dry_run:
            note_old_page(self.folder, print_note)
        if changes.lost:
            raise Incomplete(changes.lost)
        if not dry_run:
            self._open(RunReader(self.folder))
        return changes

    @in_sentences
    def fork(
        self, thresholds: Mapping[str, Any], new: "str | os.PathLike[str] | None" = None, *, engine: "EngineName" = "auto", workers: int = 0
    ) -> "Run":
        """Makes a run with other thresholds in the folder `new`, by default the next free name beside this one, and opens it. It shares the
        files of this one, which stays as it is."""
        from corpusmill.filters.fork import fork

        with unwrapped_interrupts(), Progress() as progress:
            folder, overrides = None if new is None else path_of(new, "fork"), _overrides(thresholds)
            made, changes = fork(self.folder, folder, overrides, make_engine(engine, workers), progress, on_message=print_note)
        if changes.lost:
            raise Incomplete(changes.lost)
        return open_run(made)

    @in_sentences
    def report(self, *, against: "str | os.PathLike[str] | None" = None) -> str:
        """Writes the run's `report.html` and returns its path. With `against`, the page shows what changed against this run."""
        from corpusmill.report.answers.diff import DiffOptions, compare
        from corpusmill.report.page.html import write_report

        other = None if against is None else compare(path_of(against, "against"), self.folder, DiffOptions(samples=0))
        return write_report(self.folder, other)

    @in_sentences
    def clusters(
        self,
        *,
        largest: bool = False,
        doubtful: bool = False,
        random: bool = False,
        limit: int | None = None,
        seed: int = 0,
        id: str | None = None,
    ) -> "ClusterLists":
        """Finds groups of copies and how they differ: some of the largest, of the most doubtful and of random ones; or one of these lists;
        or the cluster of one document (`id`: its id or URL). `limit`: clusters of a list, or copies of `id`. `seed` draws others."""
        from corpusmill.report.answers.clusters import find, one_list

        return find(self.folder, one_list(largest, doubtful, random, id), limit, seed, id)

    @in_sentences
    def rules(self, stage: str) -> list[ReportRule]:
        """Returns the rules that a stage has applied."""
        return self.reader.rules(stage)

    @in_sentences
    def meanings(self, stage: str) -> dict[str, str]:
        """Returns the meanings of a stage's rules by name: the reason for which each drops a document, in words."""
        return read_meanings(self.reader, stage)

    def guarded(self, action: Callable[[], Answer], query: Callable[[], str]) -> Answer:
        """Returns the result of `action`. Where it meets damaged shards, leaves them out and repeats it. `query` returns the SQL that runs,
        or the tables' names.

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

    def __repr__(self) -> str:
        """Says which run it is, its stages, and what was kept. Reads manifests alone."""
        stages = self.reader.stages
        finished = [name for name in self.reader.present(STAGES) if stages[name].status == "complete"]
        begun = [name for name in self.reader.present(STAGES) if name not in finished]
        parts = [f"{', '.join(finished)} finished" if finished else "no stage finished"]
        parts += [f"{', '.join(begun)} unfinished"] if begun else []
        data = [name for name in self.reader.present() if any(_writes_documents(task) for task in stages[name].tasks)]
        if data:
            first, last = ([task for task in stages[name].tasks if _writes_documents(task)] for name in (data[0], data[-1]))
            pages = sum(task.rows_in - task.failed.get(NO_PAGE, 0) for task in first)
            parts.append(f"{sum(task.kept for task in last):,} of {pages:,} documents kept")
        splits = [self.reader.json(f"tokens/{split}/shards.json", dict) for split in ("train", "validation")]
        if tokens := sum(int(split.get("tokens") or 0) for split in splits if split):
            parts.append(f"{tokens:,} tokens")
        return f"<run {self.reader.storage.root}: {'; '.join(parts)}>"

    def _repr_html_(self) -> str:
        """Returns the run as a notebook shows it: its funnel, a row a stage. The HTML has no script."""
        from corpusmill.report.queries.rules import read_funnel

        funnel = read_funnel(self)
        head = "".join(f"<th>{name}</th>" for name in ("stage", "in", "kept", "dropped", "kept of what came in", "tokens"))
        rows = []
        for row in funnel.rows if funnel else []:
            name = row.stage if row.status == "complete" else f"{row.stage} (unfinished)"
            cells = [name, *(f"{count:,}" for count in (row.documents_in, row.documents_out, row.dropped)), f"{row.share:.1%}"]
            cells.append("" if row.tokens is None else f"{row.tokens:,}")
            rows.append(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>")
        notes = "".join(f"<p>{escape(safe_line(sentence, 400))}</p>" for sentence in self.warnings)
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>" if rows else ""
        return f"<div><p><code>{escape(safe_line(repr(self), 1000))}</code></p>{table}{notes}</div>"

    def __dir__(self) -> list[str]:
        return [*USED, *(name for name in super().__dir__() if name.startswith("_"))]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _one_select(self, query: str) -> None:
        """Refuses anything but one SELECT, and makes the record tables that it names."""
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
        """Makes a table's view. Removes it where no shard is left or the shards' columns do not fit each other."""
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
        """Leaves out the damaged shards of the tables that a query names. Where none is damaged, reads the tables with columns that may
        differ.

        Returns False if neither helps.
        """
        tables = [self.tables[name] for name in self._named(query, self.tables)]
        changed = [whole for table in tables if (whole := without_damaged(self.reader, table)) != table]
        changed = changed or [replace(table, mixed=True) for table in tables if not table.mixed]
        for table in changed:
            self._set(table)
        return bool(changed)

    def _named(self, query: str, names: Iterable[str]) -> list[str]:
        """Returns the names that occur in a query. DuckDB ignores case in names."""
        words = set(re.findall(r"\w+", query.lower()))
        return [name for name in names if name.lower() in words]


@in_sentences
def open_run(path: str | os.PathLike[str], verify: bool = False) -> Run:
    """Opens a run, which may still be running.

    Args:
        path: the run's folder, local or on a store (`s3://`).
        verify: whether to compare all tables with the sha256 that the stages recorded, first of all.

    Raises:
        InputError: the folder is not a run.

    Examples:
        ```python
        import corpusmill

        run = corpusmill.open_run("runs/demo")
        run.sql("SELECT failed, count(*) FROM filter_report GROUP BY failed").df()
        ```
    """
    return Run(path_of(path, "run"), verify)


def _overrides(thresholds: Mapping[str, Any]) -> list[str]:
    if not isinstance(thresholds, Mapping):
        raise InputError(f'thresholds: expected the threshold of each rule, such as {{"gopher_short_doc": 30}}, not {thresholds!r}.')
    return [f"filter.thresholds.{str(rule).removeprefix('filter.thresholds.')}={_threshold(value)}" for rule, value in thresholds.items()]


def _threshold(value: Any) -> str:
    return "off" if value is None or value is False else "on" if value is True else str(value)
