"""The pages that Python's own documentation server renders for the standard library and installed packages."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from corpusmill.pipeline.crawl.crawler import Bounds, Site, crawl

HOST = "pydoc.test"


def fetch(folder: Path, bounds: Bounds, pages: int = 600) -> str:
    """Crawls a pydoc server of this Python into `folder`; says in a phrase what it is."""
    with server() as port:
        counts = crawl([Site(HOST, ("/",), pages)], port, folder, bounds)
    if not counts:
        raise OSError("pydoc renders no pages")
    return f"{sum(counts.values()):,} pages of Python's own documentation (pydoc), crawled on this machine"


@contextmanager
def server() -> Iterator[int]:
    """A pydoc server in a process of its own, because showing a module means importing it; gives its port."""
    with tempfile.TemporaryDirectory(prefix="corpusmill-pydoc-") as folder:
        process = subprocess.Popen(
            [sys.executable, "-I", "-W", "ignore", "-m", "pydoc", "-n", "127.0.0.1", "-p", "0"], cwd=folder,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={**os.environ, "BROWSER": "true", "PYTHONUNBUFFERED": "1"},  # some modules open a browser when imported
        )  # fmt: skip
        try:
            yield _port(process)
        finally:
            process.kill()
            process.communicate()


def _port(process: subprocess.Popen[str]) -> int:
    for line in process.stdout or ():
        if found := re.search(r"http://127\.0\.0\.1:(\d+)/", line):
            return int(found[1])
    raise OSError("pydoc can't start its server")
