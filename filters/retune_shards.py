"""The shards of a filter stage about which can be decided again: what is stored of them has to be what the manifest says."""

from collections.abc import Sequence
from dataclasses import dataclass

from corpusmill.filters.share_phases import DecideWorker
from corpusmill.filters.stage import FilterStage
from corpusmill.filters.worker import FilterWorker
from corpusmill.pipeline.code import Code, code_for, shortened
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.manifest import TaskRow, task_identity
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.stage import Piece
from corpusmill.pipeline.storage import Storage


@dataclass(frozen=True)
class Shard:
    """A shard to decide about: its piece, its row of the manifest, and the identity that it gets."""

    piece: Piece
    row: TaskRow
    identity: str


def measured_shards(run: StageRun, old_config: str) -> tuple[list[Shard], int]:
    """The shards that were measured under the old configuration and are as the manifest says, and the number of finished ones."""
    stage = run.stage
    assert isinstance(stage, FilterStage)
    pieces, params = stage.tasks(run)
    _measured_at_all(run)
    code = code_for(FilterWorker, run.stage.config.model_dump(mode="json"), params)
    shards, finished = [], 0
    for piece in pieces:
        row = run.manifest.tasks.get(piece.key)
        old, new = (
            task_identity(piece.key, piece.inputs, {**params, "piece": piece.params}, config, code.digest)
            for config in (old_config, run.config_digest)
        )
        if row is not None and row.identity == new:
            finished += 1
        elif row is not None and row.identity == old and _intact(run.storage, row):
            shards.append(Shard(piece, row, new))
    if pieces and not shards and not finished:
        raise _measured_otherwise(run, pieces, old_config, code)
    return shards, finished


def _measured_at_all(run: StageRun) -> None:
    if not report_rows(run):
        raise InputError(f"{run.storage.root}: nothing is measured yet; run the stage first (corpusmill filter {run.run.root}).")


def _measured_otherwise(run: StageRun, pieces: Sequence[Piece], old_config: str, code: Code) -> InputError:
    """What is not as it was when the stage was measured, and what to do."""
    rows = run.manifest.tasks
    changed = dict.fromkeys(what for piece in pieces for what in _changes(run, piece, rows.get(piece.key), old_config, code))
    return InputError(
        f"{run.storage.root}: can't be decided again, as since it was measured {' and '.join(changed)}; "
        f"measure it again first (corpusmill filter {run.run.root}), or try thresholds without writing them (corpusmill sweep, or explore)."
    )


def _changes(run: StageRun, piece: Piece, row: TaskRow | None, old_config: str, code: Code) -> list[str]:
    if row is None:
        return ["shards came that were not there"]
    found = ["the section filter of its recipe was changed"] if row.config not in (old_config, run.config_digest) else []
    if row.code != code.digest:
        parts = run.manifest.codes.get(row.code)
        what = f" ({shortened(Code.from_json(parts).changes(code))})" if parts else ""
        found.append(f"the program was changed{what}")
    if [(ref.path, ref.fingerprint) for ref in row.inputs[: len(piece.inputs)]] != [(ref.path, ref.fingerprint) for ref in piece.inputs]:
        found.append("the documents that it read were changed")
    if not found and not _intact(run.storage, row):
        found.append("its files were changed")
    return found or ["a model or a list that its steps read was changed"]


def report_rows(run: StageRun) -> list[TaskRow]:
    """The manifest's rows of shards that were decided about."""
    return [row for row in run.manifest.tasks.values() if any(output.path.startswith("report/") for output in row.outputs)]


def decided_shards(run: StageRun, old_config: str) -> list[Shard]:
    """The shards of a finished stage that keeps a share of the corpus."""
    _measured_at_all(run)
    rows = {row.task: row for row in report_rows(run)}
    stage = run.stage
    assert isinstance(stage, FilterStage)
    pieces, params = stage.tasks(run)
    code = code_for(DecideWorker, run.stage.config.model_dump(mode="json"), params)
    if not run.manifest.complete or any(
        p.key not in rows or rows[p.key].config != old_config or rows[p.key].code != code.digest for p in pieces
    ):
        raise _measured_otherwise(run, pieces, old_config, code)
    return [Shard(piece, rows[piece.key], rows[piece.key].identity) for piece in pieces]


def _intact(storage: Storage, row: TaskRow) -> bool:
    """Whether the shard's files are those of the manifest; a retuning that was killed may have replaced one of them."""
    for output in row.outputs:
        if storage.size(output.path) != output.bytes:
            return False
        if storage.sha256(output.path) != output.sha256:
            return False
    return True
