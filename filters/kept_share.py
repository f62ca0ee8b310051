"""Recipes that keep a share of the corpus: every shard is measured, then the thresholds are found, then every shard is decided about.

    measured/PART.parquet   the report's columns but for the decisions; depends on no threshold, so that another share measures nothing
    thresholds.json         what was found, by rule: {threshold, documents, kept}

The texts of documents that stay are read once more, and written once. What comes out has the bytes of a run whose recipe has the
thresholds that were found, but for the rules beside the report, which say of which share they are.
"""

import json
import os
from collections import Counter
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
from corpusmill.pipeline.manifest import FileRef, Rows
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.shards import PART_BYTES, ParquetBuffer, iter_tables, open_parquet, read_table
from corpusmill.pipeline.stage import Documents, Output, Piece, load_object
from corpusmill.pipeline.storage import Storage

# ---- The threshold that keeps a share of the corpus, exactly, from report columns alone
#
# Of n documents that count, `share` keeps the k = ceil(share * n) with the highest values (the lowest, where a rule fails values above its
# threshold); the threshold is the value of the k-th. All documents with just this value stay, too, so ties can only keep more.
#
# Up to SORTED values are sorted at once. Of more, a histogram of the 16 highest bits says in which range the value lies, a second pass
# counts the next 16 bits of the values in it, and so on: four passes over columns in memory that does not grow with the corpus. Counts
# add up to the same in any order, so the threshold does not depend on shards or workers.

SORTED = 1 << 22  # values: 32 MB
DIGIT, KEY = 16, 64  # bits

Keys = npt.NDArray[np.uint64]
#: Reads some columns of one shard.
Reader = Callable[[list[str]], pa.Table]


@dataclass(frozen=True)
class FoundThreshold:
    """A rule's threshold; None where no document counts. `kept`: how many of the `documents` that count have a value that passes."""

    threshold: float | None
    documents: int
    kept: int

    def as_json(self) -> dict[str, Any]:
        return {"threshold": self.threshold, "documents": self.documents, "kept": self.kept}


def unknown_rules(rules: Iterable[StepRule]) -> list[Rule]:
    """The rules whose thresholds have yet to be found."""
    return [rule.rule for rule in rules if rule.rule.unknown]


def with_found(rules: Iterable[StepRule], found: dict[str, float | None]) -> list[StepRule]:
    """The rules with the thresholds that were found, by name; a rule for which there is none decides nothing and is left out."""
    decided = []
    for rule in rules:
        if not rule.rule.unknown:
            decided.append(rule)
        elif (threshold := found[rule.rule.name]) is not None:
            decided.append(replace(rule, rule=replace(rule.rule, threshold=threshold)))
    return decided


def find_thresholds(rules: Sequence[StepRule], shards: Sequence[Reader]) -> dict[str, FoundThreshold]:
    """The thresholds of all rules that have none, by name. Each of `shards` reads columns of the report of one shard."""
    unknown = unknown_rules(rules)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return {rule.name: _find(rule, rules, shards, pool) for rule in unknown}


def _find(rule: Rule, rules: Sequence[StepRule], shards: Sequence[Reader], pool: ThreadPoolExecutor) -> FoundThreshold:
    assert rule.kept is not None
    others = [other.rule for other in rules if not other.rule.unknown] if rule.kept.of == "passing" else []
    columns = list(dict.fromkeys([rule.column, *(other.column for other in others)]))

    def keys_of(shard: Reader) -> Keys:
        table = shard(columns)
        counts = np.ones(table.num_rows, bool)
        for other in others:
            counts &= ~other.failing(table[other.column].combine_chunks())
        values = table[rule.column].to_numpy()[counts]
        return ordered_keys(values[~np.isnan(values)])

    documents, collected, whole = 0, list[Keys](), True
    for keys in pool.map(keys_of, shards):
        documents += len(keys)
        whole = whole and documents <= SORTED
        collected = [*collected, keys] if whole else []
    if not documents:
        return FoundThreshold(None, 0, 0)
    kept = ceil(Fraction(str(rule.kept.share)) * documents)
    high = rule.comparison.startswith("<")
    rank = documents - kept if high else kept - 1  # in rising order
    if whole:
        key, below, equal = _select_sorted(np.concatenate(collected), rank)
    else:
        key, below, equal = _select_by_digits(lambda count: pool.map(lambda shard: count(keys_of(shard)), shards), rank)
    return FoundThreshold(key_value(key), documents, documents - below if high else below + equal)


