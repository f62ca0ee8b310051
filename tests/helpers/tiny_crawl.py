"""Makes a crawl of a few dozen real pages in a moment, from pages that ship with Python."""

import importlib
import inspect
import io
import json
import pydoc
from pathlib import Path

from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

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


def make_crawl(folder: Path) -> None:
    """Writes a WARC of real pages, Python's own documentation as `pydoc` renders it, a third of them from a mirror too,
    and a JSONL file with a broken line.
    """
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
    make_rows(folder / "rows.jsonl")


def make_rows(path: Path) -> None:
    rows = [{"text": inspect.getdoc(importlib.import_module(m)) or m, "url": f"http://rows.test/{m}"} for m in MODULES]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{broken\n")
