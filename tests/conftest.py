"""Fixtures that all tests share."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside a checkout; tests that need it are skipped where it is not there."""
    if not SHARED.is_dir():
        pytest.skip(f"real test data is not there ({SHARED})")
    return SHARED
