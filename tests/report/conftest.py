"""Makes a small run with known decisions, and a larger one with random decisions."""

from pathlib import Path
from typing import Any

import pytest
from built_run import write_run
from random_run import write_random_run


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "run"
    write_run(folder)
    return folder


@pytest.fixture(scope="session")
def random_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("random") / "run"
    write_random_run(folder)
    return folder


@pytest.fixture(scope="session")
def builder() -> Any:
    return write_run
