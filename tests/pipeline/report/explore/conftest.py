"""One Chromium and one server of the small run for the explorer's page."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import browser
from explored import explored


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as running:
        yield running


@pytest.fixture(scope="session")
def address(run_folder: Path) -> Iterator[str]:
    with explored(run_folder) as served:
        yield served
