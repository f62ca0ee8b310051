"""Recipes that keep a share of the corpus, in three phases: measure every shard, find the thresholds, decide about every shard.

    measured/PART.parquet   the report's columns without the decisions; still valid when a threshold or a share changes
    thresholds.json         the thresholds found, by rule: {threshold, documents, kept}

The outputs have the same bytes as those of a recipe with these thresholds, except that the report's rules also name the share.
"""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.filters.rules import Rule, StepRule, decide, rules_metadata
from corpusmill.filters.step import STEPS, build_steps
from corpusmill.filters.worker import FilterConfig, FilterWorker, Rewriter, decided, rule_table
from corpusmill.pipeline.manifest import FileRef, RowSequence
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.shards import PART_BYTES, ParquetBuffer, iter_tables, open_parquet, read_table
from corpusmill.pipeline.stage import DocumentFiles, Output, Task, load_object
from corpusmill.pipeline.storage import Storage

# ---- The threshold that keeps an exact share of the corpus, from report columns alone
#
# Of the n documents that count, `share` keeps the k = ceil(share * n) with the highest values (the lowest, if the rule fails values above
# its threshold). The threshold is the k-th of these values. Documents with this very value stay as well, so ties can only keep more
# documents. The values of the whole corpus are in memory at once: 8 bytes for each document.

#: Reads the named columns of one shard's report.
Reader = Callable[[list[str]], pa.Table]


@dataclass(frozen=True)
class FoundThreshold:
    """A rule's threshold; None if no document counts. Of the `documents` that count, `kept` pass."""

    threshold: float | None
    documents: int
    kept: int

    def as_json(self) -> dict[str, Any]:
        return {"threshold": self.threshold, "documents": self.documents, "kept": self.kept}


def unknown_rules(rules: Iterable[StepRule]) -> list[Rule]:
    """Returns the rules whose thresholds have still to be found."""
    return [rule.rule for rule in rules if rule.rule.unknown]


def with_found(rules: Iterable[StepRule], found: dict[str, float | None]) -> list[StepRule]:
    """Returns the rules with the thresholds found, by name. Leaves out a rule for which no threshold was found."""
    decided = []
    for rule in rules:
        if not rule.rule.unknown:
            decided.append(rule)
        elif (threshold := found[rule.rule.name]) is not None:
            decided.append(replace(rule, rule=replace(rule.rule, threshold=threshold)))
    return decided


def find_thresholds(rules: Sequence[StepRule], shards: Sequence[Reader]) -> dict[str, FoundThreshold]:
    """Finds the missing thresholds, by rule. `shards`: a reader of report columns for each shard."""
    unknown = unknown_rules(rules)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return {rule.name: _find(rule, rules, shards, pool) for rule in unknown}


def _find(rule: Rule, rules: Sequence[StepRule], shards: Sequence[Reader], pool: ThreadPoolExecutor) -> FoundThreshold:
    assert rule.kept is not None
    others = [other.rule for other in rules if not other.rule.unknown] if rule.kept.of == "passing" else []
    columns = list(dict.fromkeys([rule.column, *(other.column for other in others)]))

    def values_of(shard: Reader) -> npt.NDArray[np.float64]:
        table = shard(columns)
        counts = np.ones(table.num_rows, bool)
        for other in others:
            counts &= ~other.failing(table[other.column].combine_chunks())
        values = table[rule.column].to_numpy()[counts]
        return np.asarray(values[~np.isnan(values)], np.float64)

    values = np.concatenate([np.zeros(0), *pool.map(values_of, shards)])
    if not len(values):
        return FoundThreshold(None, 0, 0)
    kept = ceil(Fraction(str(rule.kept.share)) * len(values))
    high = rule.comparison.startswith("<")
    rank = len(values) - kept if high else kept - 1  # in ascending order
    values.partition(rank)
    threshold = float(values[rank]) + 0.0  # turns -0 into 0
    return FoundThreshold(threshold, len(values), int(np.count_nonzero(values >= threshold if high else values <= threshold)))


# ---- The phases of a run

THRESHOLDS_TASK, THRESHOLDS_FILE = "thresholds", "thresholds.json"
DECISIONS = ("kept", "failed")  # columns that the last phase adds


def keeps_shares(config: FilterConfig) -> bool:
    """Whether a step of the recipe keeps a share of the corpus. True even if `thresholds` replaces that share by a threshold."""
    return any(rule.rule.unknown for step in build_steps(config.steps) for rule in step.rules)


def measuring(config: FilterConfig) -> FilterConfig:
    """Returns the part of the section that can change a value: all of it if a step measures only passing documents, else no thresholds."""
    if any(step.step.only_passing for step in build_steps(config.steps)):
        return config
    items = [{name: load_object(STEPS[name]).without_decisions(options) for name, options in item.items()} for item in config.steps]
    return config.model_copy(update={"steps": items, "thresholds": {}})


