"""Provides inputs of the tests with faults, and the results of an undisturbed run."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from faulty_run import VARIABLE, write_inputs

from corpusmill.pipeline.engine import InlineEngine
from corpusmill.pipeline.run import execute, new_plan
from corpusmill.pipeline.watch.progress import Progress
from corpusmill.report.whole.verify import verify


@pytest.fixture(scope="session")
def recipe_and_crawl(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    recipe, crawl = write_inputs(tmp_path_factory.mktemp("faults"))
    return str(recipe), str(crawl)


@pytest.fixture(scope="session")
def carry_out(recipe_and_crawl: tuple[str, str]) -> Callable[..., str]:
    """Returns `carry_out(run, override, ...)`: runs all stages in this process; returns the last message about tasks given up."""

    def call(run: Path | str, *overrides: str, last: str | None = None) -> str:
        recipe, crawl = recipe_and_crawl
        plan = new_plan(str(run), recipe, [crawl], overrides, last=last)
        return execute(plan, InlineEngine(), Progress(False))

    return call


@pytest.fixture(scope="session")
def reference(carry_out: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Makes an undisturbed run."""
    run = tmp_path_factory.mktemp("reference") / "run"
    assert carry_out(run) == ""
    return run


@pytest.fixture(scope="session")
def undisturbed(reference: Path, tree: Callable[[Path], dict[str, str]]) -> dict[str, str]:
    return tree(reference)


@pytest.fixture
def ingested(reference: Path, tmp_path: Path) -> Path:
    """Makes a run whose first stage alone is finished."""
    shutil.copytree(reference / "ingest", tmp_path / "run/ingest")
    shutil.copy(reference / "run.json", tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns the file that makes the filter's function fail (`faulty_run.plant`)."""
    path = tmp_path / "fault.json"
    monkeypatch.setenv(VARIABLE, str(path))
    return path


@pytest.fixture(scope="session")
def faults_of() -> Callable[[Path | str], list[str]]:
    """Returns the findings of `corpusmill verify`."""
    return lambda run: [fault for check in verify(str(run)) for fault in check.faults]
