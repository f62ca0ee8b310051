"""Deciding again: other thresholds on the values that the report has, without measuring any text.

Report shards are written anew, data shards only where a verdict changed, with the bytes that a fresh run of the stage would
write. A document that comes back has its text rewritten from the stage before, by the steps that rewrite alone. Each shard is published
before its row of the manifest, and `run.json` last; whatever a crash leaves half done, the stage itself measures anew.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.filters.rules import decide, rules_metadata
from corpusmill.filters.stage import FilterConfig, FilterStage, FilterWorker
from corpusmill.pipeline.config import config_digest
from corpusmill.pipeline.engine import Engine
from corpusmill.pipeline.errors import ConfigError, InputError
from corpusmill.pipeline.manifest import Manifest, TaskRow, task_identity
from corpusmill.pipeline.progress import Progress
from corpusmill.pipeline.recipe import STAGES
from corpusmill.pipeline.run import RUN_FILE, Plan, describe, locked, plan_of_existing
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.schemas import REPORT
from corpusmill.pipeline.shards import OutputFile, open_parquet, publish, read_table
from corpusmill.pipeline.stage import Piece
from corpusmill.pipeline.storage import Storage


@dataclass
class Retuned:
    """What the new thresholds changed."""

    documents: int = 0
    kept_before: int = 0
    kept: int = 0
    came_back: int = 0
    gone: int = 0
    data_shards: int = 0  # written anew
    measured: int = 0  # shards that had to be measured, as what was stored of them could not be used
    changed: dict[str, tuple[Any, Any]] = field(default_factory=dict)  # rule to threshold before and now; None where it is off
    failed: dict[str, tuple[int, int]] = field(default_factory=dict)  # rule to documents that fail it, before and now
    stale: list[str] = field(default_factory=list)  # later stages that are finished on the documents of before


def retune(folder: str, overrides: list[str], engine: Engine, progress: Progress) -> Retuned:
    """Applies `--set filter.thresholds.RULE=VALUE` to a finished filter stage.

    Raises InputError where the stage is not finished under the run's recipe, and ConfigError for anything but thresholds.
    """
    before, now = plan_of_existing(folder), plan_of_existing(folder, overrides)
    if "filter" not in before.sections:
        raise InputError(f"{folder}: the run's recipe has no stage filter.")
    _only_thresholds(before, now, folder)
    storage = Storage(folder)
    with locked(storage):
        worker = _worker(before, storage), _worker(now, storage)
        run = StageRun(FilterStage(now.sections["filter"]), storage, dict(now.sections), now.inputs, engine, progress)
        result = Retuned(changed=_changed_rules(*worker))
        old_rows = list(run.manifest.tasks.values())
        shards = list(_shards(run, config_digest(before.sections["filter"])))
        if shards:
            run.manifest.reopen()
            with ThreadPoolExecutor(os.cpu_count()) as pool, progress.phase("retune", len(shards)) as bar:
                for row, part in pool.map(lambda shard: _retune_shard(worker[1], run, *shard), shards):
                    run.manifest.append(row)
                    result.came_back, result.gone = result.came_back + part.came_back, result.gone + part.gone
                    result.data_shards += part.data_shards
                    bar.advance(row.rows_in, row.bytes_in)
        run.execute()
        result.measured = run.performed
        old_counts, counts = _counts(old_rows), _counts(run.manifest.rows())
        result.failed = {name: (old_counts.get(name, 0), counts.get(name, 0)) for name in {**old_counts, **counts}}
        result.documents, result.kept = (sum(getattr(row, key) for row in run.manifest.rows()) for key in ("rows_in", "kept"))
        result.kept_before = sum(row.kept for row in old_rows)
        storage.write_bytes(RUN_FILE, describe(now))
        result.stale = _later_stages(storage, now)
    return result


def _only_thresholds(before: Plan, now: Plan, folder: str) -> None:
    for name, section in now.sections.items():
        old, new = before.sections[name].model_dump(mode="json"), section.model_dump(mode="json")
        for key in new:
            if old[key] != new[key] and (name, key) != ("filter", "thresholds"):
                raise ConfigError(
                    f"retune: {name}.{key} would change, and only filter.thresholds can be changed without measuring again; "
                    f"for the rest: corpusmill {name} {folder} --set ..."
                )


def _worker(plan: Plan, storage: Storage) -> FilterWorker:
    config = plan.sections["filter"]
    assert isinstance(config, FilterConfig)
    return FilterWorker(config, storage, {})


def _changed_rules(before: FilterWorker, now: FilterWorker) -> dict[str, tuple[Any, Any]]:
    old, new = ({rule.rule.name: rule.rule.threshold for rule in worker.rules} for worker in (before, now))
    return {name: (old.get(name), new.get(name)) for name in {**old, **new} if old.get(name) != new.get(name)}


def _shards(run: StageRun, old_config: str) -> Iterator[tuple[Piece, TaskRow, str]]:
    """The shards that were measured under the old configuration and are as the manifest says, with the identity they get."""
    stage = run.stage
    assert isinstance(stage, FilterStage)
    pieces, params = stage.tasks(run)
    if not run.manifest.tasks:
        raise InputError(f"{run.storage.root}: nothing is measured yet; run the stage first (corpusmill filter {run.run.root}).")
    known = False
    for piece in pieces:
        row = run.manifest.tasks.get(piece.key)
        identities = {
            config: task_identity(piece.key, piece.inputs, {**params, "piece": piece.params}, config, run.code)
            for config in (old_config, run.config_digest)
        }
        known = known or (row is not None and row.identity in identities.values())
        if row is not None and row.identity == identities[old_config] != identities[run.config_digest] and _intact(run.storage, row):
            yield piece, row, identities[run.config_digest]
    if pieces and not known:
        raise InputError(
            f"{run.storage.root}: was measured with another recipe, version or model than the run has now; "
            f"measure it again first (corpusmill filter {run.run.root})."
        )


def _intact(storage: Storage, row: TaskRow) -> bool:
    """Whether the shard's files are those of the manifest; a retuning that was killed may have replaced one of them."""
    for output in row.outputs:
        if storage.size(output.path) != output.bytes:
            return False
        with storage.open_read(output.path) as file:
            sha256 = hashlib.sha256()
            while chunk := file.read(1 << 22):
                sha256.update(chunk)
        if sha256.hexdigest() != output.sha256:
            return False
    return True


