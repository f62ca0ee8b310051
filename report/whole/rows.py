"""Rows of a data stage: the manifest's counts, one report row for each document that came in, one document for each that was kept,
and verdicts that follow from the values."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.manifest import TaskRow
from corpusmill.pipeline.shards import open_parquet
from corpusmill.pipeline.storage import Storage
from corpusmill.report.comparisons import COMPARISONS
from corpusmill.report.read import RULES_KEY, as_floats


def row_faults(run: Storage, stage: str, tasks: list[TaskRow], broken: set[str]) -> Iterator[str]:
    """Each task with a report: its counts, its ids beside those of the documents before and after it, and its verdicts.

    `broken` are paths (from the run) of shards that are not what was written, which are not read again.
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
    """The columns of a report that its verdicts rest on, and the rules beside it."""
    with open_parquet(storage, path) as file:
        rules = json.loads((file.schema_arrow.metadata or {}).get(RULES_KEY, b"[]"))
        columns = {rule["column"] for rule in rules} & set(file.schema_arrow.names)
        return file.read([*dict.fromkeys(["id", "kept", "failed", "chars_out", *sorted(columns)])], use_threads=False), rules


def read_ids(run: Storage, path: str) -> pa.Array:
    """The ids of a shard, in its order. `path` is from the run's folder."""
    stage, _, shard = path.partition("/")
    with open_parquet(run.child(stage), shard) as file:
        return file.read(["id"], use_threads=False)["id"].combine_chunks()


def difference(found: pa.Array, expected: pa.Array) -> str:
    """How the ids of one table differ from those of another, in words; empty where they are the same in the same order."""
    if found.equals(expected):
        return ""
    missing, more = _without(expected, found), _without(found, expected)
    parts = [f"{len(ids):,} {what} ({ids[0]})" for ids, what in ((missing, "missing"), (more, "too many")) if ids]
    return ", ".join(parts) or "they are the same in another order"


def _without(some: pa.Array, others: pa.Array) -> list[str]:
    """The ids of `some` that stand in it more often than in `others`."""
    left = {row["values"]: row["counts"] for row in pc.value_counts(others).to_pylist()}
    return [row["values"] for row in pc.value_counts(some).to_pylist() if row["counts"] > left.get(row["values"], 0)]


def verdict_faults(report: pa.Table, kept: np.ndarray, rules: list[dict[str, Any]]) -> Iterator[str]:
    """Rows that are kept though a rule is named, or the other way round; rules that do not follow from the values and thresholds."""
    failed = report["failed"].combine_chunks()
    lengths = np.asarray(pc.list_value_length(failed).to_numpy(zero_copy_only=False))
    yield from _named(report, (lengths == 0) != kept, "its verdict is not that of the rules that it names")
    chars = report["chars_out"].to_numpy()
    yield from _named(report, ~kept & (chars != 0), "it is dropped and has characters that go on")
    parents, names = pc.list_parent_indices(failed).to_numpy(), failed.flatten()
    for rule in rules:
        if rule["column"] not in report.column_names:
            continue
        fired = np.zeros(len(kept), bool)
        fired[parents[np.asarray(pc.equal(names, rule["rule"]).to_numpy(zero_copy_only=False), bool)]] = True
        yield from _named(report, fired != failing(report, rule), f"the rule {rule['rule']} does not follow from its value")


def failing(report: pa.Table, rule: dict[str, Any]) -> np.ndarray:
    """bool, one a row: where the rule fails, by the value and the threshold that stand in the report."""
    column, threshold = report[rule["column"]], rule["threshold"]
    if rule["comparison"] == "not in":
        outside = pc.and_(pc.invert(pc.is_in(column, pa.array(threshold, pa.string()))), pc.is_valid(column))
        return np.asarray(outside.to_numpy(), bool)
    if threshold is None:  # a share that is still to be found
        return np.zeros(len(column), bool)
    values = as_floats(report, rule["column"])
    return np.asarray(COMPARISONS[rule["comparison"]](values, threshold) & ~np.isnan(values), bool)


def _named(report: pa.Table, wrong: np.ndarray, what: str) -> Iterator[str]:
    """One sentence for the rows that are wrong, with the first of them."""
    rows = np.flatnonzero(wrong)
    if len(rows):
        more = f" (and {len(rows) - 1:,} more rows)" if len(rows) > 1 else ""
        yield f"row {rows[0]:,} ({report['id'][int(rows[0])].as_py()}): {what}{more}"
