"""Checks the rows of a data stage: the manifest's counts, one report row for each input document, one document for each kept row, and
verdicts that follow from the values."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.filters.relation import ask, report_of
from corpusmill.filters.rules import METADATA_KEY
from corpusmill.pipeline.config import parse_json
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.manifest import Manifest, TaskRow
from corpusmill.pipeline.shards import iter_tables, open_parquet, read_table
from corpusmill.pipeline.storage import Storage
from corpusmill.report.tokens import verify as shards


def row_faults(run: Storage, stage: str, tasks: list[TaskRow], broken: set[str]) -> Iterator[str]:
    """Checks each task with a report: its counts, its ids against those of the input and output documents, and its verdicts.

    `broken`: paths (from the run) of damaged shards, which are not read again.
    """
    for task in tasks:
        reports = [output.path for output in task.outputs if output.path.startswith("report/")]
        rows = kept = 0
        for path in reports:
            try:
                report, rules = read_report(run.child(stage), path)
                rows, kept = rows + report.num_rows, kept + int(np.sum(report["kept"].to_numpy()))
                yield from _report_faults(run, stage, task, path, report, rules, broken)
            except (InputError, pa.ArrowException, OSError, KeyError, ValueError) as error:
                yield f"{run.path(f'{stage}/{path}')}: can't be checked: {error}"
                break
        else:
            if reports and (rows, kept, rows - kept) != (task.rows_in, task.kept, task.dropped):
                more = f" and {len(reports) - 1} more reports of the task {task.task}" if len(reports) > 1 else ""
                yield (
                    f"{run.path(f'{stage}/{reports[0]}')}{more}: {rows:,} rows, {kept:,} of them kept; the manifest says "
                    f"{task.rows_in:,} in, {task.kept:,} kept, {task.dropped:,} dropped."
                )


def _report_faults(
    run: Storage, stage: str, task: TaskRow, path: str, report: pa.Table, rules: list[dict[str, Any]], broken: set[str]
) -> Iterator[str]:
    name = run.path(f"{stage}/{path}")
    kept = np.asarray(report["kept"].to_numpy(), bool)
    yield from (f"{name}: {fault}." for fault in verdict_faults(report, kept, rules))
    data = path.replace("report/", "data/", 1)
    if any(output.path == data for output in task.outputs):
        fault = difference(read_ids(run, f"{stage}/{data}"), report["id"].combine_chunks().filter(pa.array(kept)))
        if fault:
            yield f"{run.path(f'{stage}/{data}')}: its documents are not those that the report keeps: {fault}."
    before = next((ref.path for ref in task.inputs if "/data/" in ref.path and ref.path.endswith(".parquet")), None)
    if before is not None and before not in broken:
        fault = difference(report["id"].combine_chunks(), read_ids(run, before))
        if fault:
            yield f"{name}: its rows are not the documents of {before}: {fault}."


def read_report(storage: Storage, path: str) -> tuple[pa.Table, list[dict[str, Any]]]:
    """Returns the columns of a report from which its verdicts follow, and its rules."""
    with open_parquet(storage, path) as file:
        rules = parse_json((file.schema_arrow.metadata or {}).get(METADATA_KEY, b"[]"))
        columns = {rule["column"] for rule in rules} & set(file.schema_arrow.names)
        return file.read([*dict.fromkeys(["id", "kept", "failed", "chars_out", *sorted(columns)])], use_threads=False), rules


def read_ids(run: Storage, path: str) -> pa.Array:
    """Returns the ids of a shard, in order. `path` begins at the run folder."""
    stage, _, shard = path.partition("/")
    with open_parquet(run.child(stage), shard) as file:
        return file.read(["id"], use_threads=False)["id"].combine_chunks()


def difference(found: pa.Array, expected: pa.Array) -> str:
    """Returns in words how the ids of one table differ from those of another; empty where they are equal in the same order."""
    if found.equals(expected):
        return ""
    missing, more = _without(expected, found), _without(found, expected)
    parts = [f"{len(ids):,} {what} ({ids[0]})" for ids, what in ((missing, "missing"), (more, "too many")) if ids]
    return ", ".join(parts) or "they are the same in another order"


def _without(some: pa.Array, others: pa.Array) -> list[str]:
    """Returns the ids that occur more often in `some` than in `others`."""
    left = {row["values"]: row["counts"] for row in pc.value_counts(others).to_pylist()}
    return [row["values"] for row in pc.value_counts(some).to_pylist() if row["counts"] > left.get(row["values"], 0)]


def verdict_faults(report: pa.Table, kept: np.ndarray, rules: list[dict[str, Any]]) -> Iterator[str]:
    """Yields rows that are kept though they name a rule, or dropped without one, and rules that do not follow from the values and
    thresholds."""
    failed = report["failed"].combine_chunks()
    lengths = np.asarray(pc.list_value_length(failed).to_numpy(zero_copy_only=False))
    yield from _named(report, (lengths == 0) != kept, "its verdict is not that of the rules that it names")
    chars = report["chars_out"].to_numpy()
    yield from _named(report, ~kept & (chars != 0), "it is dropped and has characters that go on")
    parents, names = pc.list_parent_indices(failed).to_numpy(), failed.flatten()
    rules = [rule for rule in rules if rule["column"] in report.column_names]
    decides = report_of(report)
    tests = [f"{decides.fails(rule['column'], rule['comparison'], rule['threshold'])} AS f{place}" for place, rule in enumerate(rules)]
    failing = ask(report, ", ".join(["kept", *tests])).fetchnumpy()
    for place, rule in enumerate(rules):
        fired = np.zeros(len(kept), bool)
        fired[parents[np.asarray(pc.equal(names, rule["rule"]).to_numpy(zero_copy_only=False), bool)]] = True
        yield from _named(report, fired != failing[f"f{place}"], f"the rule {rule['rule']} does not follow from its value")


def _named(report: pa.Table, wrong: np.ndarray, what: str) -> Iterator[str]:
    """Yields one sentence for the wrong rows; it names the first of them."""
    rows = np.flatnonzero(wrong)
    if len(rows):
        more = f" (and {len(rows) - 1:,} more rows)" if len(rows) > 1 else ""
        yield f"row {rows[0]:,} ({report['id'][int(rows[0])].as_py()}): {what}{more}"


#: The stages that learn from examples, with their tables of learned and (for sft) dropped examples.
TUNED = {"sft": ("data/examples.parquet", "dropped/examples.parquet"), "align": ("data/pairs.parquet",)}


def example_faults(run: Storage, stage: str, tasks: Sequence[TaskRow], broken: set[str]) -> Iterator[str]:
    """Checks the examples of a stage. `broken`: paths (from the run) of damaged files, which are not read again."""
    for task in tasks:
        names = [name for name in TUNED[stage] if any(output.path == name for output in task.outputs)]
        documents = [ref.path for ref in task.inputs if "/data/" in ref.path and ref.path.endswith(".parquet")]
        if not names or broken.intersection(documents):
            continue
        try:
            yield from _counts(run, stage, task, names)
            if all("/" in ref.path and run.exists(ref.path) for ref in task.inputs):  # else some examples come from the user's files
                yield from _origins(run, stage, names, documents)
        except (InputError, pa.ArrowException, OSError, KeyError, ValueError) as error:
            yield f"{run.path(f'{stage}/{names[0]}')}: can't be checked: {error}"


def _counts(run: Storage, stage: str, task: TaskRow, names: list[str]) -> Iterator[str]:
    """Checks the tables' rows against the manifest: `kept` for the first table, `dropped` for the second."""
    for name, recorded in zip(names, (task.kept, task.dropped)):
        with open_parquet(run.child(stage), name) as file:
            rows = file.metadata.num_rows
        if rows != recorded:
            yield f"{run.path(f'{stage}/{name}')}: it has {rows:,} rows, and the manifest says {recorded:,}."


