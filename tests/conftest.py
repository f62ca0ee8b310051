"""Fixtures shared by all tests."""

import os
import secrets
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import s3 as s3_server
import trees
from hypothesis import HealthCheck, settings
from s3 import s3  # noqa: F401 - a fixture
from tiny_crawl import make_crawl

from corpusmill import cli
from corpusmill.pipeline.cache import kernels_folder
from corpusmill.pipeline.interrupts import kept_handler
from corpusmill.pipeline.on_ray.engine import QUIET, RayEngine

# A shell that starts the suite in the background makes it ignore Ctrl-C; commands that tests start and interrupt would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests that set another cache folder for the user still find the compiled kernels.
os.environ.setdefault("NUMBA_CACHE_DIR", str(kernels_folder()))

# Processes die in these tests but the machine does not: syncing thousands of small files takes minutes and proves nothing.
os.fsync = lambda _: None

# S3 clients find the server of the tests, and nothing else (tests/helpers/s3.py).
s3_server.announce()

# Every run uses the same examples, so that a failure is due to a change; `make soak` looks for new ones, seventy times as many.
settings.register_profile(
    "fixed", max_examples=30, derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("soak", max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))

ROOT = Path(__file__).resolve().parent.parent
# Ray reads these once per process, when any test imports it; so all Rays that a test process starts share a token.
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
os.environ.update({"RAY_AUTH_MODE": "token", **QUIET})

# Processes that tests start find the helpers, including Ray's workers: so one Ray serves nearly all tests.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT / "tests" / "helpers"), os.environ.get("PYTHONPATH")]))

SHARED = ROOT.parent / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Orders the test files so that rooms take turns: processes in the same room would wait for each other's kernels."""
    rooms: dict[str, dict[Path, None]] = {}
    for item in items:
        room = item.path.relative_to(ROOT / "tests").parts[0]
        rooms.setdefault("" if room == item.path.name else room, {})[item.path] = None
    places = {path: (number + 0.5) / len(files) for files in rooms.values() for number, path in enumerate(files)}
    items.sort(key=lambda item: places[item.path])


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Restores the handler of SIGTERM after a test that runs the command. A process forked by a later test's pool would inherit it, and
    hang for ever if the pool's only SIGTERM came while Python was about to wait for a lock.
    """
    with kept_handler():
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Returns the folder of real data next to the checkout; skips the test where there is none."""
    if not SHARED.is_dir():
        pytest.skip(f"real test data is not there ({SHARED})")
    return SHARED


@pytest.fixture(scope="session")
def tree() -> Callable[[Path], dict[str, str]]:
    return trees.tree


@pytest.fixture(scope="session")
def ray_engine() -> Iterator[RayEngine]:
    """Starts a Ray of two CPUs that tests share; a test that starts its own Ray closes this one, and it starts again afterwards."""
    engine = RayEngine(2)
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def crawl(tmp_path_factory) -> Path:
    """Makes the tiny crawl: a WARC of Python's documentation, and a JSONL file with a broken line."""
    folder = tmp_path_factory.mktemp("crawl")
    make_crawl(folder)
    return folder


@pytest.fixture
def corpusmill(monkeypatch: pytest.MonkeyPatch, capsysbinary) -> Callable[..., tuple[int, bytes, str]]:
    """Runs the command in this process; returns its exit code, standard output and standard error."""

    def call(*arguments: object) -> tuple[int, bytes, str]:
        monkeypatch.setattr(sys, "argv", ["corpusmill", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsysbinary.readouterr()
        return code, captured.out, captured.err.decode()

    return call