def ordered_keys(values: npt.NDArray[Any]) -> Keys:
    """uint64 keys in the order of the numbers (float64; -0 is 0)."""
    bits = (np.ascontiguousarray(values, np.float64) + 0.0).view(np.uint64)
    negative = bits >> np.uint64(KEY - 1) == 1
    return np.where(negative, ~bits, bits | np.uint64(1 << (KEY - 1)))


def key_value(key: int) -> float:
    """The number of a key."""
    bits = key ^ (1 << (KEY - 1)) if key >> (KEY - 1) else ~key & ((1 << KEY) - 1)
    return float(np.uint64(bits).view(np.float64))


def _select_sorted(keys: Keys, rank: int) -> tuple[int, int, int]:
    """`(key, number of lower ones, number of equal ones)` of the key with a rank."""
    keys = np.sort(keys)
    key = keys[rank]
    below, to = np.searchsorted(keys, key), np.searchsorted(keys, key, "right")
    return int(key), int(below), int(to - below)


def _select_by_digits(
    count_each: Callable[[Callable[[Keys], npt.NDArray[np.int64]]], Iterable[npt.NDArray[np.int64]]], rank: int
) -> tuple[int, int, int]:
    """As `_select_sorted`; `count_each` applies a function to the keys of each shard."""
    prefix, below, equal = 0, 0, 0
    for shift in range(KEY - DIGIT, -1, -DIGIT):

        def count(keys: Keys, prefix: int = prefix, shift: int = shift) -> npt.NDArray[np.int64]:
            if shift + DIGIT < KEY:
                keys = keys[keys >> np.uint64(shift + DIGIT) == prefix]
            digits = (keys >> np.uint64(shift)) & np.uint64((1 << DIGIT) - 1)
            return np.bincount(digits.astype(np.int64), minlength=1 << DIGIT)

        total = np.zeros(1 << DIGIT, np.int64)
        for counts in count_each(count):
            total += counts
        up_to = np.cumsum(total)
        digit = int(np.searchsorted(up_to, rank - below, "right"))
        equal = int(total[digit])
        below += int(up_to[digit]) - equal
        prefix = prefix << DIGIT | digit
    return prefix, below, equal


# ---- The phases of a run

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


def measure_and_decide(run: StageRun, config: FilterConfig, pieces: Sequence[Piece], params: dict[str, Any], gpus: float) -> Rows:
    """Performs all phases, and returns the rows of the last. `pieces` and `params` are those of a run without shares; `gpus`: what a
    measuring worker takes of a GPU."""
    shards = {f"measured/{p.key}": p for p in pieces}
    to_measure = [Piece(key, p.inputs) for key, p in shards.items()]
    rows = run.map("measure", MeasureWorker, to_measure, params, measuring(config), gpus=gpus, separable=True)
    measured = [row.ref(run.stage.name, row.outputs[0].path) for row in rows]
    rules = rule_table(config)
    found = run.once(THRESHOLDS_TASK, measured, lambda _: _find_and_write(run.run, rules, measured))
    table = found.ref(run.stage.name, THRESHOLDS_FILE)
    there = [shards[row.task] for row in rows]
    # `params`: a step that rewrites may be another one though it measures the same, and then the texts are others
    to_decide = [Piece(p.key, (*p.inputs, ref, table)) for p, ref in zip(there, measured, strict=True)]
    return run.map("", KeptShareWorker, to_decide, params, separable=True)


def _find_and_write(run: Storage, rules: Sequence[StepRule], measured: Sequence[FileRef]) -> Output:
    found = find_thresholds(rules, [shard_reader(run, ref.path) for ref in measured])
    told = {name: each.as_json() for name, each in found.items()}
    return Output({THRESHOLDS_FILE: (json.dumps(told, indent=2) + "\n").encode()})


def shard_reader(storage: Storage, path: str) -> Reader:
    """Reads columns of one shard's report."""
    return lambda columns: read_table(storage, path, columns)


def read_found(storage: Storage) -> dict[str, float | None]:
    """The thresholds that a run has found, by rule; `storage` is the stage's folder."""
    return {name: each["threshold"] for name, each in json.loads(storage.read_bytes(THRESHOLDS_FILE)).items()}


def kept_share_summary(run: StageRun, config: FilterConfig) -> dict[str, str]:
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


class KeptShareWorker(FilterWorker):
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