def _retune_shard(worker: FilterWorker, run: StageRun, piece: Piece, row: TaskRow, identity: str) -> tuple[TaskRow, Retuned]:
    """Decides about one shard, publishes what changed, and gives its new row of the manifest."""
    data_path, report_path = f"data/{piece.key}.parquet", f"report/{piece.key}.parquet"
    report = read_table(run.storage, report_path)
    values = {name: report[name].combine_chunks() for name in {rule.rule.column for rule in worker.rules}}
    failed = decide(worker.rules, values, report.num_rows)
    before = _mask(report["kept"])
    now = _mask(pc.equal(pc.list_value_length(failed), 0))
    part = Retuned(came_back=int((now & ~before).sum()), gone=int((before & ~now).sum()))
    outputs = {output.path: output for output in row.outputs}
    lengths = np.where(now, report["chars_out"].to_numpy(), 0)
    if part.came_back or part.gone:
        data, back = _documents(worker, run, piece, report, before, now)
        outputs[data_path] = publish(run.storage, data_path, data)
        lengths[now & ~before] = back
        part.data_shards = 1
    report = _with_decisions(report, failed, now, lengths).replace_schema_metadata(rules_metadata(worker.rules))
    outputs[report_path] = publish(run.storage, report_path, report)
    counts = dict(sorted(worker.failures(report).items()))
    files: list[OutputFile] = [outputs[path] for path in sorted(outputs)]
    kept = int(now.sum())
    return replace(
        row, identity=identity, config=run.config_digest, kept=kept, dropped=report.num_rows - kept, outputs=files, counts=counts
    ), part


def _mask(column: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    return np.asarray(column.to_numpy() if isinstance(column, pa.ChunkedArray) else column.to_numpy(zero_copy_only=False), bool)


def _with_decisions(report: pa.Table, failed: pa.Array, kept: npt.NDArray[np.bool_], lengths: npt.NDArray[np.int64]) -> pa.Table:
    for name, column in (("kept", pa.array(kept)), ("failed", failed), ("chars_out", pa.array(lengths, pa.int64()))):
        place = report.schema.get_field_index(name)
        report = report.set_column(place, REPORT.field(name), column)  # Parquet gives the list's items another name
    return report


def _documents(
    worker: FilterWorker, run: StageRun, piece: Piece, report: pa.Table, before: npt.NDArray[np.bool_], now: npt.NDArray[np.bool_]
) -> tuple[pa.Table, npt.NDArray[np.int64]]:
    """The documents that go on, in their order, and the lengths in characters of those that come back."""
    stayed = read_table(run.storage, f"data/{piece.key}.parquet").filter(pa.array(now[before]))
    back = np.nonzero(now & ~before)[0]
    if not len(back):
        return stayed, np.zeros(0, np.int64)
    (shard,) = piece.inputs
    documents = read_table(run.run, shard.path).replace_schema_metadata(None)
    with open_parquet(run.run, shard.path) as file:
        data_schema, _ = worker.schemas(file.schema_arrow.remove_metadata())
    returned = (
        _returned(worker, documents, report, pa.array(back)).select(data_schema.names).cast(data_schema)
    )
    order = np.argsort(np.concatenate([np.nonzero(now & before)[0], back]), kind="stable")
    lengths = pc.utf8_length(returned["text"]).to_numpy().astype(np.int64)
    return pa.concat_tables([stayed.cast(data_schema), returned]).take(pa.array(order)), lengths


def _returned(worker: FilterWorker, documents: pa.Table, report: pa.Table, places: pa.Array) -> pa.Table:
    """The documents at some places of a shard as the stage would let them go on."""
    worker = FilterWorker(worker.config, worker.run, worker.params)  # steps of its own: shards are worked on side by side
    rewriting = [step.step for step in worker.steps if step.step.rewrites]
    for step in rewriting:
        step.setup()
        step.begin()
    if any(step.sequential for step in rewriting):  # what they do depends on the documents before
        return worker.with_values(documents, worker.rewrite(documents), report).take(places)
    documents, report = documents.take(places), report.take(places)
    return worker.with_values(documents, worker.rewrite(documents), report)


def _counts(rows: list[TaskRow]) -> dict[str, int]:
    """Documents that fail, by rule."""
    counts: Counter[str] = Counter()
    for row in rows:
        counts.update({name.removeprefix("failed "): count for name, count in row.counts.items()})
    return counts


def _later_stages(storage: Storage, plan: Plan) -> list[str]:
    order = list(STAGES)
    later = [name for name in plan.sections if order.index(name) > order.index("filter")]
    return [name for name in later if Manifest(storage.child(name), read_only=True).tasks]
