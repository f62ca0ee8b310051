"""Fixtures that all tests share."""

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

# A suite that a shell started in the background ignores Ctrl-C, and so would the commands that its tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests that give the user's cache another folder find the compiled kernels all the same.
os.environ.setdefault("NUMBA_CACHE_DIR", str(kernels_folder()))

# Processes die in these tests, the machine does not: writing thousands of small files durably takes minutes and proves nothing.
os.fsync = lambda _: None

# Clients of S3 find the server of the tests, and nothing else (tests/helpers/s3.py).
s3_server.announce()

# The same examples in every run, so that a change is judged by what it changed; `make soak` looks for new ones, seventy times as many.
settings.register_profile(
    "fixed", max_examples=30, derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("soak", max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))

ROOT = Path(__file__).resolve().parent.parent
# Ray reads these once a process, as it is imported, which any test may do; so all Rays that a process of tests starts share a token.
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
os.environ.update({"RAY_AUTH_MODE": "token", **QUIET})

# Processes that tests start find the helpers, Ray's workers among them: so one Ray does for nearly all tests.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT / "tests" / "helpers"), os.environ.get("PYTHONPATH")]))

SHARED = ROOT.parent / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Takes the files of all rooms in turn: processes that are in one room at a time would wait for each other's kernels."""
    rooms: dict[str, dict[Path, None]] = {}
    for item in items:
        room = item.path.relative_to(ROOT / "tests").parts[0]
        rooms.setdefault("" if room == item.path.name else room, {})[item.path] = None
    places = {path: (number + 0.5) / len(files) for files in rooms.values() for number, path in enumerate(files)}
    items.sort(key=lambda item: places[item.path])


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """A test that carries the command out leaves no handler of SIGTERM behind: a process that a pool of a later test forks would have it,
    and Python may be about to wait for a lock as the pool's one SIGTERM comes, which it then does for ever."""
    with kept_handler():
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside a checkout; tests that need it are skipped where it is not there."""
    if not SHARED.is_dir():
        pytest.skip(f"real test data is not there ({SHARED})")
    return SHARED


@pytest.fixture(scope="session")
def tree() -> Callable[[Path], dict[str, str]]:
    return trees.tree


@pytest.fixture(scope="session")
def ray_engine() -> Iterator[RayEngine]:
    """A Ray of two CPUs for all tests that need no other; a test that starts one of its own closes it, and it comes up again."""
    engine = RayEngine(2)
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def crawl(tmp_path_factory) -> Path:
    """The tiny crawl: a WARC of Python's documentation, and a JSONL file with a broken line."""
    folder = tmp_path_factory.mktemp("crawl")
    make_crawl(folder)
    return folder


@pytest.fixture
def corpusmill(monkeypatch: pytest.MonkeyPatch, capsysbinary) -> Callable[..., tuple[int, bytes, str]]:
    """Runs the command in this process; gives its exit code, standard output and standard error."""

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
