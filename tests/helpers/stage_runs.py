"""Carries out single stages in this process, on runs whose earlier stages are finished."""

from collections.abc import Iterable, Mapping
from typing import Any

from corpusmill.pipeline.engine import Engine, InlineEngine
from corpusmill.pipeline.manifest import Manifest, TaskRow
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.shards import publish
from corpusmill.pipeline.stage import Stage
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.progress import Progress


def finish(run: Storage, stage: str, tasks: Mapping[str, Mapping[str, Any]]) -> Storage:
    """Publishes the files of each task, by path, as a finished stage; a table gives its task its number of rows."""
    storage, manifest = run.child(stage), Manifest(run.child(stage))
    for key, files in tasks.items():
        outputs = [publish(storage, path, content) for path, content in files.items()]
        rows = sum(getattr(content, "num_rows", 0) for content in files.values())
        manifest.append(TaskRow(key, key, [], "", "", rows, rows, 0, 0, outputs))
    manifest.finish(list(tasks))
    return run


def perform(run: Storage, *stages: Stage, earlier: Iterable[str] = (), engine: Engine | None = None) -> StageRun:
    """Runs stages of a recipe whose `earlier` stages are finished; returns the last one's StageRun."""
    recipe: dict[str, Any] = dict.fromkeys(earlier) | {stage.name: stage.config for stage in stages}
    for stage in stages:
        made = StageRun(stage, run, recipe, [], engine or InlineEngine(), Progress(False))
        made.execute()
    return made


def again(run: StageRun, engine: Engine | None = None, stage: Stage | None = None) -> StageRun:
    """Runs a stage once more on the same run, or another version of it."""
    found = StageRun(stage or run.stage, run.run, run.recipe, [], engine or InlineEngine(), Progress(False))
    found.execute()
    return found