def measure_and_decide(run: StageRun, config: FilterConfig, tasks: Sequence[Task], params: dict[str, Any], gpus: float) -> RowSequence:
    """Runs all phases and returns the manifest's rows of the last phase.

    `tasks`, `params`: as for a run without kept shares. `gpus`: the share of a GPU that a measuring worker needs.
    """
    shards = {f"measured/{p.key}": p for p in tasks}
    to_measure = [Task(key, p.inputs) for key, p in shards.items()]
    rows = run.map("measure", MeasureWorker, to_measure, params, measuring(config), gpus=gpus, allow_partial=True)
    measured = [row.ref(run.stage.name, row.outputs[0].path) for row in rows]
    rules = rule_table(config)
    found = run.once(THRESHOLDS_TASK, measured, lambda _: _find_and_write(run.run, rules, measured))
    table = found.ref(run.stage.name, THRESHOLDS_FILE)
    there = [shards[row.task] for row in rows]
    # `params`: another model may measure the same and yet rewrite texts differently
    to_decide = [Task(p.key, (*p.inputs, ref, table)) for p, ref in zip(there, measured, strict=True)]
    return run.map("", KeptShareWorker, to_decide, params, allow_partial=True)


def _find_and_write(run: Storage, rules: Sequence[StepRule], measured: Sequence[FileRef]) -> Output:
    found = find_thresholds(rules, [shard_reader(run, ref.path) for ref in measured])
    written = {name: each.as_json() for name, each in found.items()}
    return Output({THRESHOLDS_FILE: (json.dumps(written, indent=2) + "\n").encode()})


def shard_reader(storage: Storage, path: str) -> Reader:
    """Returns a reader of the columns of one shard's report."""
    return lambda columns: read_table(storage, path, columns)


def read_found(storage: Storage) -> dict[str, float | None]:
    """Reads the thresholds found, by rule. `storage`: the stage's folder."""
    return {name: each["threshold"] for name, each in storage.read_json(THRESHOLDS_FILE).items()}


def kept_share_summary(run: StageRun, config: FilterConfig) -> dict[str, str]:
    """Returns the thresholds found, as a line for the terminal."""
    if not unknown_rules(rule_table(config)):
        return {}
    sentences = []
    for name, found in run.storage.read_json(THRESHOLDS_FILE).items():
        if found["threshold"] is not None:
            sentences.append(f"{name} {found['threshold']:.6g} keeps {found['kept']:,} of {found['documents']:,}")
    return {"kept share": ", ".join(sentences)} if sentences else {}


class MeasureWorker(FilterWorker):
    """Measures the documents of one shard and decides nothing."""

    def process(self, task: Task) -> Output:
        (shard,) = task.inputs
        _, schema = self.begin(shard)
        schema = pa.schema([field for field in schema if field.name not in DECISIONS])
        measured, size = ParquetBuffer(schema), 0
        for documents in iter_tables(self.run, shard.path, parts=self.parts, part_bytes=PART_BYTES):
            report, _, _ = self.report(documents, shard)
            measured.add(report.select(schema.names).cast(schema))
            size += pc.sum(pc.binary_length(documents["text"])).as_py() or 0
        files = {f"{task.key}.parquet": measured.close(), **self.more_files(task.key.rpartition("/")[2])}
        return Output(files, rows_in=measured.rows, bytes_in=size, counts=dict(self._counts))


class KeptShareWorker(FilterWorker):
    """Decides about the documents of one shard, from the measured values and the thresholds found."""

    def setup(self) -> None:
        """Loads nothing: only the rewriting steps are needed, and `Rewriter` loads them."""

    def process(self, task: Task) -> Output:
        shard, measured, table = task.inputs
        self.rules = with_found(rule_table(self.config), read_found(Storage(self.run.path(table.path.rpartition("/")[0]))))
        with open_parquet(self.run, shard.path) as file:
            data_schema, schema = self.schemas(file.schema_arrow.remove_metadata())
        schema = schema.with_metadata(rules_metadata(self.rules))
        made, size = DocumentFiles(data_schema, schema), 0
        found, begin, rewriter = read_table(self.run, measured.path), 0, Rewriter(self)
        for documents in iter_tables(self.run, shard.path, parts=self.parts):
            report = found.slice(begin, documents.num_rows)
            begin += documents.num_rows
            values = {name: report[name].combine_chunks() for name in report.column_names}
            report = decided(report, decide(self.rules, values, report.num_rows), report["chars_out"].to_numpy())
            report = report.select(schema.names).cast(schema)
            kept = rewriter.at(documents.replace_schema_metadata(None), report, pc.indices_nonzero(report["kept"]))
            made.add(kept.select(data_schema.names).cast(data_schema), report)
            size += pc.sum(pc.binary_length(documents["text"])).as_py() or 0
        return made.output(task.key, bytes_in=size)
