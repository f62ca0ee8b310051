"""Makes a crawl of a few dozen real pages in a moment, from pages that ship with Python."""

import importlib
import inspect
import io
import json
import pydoc
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

#: Modules whose pages are made quickly; 3 MB with those of the mirror.
MODULES = [
    "argparse", "asyncio.tasks", "base64", "bisect", "calendar", "cmd", "configparser", "contextlib", "copy", "csv", "dataclasses",
    "datetime", "difflib", "doctest", "fractions", "functools", "glob", "gzip", "hashlib", "heapq", "json", "logging", "mailbox", "numbers",
    "operator", "pathlib", "pickle", "pprint", "queue", "random", "re", "sched", "shelve", "smtplib", "statistics", "string", "subprocess",
    "tarfile", "tempfile", "textwrap", "threading", "timeit", "tokenize", "traceback", "unittest.mock", "uuid", "warnings", "zipfile",
]  # fmt: skip


@cache
def page(module: str) -> bytes:
    return pydoc.HTMLDoc().page(module, pydoc.HTMLDoc().document(importlib.import_module(module))).encode()


def make_crawl(folder: Path) -> None:
    """Writes a WARC of real pages, Python's own documentation as `pydoc` renders it, a third of them from a mirror too,
    and a JSONL file with a broken line.
    """
    with open(folder / "pydoc.warc.gz", "wb") as file:
        writer = WARCWriter(file, gzip=True)
        for number, module in enumerate(MODULES):
            for host in ("docs.test", "mirror.test")[: 2 if number % 3 == 0 else 1]:
                headers = StatusAndHeaders("200 OK", [("Content-Type", "text/html; charset=utf-8")], protocol="HTTP/1.1")
                record = writer.create_warc_record(
                    f"http://{host}/{module}.html", "response", payload=io.BytesIO(page(module)), http_headers=headers,
                    warc_headers_dict={"WARC-Date": "2026-01-01T00:00:00Z"},
                )  # fmt: skip
                writer.write_record(record)
    make_rows(folder / "rows.jsonl")


def make_rows(path: Path, more: Sequence[str] = ()) -> None:
    """Writes the docstrings of MODULES and `more` as JSONL, and a broken line."""
    rows = [{"text": inspect.getdoc(importlib.import_module(m)) or m, "url": f"http://rows.test/{m}"} for m in [*MODULES, *more]]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{broken\n")