def _origins(run: Storage, stage: str, names: list[str], documents: list[str]) -> Iterator[str]:
    """Yields examples from documents that the task has not read."""
    from_where = {name: set(read_table(run.child(stage), name, ["id"])["id"].to_pylist()) for name in names}
    unknown = set().union(*from_where.values())
    for path in documents:
        folder, _, shard = path.partition("/")
        for table in iter_tables(run.child(folder), shard, ["id"]):
            unknown.difference_update(table["id"].to_pylist())
    for name, ids in from_where.items():
        if lost := sorted(ids & unknown):
            yield f"{run.path(f'{stage}/{name}')}: {len(lost):,} of its rows come from documents that {stage} has not read ({lost[0]})."


Bits = npt.NDArray[np.uint8]


def token_faults(run: Storage, every: bool) -> Iterator[str]:
    """Yields the faults of a run's tokens stage whose files are all unchanged. `every`: compares the tokens of all documents with their
    texts, else those of some in each shard."""
    yield from (fault for check in shards.verify(run.root, every=every) for fault in check.faults)
    storage, tasks = run.child("tokens"), Manifest(run.child("tokens"), read_only=True).rows()
    kept: dict[str, Bits] = {}
    for report, documents in _reports(tasks):
        rows = read_table(storage, report, ["id", "kept"])
        fault = difference(rows["id"].combine_chunks(), read_ids(run, documents))
        if fault:
            yield f"{storage.path(report)}: its rows are not the documents of {documents}: {fault}."
        kept[documents] = np.asarray(rows["kept"].to_numpy(zero_copy_only=False), np.uint8)
    indexed = {documents: np.zeros_like(bits) for documents, bits in kept.items()}
    for path in (output.path for task in tasks for output in task.outputs if output.path.endswith(".index.parquet")):
        yield from _take(storage, path, indexed)
    for documents, bits in kept.items():
        for wrong, what in (
            (bits > indexed[documents], "kept, and stand in no shard"),
            (bits < indexed[documents], "in a shard, and not kept"),
        ):
            if wrong.any():
                yield f"{run.path(documents)}: {int(wrong.sum()):,} of its documents are {what} (row {int(np.argmax(wrong)):,})."


def _reports(tasks: Sequence[TaskRow]) -> Iterator[tuple[str, str]]:
    """Yields each shard of the report with its document shard (path from the run), from which the task's input was encoded."""
    origin: dict[str, str] = {}
    for task in tasks:
        read = {ref.path if "/data/" in ref.path else origin.get(ref.path, "") for ref in task.inputs} - {""}
        if len(read) != 1:
            continue  # the plan, which rests on all shards
        (documents,) = read
        for output in task.outputs:
            origin[f"tokens/{output.path}"] = documents
            if output.path.startswith("report/"):
                yield output.path, documents


def _take(storage: Storage, index: str, indexed: dict[str, Bits]) -> Iterator[str]:
    """Marks the documents that a shard's index names; yields a sentence for unknown ones."""
    for rows in iter_tables(storage, index, ["data_file", "data_row"]):
        files, places = rows["data_file"].combine_chunks().dictionary_encode(), rows["data_row"].to_numpy()
        codes = files.indices.to_numpy()
        for code, documents in enumerate(files.dictionary.to_pylist()):
            here = places[codes == code]
            known = indexed.get(documents)
            if known is None or (len(here) and int(here.max()) >= len(known)):
                yield f"{storage.path(index)}: it names documents of {documents} that the report does not know."
            else:
                known[here] = 1
