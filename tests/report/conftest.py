"""Makes a small run with known decisions."""

from pathlib import Path
from typing import Any

import pytest
from built_run import HOSTILE_URL, write_run


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "run"
    write_run(folder)
    return folder


@pytest.fixture(scope="session")
def builder() -> Any:
    return write_run


@pytest.fixture(scope="session")
def hostile_url() -> str:
    return HOSTILE_URL
