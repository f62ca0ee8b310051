"""Starts one Chromium and one server of the small run for all tests of the explorer's page."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from browser import Seen, browser, opened
from explored import decisions, explored
from waiting import drawn


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as running:
        yield running


@pytest.fixture(scope="module")
def address(run_folder: Path) -> Iterator[str]:
    with explored(run_folder) as served:
        yield served


@pytest.fixture(scope="module")
def decided(run_folder: Path) -> pd.DataFrame:
    """Returns the filter stage's report."""
    return decisions(run_folder)


@pytest.fixture
def seen(chromium: Any, address: str) -> Iterator[Seen]:
    """Opens the page; after the test, it must have printed nothing to the console and sent requests only to its server."""
    with opened(chromium, address) as seen:
        drawn(seen.page)
        yield seen
        assert seen.console == []
        assert [url for url in seen.requests if not url.startswith(address)] == []
