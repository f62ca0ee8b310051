"""Stages that no longer follow from the stages before them, and the command that mends it.

A task's row names the files that it has read; those that a stage of the run wrote are named with their sha256. Here they are compared with
what that stage has now. Only manifests are needed, so it costs the same on a store.
"""

import re
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.manifest import TRIAL, FileRef, TaskRow
from corpusmill.pipeline.recipe import STAGES

if TYPE_CHECKING:
    from corpusmill.report.read import RunReader, StageState

#: What tells the shards of a table apart: `data/part-00042.parquet`.
_NUMBER = re.compile(r"-\d+(?=\.[^/]*$)")


@dataclass(frozen=True)
class Stale:
    """`because`: why each stale stage is, in the stages' order. `mend`: the command after which none is; empty where the recipe has none
    of them."""

    because: dict[str, str]
    mend: str

    @property
    def sentence(self) -> str:
        """What every view of the run says first."""
        stages = ", ".join(f"{stage} ({why})" for stage, why in self.because.items())
        return f"Stale: {stages}." + (f" To mend it: {self.mend}" if self.mend else "")


def written_files(rows: Mapping[str, Iterable[TaskRow]]) -> dict[str, dict[str, str]]:
    """For each stage the sha256 of its files, by path in the stage."""
    return {stage: {output.path: output.sha256 for task in tasks for output in task.outputs} for stage, tasks in rows.items()}


def changed_inputs(refs: Iterable[FileRef], written: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[FileRef, str, bool]]:
    """The inputs that are not what their stage has now: the input, the stage, and whether that has a file of the name at all."""
    for ref in refs:
        stage, _, path = ref.path.partition("/")
        if stage in written and written[stage].get(path) != ref.fingerprint:
            yield ref, stage, path in written[stage]


def find_stale(stages: Mapping[str, "StageState"], recipe: Collection[str], folder: str) -> Stale | None:
    """What is stale among a run's stages, given in their order; None where nothing is. `recipe`: the stages that the recipe has."""
    order = list(STAGES)
    written = written_files({name: state.tasks for name, state in stages.items() if state.tasks or state.status == "complete"})
    because: dict[str, str] = {}
    begun: set[str] = set()  # unfinished stages on which work of later ones rests
    for name, state in stages.items():
        rows = [task for task in state.tasks if state.status == "complete" or not task.task.startswith(TRIAL)]
        read = {ref for row in (*rows, *(state.quarantined if rows else ())) for ref in row.inputs}
        stages_read = {ref.path.partition("/")[0] for ref in read}
        owners = {stage: written[stage] for stage in order[: order.index(name)] if stage in stages_read and stage in written}
        changed = {stage for _, stage, _ in changed_inputs(read, owners)} | _unread(read, owners)
        for owner in owners:
            if stages[owner].status == "unfinished":
                begun.add(owner)
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
    return Stale(because, mend_command(folder, [name for name in order if name in {*because, *begun} & {*recipe}]))


def mend_command(folder: str, stages: list[str]) -> str:
    """The command that does these stages again, from the first to the last of them; empty without any."""
    if not stages:
        return ""
    return shlex.join(["corpusmill", stages[0], folder, *(["--to", stages[-1]] if stages[1:] else [])])


def refuse_stale(reader: "RunReader", stage: str, although: bool | None = None) -> str | None:
    """Before something of `stage` leaves the run. Raises InputError where the stage is stale; with `although` returns the sentence that has
    to stand in what is written. None where the stage is not stale. `although` None: what is written has no place for a sentence."""
    if reader.stale is None or stage not in reader.stale.because:
        return None
    if not although:
        otherwise = " (with --stale it is, and says so)" if although is not None else ""
        raise InputError(f"{reader.storage.root}: {stage} is stale, so nothing is written{otherwise}. {reader.stale.sentence}")
    return reader.stale.sentence


def refuse_stale_run(folder: str, stage: str, although: bool | None = None) -> str | None:
    """`refuse_stale` by the folder; None where it is not a run's."""
    from corpusmill.pipeline.run import RUN_FILE
    from corpusmill.pipeline.storage import Storage
    from corpusmill.report.read import RunReader

    return refuse_stale(RunReader(folder), stage, although) if Storage(folder).exists(RUN_FILE) else None


def _unread(read: Iterable[FileRef], written: Mapping[str, Mapping[str, str]]) -> set[str]:
    """The stages of which some shards were read and others, which lie beside them, were not: they have come since."""
    paths = {ref.path for ref in read}
    tables = {_NUMBER.sub("", path, count=1) for path in paths if _NUMBER.search(path)}
    return {
        stage for stage, files in written.items() for path in files
        if f"{stage}/{path}" not in paths and _NUMBER.search(path) and _NUMBER.sub("", f"{stage}/{path}", count=1) in tables
    }  # fmt: skip
