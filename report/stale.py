"""Finds stale stages, whose inputs have changed since they ran, and the command that redoes them.

A task's row in the manifest names its input files; those from another stage of the run with their sha256. These hashes are compared with
the files that the other stage has now. Only manifests are read, so a store costs no more than a disk.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.manifest import FileRef, TaskRow
from corpusmill.pipeline.recipe import STAGES, stage_command

if TYPE_CHECKING:
    from corpusmill.report.read import RunReader, StageState

#: The number of a shard in its table: `-00042` in `data/part-00042.parquet`.
_NUMBER = re.compile(r"-\d+(?=\.[^/]*$)")


@dataclass(frozen=True)
class Stale:
    """The stale stages. `because`: the reason for each, in the stages' order. `mend`: the command that redoes them; empty where the recipe
    has none of them."""

    because: dict[str, str]
    mend: str

    @property
    def sentence(self) -> str:
        """The warning that every view of the run shows first."""
        stages = ", ".join(f"{stage} ({why})" for stage, why in self.because.items())
        return f"Stale: {stages}." + (f" To redo these stages: {self.mend}" if self.mend else "")


def written_files(rows: Mapping[str, Iterable[TaskRow]]) -> dict[str, dict[str, str]]:
    """Returns the sha256 of each stage's files, by stage and by path in the stage."""
    return {stage: {output.path: output.sha256 for task in tasks for output in task.outputs} for stage, tasks in rows.items()}


def changed_inputs(refs: Iterable[FileRef], written: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[FileRef, str, bool]]:
    """Yields the inputs that differ from their stage's present files: the input, its stage, and whether the stage still has a file of that
    name."""
    for ref in refs:
        stage, _, path = ref.path.partition("/")
        if stage in written and written[stage].get(path) != ref.fingerprint:
            yield ref, stage, path in written[stage]


def find_stale(stages: Mapping[str, "StageState"], recipe: Collection[str], folder: str) -> Stale | None:
    """Finds the stale stages among a run's stages, given in their order; None if there is none. `recipe`: the stages of the recipe."""
    order = list(STAGES)
    written = written_files({name: state.tasks for name, state in stages.items() if state.tasks or state.status == "complete"})
    because: dict[str, str] = {}
    unfinished: set[str] = set()  # unfinished stages whose output a later stage has read
    for name, state in stages.items():
        read = {ref for row in (*state.tasks, *(state.quarantined if state.tasks else ())) for ref in row.inputs}
        stages_read = {ref.path.partition("/")[0] for ref in read}
        owners = {stage: written[stage] for stage in order[: order.index(name)] if stage in stages_read and stage in written}
        changed = {stage for _, stage, _ in changed_inputs(read, owners)}
        if state.status == "complete":  # one that runs has not read all yet
            changed |= _unread(read, owners)
        for owner in owners:
            if stages[owner].status == "unfinished":
                unfinished.add(owner)
                because.setdefault(name, f"{owner} was begun again and is not finished")
            elif owner in changed:
                because.setdefault(name, f"{owner} was done again after it")
        for owner in owners:
            if owner in because:
                because.setdefault(name, f"{owner} is stale")
        if name in because and name not in recipe:
            because[name] += "; the recipe no longer has it, so its folder can go"
    if not because:
        return None
    return Stale(because, mend_command(folder, [name for name in order if name in {*because, *unfinished} & {*recipe}]))


def mend_command(folder: str, stages: list[str]) -> str:
    """Returns the command that redoes `stages` from the first to the last; empty without any."""
    if not stages:
        return ""
    return stage_command(folder, stages[0], stages[-1])


def refuse_stale(reader: "RunReader", stage: str, although: bool | None = None) -> str | None:
    """Checks `stage` before its output is exported. Returns None if the stage is not stale. Where it is, raises InputError, or with
    `although` returns the sentence that must go into the exported file. `although` None: that file has no place for a sentence."""
    if reader.stale is None or stage not in reader.stale.because:
        return None
    if not although:
        otherwise = " (--stale writes it, with a warning in it)" if although is not None else ""
        raise InputError(f"{reader.storage.root}: {stage} is stale, so nothing is written{otherwise}. {reader.stale.sentence}")
    return reader.stale.sentence


def refuse_stale_run(folder: str, stage: str, although: bool | None = None) -> str | None:
    """Calls `refuse_stale` for a folder; returns None if the folder is not a run."""
    from corpusmill.pipeline.run import RUN_FILE
    from corpusmill.pipeline.storage import Storage
    from corpusmill.report.read import RunReader

    return refuse_stale(RunReader(folder), stage, although) if Storage(folder).exists(RUN_FILE) else None


def _unread(read: Iterable[FileRef], written: Mapping[str, Mapping[str, str]]) -> set[str]:
    """Returns the stages whose tables were read in part: they have shards that were added after the reading."""
    paths = {ref.path for ref in read}
    tables = {_NUMBER.sub("", path, count=1) for path in paths if _NUMBER.search(path)}
    return {
        stage for stage, files in written.items() for path in files
        if f"{stage}/{path}" not in paths and _NUMBER.search(path) and _NUMBER.sub("", f"{stage}/{path}", count=1) in tables
    }  # fmt: skip
