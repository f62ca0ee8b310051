"""Fixtures that all tests share."""

import hashlib
import importlib
import inspect
import io
import json
import os
import pydoc
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import s3 as s3_server
from hypothesis import HealthCheck, settings
from s3 import _announced, s3  # noqa: F401 - fixtures
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from corpusmill import cli
from corpusmill.pipeline.engine_ray import RayEngine
from corpusmill.pipeline.manifest import Manifest
from corpusmill.pipeline.storage import Storage

# A suite that a shell started in the background ignores Ctrl-C, and so would the commands that its tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Processes die in these tests, the machine does not: writing thousands of small files durably takes minutes and proves nothing.
os.fsync = lambda _: None

# Clients of S3 find the server of the tests, and nothing else (tests/helpers/s3.py).
s3_server.announce()

# The same examples in every run, so that a change is judged by what it changed; `make soak` looks for new ones, twenty times as many.
settings.register_profile("fixed", derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("soak", max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Takes the files of all rooms in turn: processes that are in one room at a time would compile the same kernels twice."""
    rooms: dict[str, dict[Path, None]] = {}
    for item in items:
        room = item.path.relative_to(ROOT / "tests").parts[0]
        rooms.setdefault("" if room == item.path.name else room, {})[item.path] = None
    places = {path: (number + 0.5) / len(files) for files in rooms.values() for number, path in enumerate(files)}
    items.sort(key=lambda item: places[item.path])


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside a checkout; tests that need it are skipped where it is not there."""
    if not SHARED.is_dir():
        pytest.skip(f"real test data is not there ({SHARED})")
    return SHARED


#: What differs between equal runs: times, memory, traces, the lock. Manifests are compared by their rows, see `tree`.
VOLATILE = {"metrics.jsonl", "progress.json", "errors.log", ".lock", "report.html"}


def _tree(folder: Path) -> dict[str, str]:
    """Path to content hash of everything in a run that has to be equal in equal runs."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or path.name in VOLATILE or "/checkpoints/" in name or "/logs/" in name:
            continue
        content = path.read_bytes()
        if path.name == "manifest.jsonl":  # rows in the order of completion; after a crash some are there twice
            manifest = Manifest(Storage(str(path.parent)))
            content = repr(manifest.rows()).encode()
        found[name] = hashlib.sha256(content).hexdigest()
    return found


@pytest.fixture(scope="session")
def tree() -> Callable[[Path], dict[str, str]]:
    return _tree


@pytest.fixture(scope="session")
def ray_engine() -> Iterator[RayEngine]:
    """A Ray of two CPUs for all tests that need no other; a test that starts one of its own closes it, and it comes up again."""
    engine = RayEngine(2)
    yield engine
    engine.close()


MODULES = [
    "argparse",
    "ast",
    "asyncio.tasks",
    "base64",
    "bisect",
    "calendar",
    "cmd",
    "codecs",
    "collections",
    "configparser",
    "contextlib",
    "copy",
    "csv",
    "dataclasses",
    "datetime",
    "decimal",
    "difflib",
    "doctest",
    "enum",
    "fractions",
    "functools",
    "glob",
    "gzip",
    "hashlib",
    "heapq",
    "inspect",
    "io",
    "ipaddress",
    "json",
    "logging",
    "mailbox",
    "numbers",
    "operator",
    "optparse",
    "os",
    "pathlib",
    "pickle",
    "pprint",
    "queue",
    "random",
    "re",
    "sched",
    "shelve",
    "shutil",
    "smtplib",
    "socket",
    "statistics",
    "string",
    "subprocess",
    "tarfile",
    "tempfile",
    "textwrap",
    "threading",
    "timeit",
    "tokenize",
    "traceback",
    "types",
    "unittest.mock",
    "urllib.parse",
    "uuid",
    "warnings",
    "weakref",
    "xml.dom",
    "zipfile",
]


@pytest.fixture(scope="session")
def crawl(tmp_path_factory) -> Path:
    """A folder with a WARC of real pages, Python's own documentation as `pydoc` renders it, a third of them from a mirror too,
    and a JSONL file with a broken line."""
    folder = tmp_path_factory.mktemp("crawl")
    with open(folder / "pydoc.warc.gz", "wb") as file:
        writer = WARCWriter(file, gzip=True)
        for number, module in enumerate(MODULES):
            page = pydoc.HTMLDoc().page(module, pydoc.HTMLDoc().document(importlib.import_module(module))).encode()
            for host in ("docs.test", "mirror.test")[: 2 if number % 3 == 0 else 1]:
                headers = StatusAndHeaders("200 OK", [("Content-Type", "text/html; charset=utf-8")], protocol="HTTP/1.1")
                record = writer.create_warc_record(
                    f"http://{host}/{module}.html", "response", payload=io.BytesIO(page), http_headers=headers,
                    warc_headers_dict={"WARC-Date": "2026-01-01T00:00:00Z"},
                )  # fmt: skip
                writer.write_record(record)
    rows = [{"text": inspect.getdoc(importlib.import_module(m)) or m, "url": f"http://rows.test/{m}"} for m in MODULES]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "{broken\n")
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
