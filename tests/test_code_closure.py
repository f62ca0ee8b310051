"""Tests by running every stage that the files which tasks execute and read are all in the code of their identities."""

import os
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import executed
import pytest
from whole_run import STAGES, write_inputs

import corpusmill
from corpusmill.pipeline import engine, runner
from corpusmill.pipeline.code import code_for
from corpusmill.pipeline.engine import InlineEngine, Job
from corpusmill.pipeline.manifest import Manifest
from corpusmill.pipeline.run import execute, new_plan
from corpusmill.pipeline.stage import Worker
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.progress import Progress

ROOT = os.path.realpath(Path(corpusmill.__file__).parent / "pipeline").removesuffix("pipeline")
#: Runs tasks or shows them; a task calls it only through objects that it is given (`StageRun`, `Progress`).
BEGINNINGS = ("pipeline/engine.py", "pipeline/on_ray/", "pipeline/run.py", "pipeline/runner.py", "pipeline/watch/", "report/")
ROOMS = ("pipeline/", "text/", "ingest/", "filters/", "dedup/", "tokenize/", "train/")
#: A few steps are enough.
SHORT = ["pretrain.loop.steps=3", "sft.loop.steps=2", "align.loop.steps=2"]
#: The methods of a worker that compute.
CALLS = ("setup", "process")


class Seen:
    """The files that were executed or read, by the module of the worker or function."""

    def __init__(self) -> None:
        self.files: dict[str, set[str]] = defaultdict(set)
        self.now: list[str] = []

    def watching(self, module: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self.now.append(module)
            with executed.watched(ROOT, BEGINNINGS) as found:
                try:
                    return executed.inner(function, *arguments, **options)
                finally:
                    self.now.pop()
                    self.files[module] |= found

        call.__module__ = module
        return call

    def opened(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Records opened data files of the package."""
        if event == "open" and self.now and isinstance(arguments[0], str) and not arguments[0].endswith((".py", ".pyc", ".nbi", ".nbc")):
            path = os.path.realpath(arguments[0])
            if path.startswith(ROOT):
                self.files[self.now[-1]].add(path.removeprefix(ROOT))


@pytest.mark.long
def test_all_that_the_tasks_of_a_run_execute_is_in_their_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Seen()
    make, once = engine.make_worker, runner.StageRun.once
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").symlink_to(executed.__file__)
    monkeypatch.syspath_prepend(str(site))  # for the processes that read ingest's inputs
    monkeypatch.setenv("EXECUTED", str(tmp_path / "executed"))
    monkeypatch.setenv("EXECUTED_ROOT", ROOT)
    monkeypatch.setenv("EXECUTED_CARRIERS", ":".join(BEGINNINGS))
    monkeypatch.setattr("sys.dont_write_bytecode", True)

    def watched_worker(job: Job) -> Worker:
        worker = make(job)
        for call in CALLS:
            setattr(worker, call, seen.watching(type(worker).__module__, getattr(worker, call)))
        return worker

    def watched_once(run: Any, task: str, inputs: Any, function: Any, *more: Any, **options: Any) -> Any:
        return once(run, task, inputs, seen.watching(code_for(function).module, function), *more, **options)

    monkeypatch.setattr(engine, "make_worker", watched_worker)
    monkeypatch.setattr(runner.StageRun, "once", watched_once)
    sys.addaudithook(seen.opened)

    recipe, crawl = write_inputs(tmp_path)
    plan = new_plan(str(tmp_path / "run"), str(recipe), [str(crawl)], SHORT)
    execute(plan, InlineEngine(), Progress(False))

    read = set((tmp_path / "executed").read_text().split())
    seen.files["corpusmill.ingest.stage"] |= read
    assert {"ingest/pages.py", "ingest/html/main_text.py"} <= read

    known: dict[str, set[str]] = defaultdict(set)
    for stage in STAGES:
        manifest = Manifest(Storage(str(tmp_path / "run" / stage)), read_only=True)
        assert manifest.complete and {row.code for row in manifest.tasks.values()} <= manifest.codes.keys()
        for parts in manifest.codes.values():
            known[parts["module"]] |= parts["files"].keys()
    assert seen.files.keys() <= known.keys() and len(known) > 15
    missed = {module: {file for file in files - known[module] if file.startswith(ROOMS)} for module, files in seen.files.items()}
    assert {module: files for module, files in missed.items() if files} == {}
