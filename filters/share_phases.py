"""Recipes that keep a share of the corpus: every shard is measured, then the thresholds are found, then every shard is decided about.

    measured/PART.parquet   the report's columns but for the decisions; depends on no threshold, so that another share measures nothing
    thresholds.json         what was found, by rule: {threshold, documents, kept}

The texts of documents that stay are read once more, and written once. What comes out has the bytes of a run whose recipe has the
thresholds that were found, but for the rules beside the report, which say of which share they are.
"""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.filters.config import FilterConfig, rule_table
from corpusmill.filters.kept_share import Reader, find_thresholds, unknown_rules, with_found
from corpusmill.filters.registry import STEPS, build_steps
from corpusmill.filters.rules import StepRule, decide, rules_metadata
from corpusmill.filters.worker import FilterWorker, Rewriter, decided
from corpusmill.pipeline.manifest import FileRef, Rows
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.shards import PART_BYTES, ParquetBuffer, iter_tables, open_parquet, read_table
from corpusmill.pipeline.stage import Documents, Output, Piece, load_object
from corpusmill.pipeline.storage import Storage

THRESHOLDS_TASK, THRESHOLDS_FILE = "thresholds", "thresholds.json"
DECISIONS = ("kept", "failed")  # columns that come with them


def keeps_shares(config: FilterConfig) -> bool:
    """Whether a step of the recipe keeps a share of the corpus, even where `thresholds` gives its rule another threshold."""
    return any(rule.rule.unknown for step in build_steps(config.steps) for rule in step.rules)


def measuring(config: FilterConfig) -> FilterConfig:
    """What of the section decides about values: all of it where a step measures passing documents alone, else no threshold."""
    if any(step.step.only_passing for step in build_steps(config.steps)):
        return config
    items = [{name: load_object(STEPS[name]).without_decisions(options) for name, options in item.items()} for item in config.steps]
    return config.model_copy(update={"steps": items, "thresholds": {}})


def execute(run: StageRun, config: FilterConfig, pieces: Sequence[Piece], params: dict[str, Any], gpus: float) -> Rows:
    """Performs all phases, and returns the rows of the last. `pieces` and `params` are those of a run without shares; `gpus`: what a
    measuring worker takes of a GPU."""
    shards = {f"measured/{p.key}": p for p in pieces}
    to_measure = [Piece(key, p.inputs) for key, p in shards.items()]
    rows = run.map("measure", MeasureWorker, to_measure, params, measuring(config), gpus=gpus, separable=True)
    measured = [row.ref(run.stage.name, row.outputs[0].path) for row in rows]
    rules = rule_table(config)
    found = run.once(THRESHOLDS_TASK, measured, lambda _: _find(run.run, rules, measured))
    table = found.ref(run.stage.name, THRESHOLDS_FILE)
    there = [shards[row.task] for row in rows]
    # `params`: a step that rewrites may be another one though it measures the same, and then the texts are others
    to_decide = [Piece(p.key, (*p.inputs, ref, table)) for p, ref in zip(there, measured, strict=True)]
    return run.map("", DecideWorker, to_decide, params, separable=True)


def _find(run: Storage, rules: Sequence[StepRule], measured: Sequence[FileRef]) -> Output:
    found = find_thresholds(rules, [reader(run, ref.path) for ref in measured])
    told = {name: each.as_json() for name, each in found.items()}
    return Output({THRESHOLDS_FILE: (json.dumps(told, indent=2) + "\n").encode()})


def reader(storage: Storage, path: str) -> Reader:
    """Reads columns of one shard's report."""
    return lambda columns: read_table(storage, path, columns)


def read_found(storage: Storage) -> dict[str, float | None]:
    """The thresholds that a run has found, by rule; `storage` is the stage's folder."""
    return {name: each["threshold"] for name, each in json.loads(storage.read_bytes(THRESHOLDS_FILE)).items()}


def summary(run: StageRun, config: FilterConfig) -> dict[str, str]:
    """The thresholds that were found, for the terminal."""
    if not unknown_rules(rule_table(config)):
        return {}
    told = []
    for name, found in json.loads(run.storage.read_bytes(THRESHOLDS_FILE)).items():
        if found["threshold"] is not None:
            told.append(f"{name} {found['threshold']:.6g} keeps {found['kept']:,} of {found['documents']:,}")
    return {"kept share": ", ".join(told)} if told else {}


class MeasureWorker(FilterWorker):
    """Measures the documents of one shard and decides nothing."""

    def process(self, piece: Piece) -> Output:
        (shard,) = piece.inputs
        _, schema = self.begin(shard)
        schema = pa.schema([field for field in schema if field.name not in DECISIONS])
        measured, size = ParquetBuffer(schema), 0
        for documents in iter_tables(self.run, shard.path, parts=self.parts, part_bytes=PART_BYTES):
            report, _, _ = self.report(documents, shard)
            measured.add(report.select(schema.names).cast(schema))
            size += pc.sum(pc.binary_length(documents["text"])).as_py() or 0
        return Output({f"{piece.key}.parquet": measured.close()}, rows_in=measured.rows, bytes_in=size)


class DecideWorker(FilterWorker):
    """Decides about one shard by what was measured and the thresholds that were found."""

    def setup(self) -> None:
        """Only steps that rewrite are needed, and `Rewriter` makes them ready."""

    def process(self, piece: Piece) -> Output:
        shard, measured, table = piece.inputs
        self.rules = with_found(rule_table(self.config), read_found(Storage(self.run.path(table.path.rpartition("/")[0]))))
        with open_parquet(self.run, shard.path) as file:
            data_schema, schema = self.schemas(file.schema_arrow.remove_metadata())
        schema = schema.with_metadata(rules_metadata(self.rules))
        made, size, counts = Documents(data_schema, schema), 0, Counter(self.failures(schema.empty_table()))
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
            counts.update(self.failures(report))
        return made.output(piece.key, bytes_in=size, counts=dict(counts))
