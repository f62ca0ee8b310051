"""Where a small real crawl can come from: Common Crawl, the documentation packages of a Debian registry, pydoc.

Each `fetch_...` writes WARC files into a folder and returns a phrase that describes them. It raises OSError where there is nothing to get.
"""

import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from corpusmill.pipeline.crawl.crawler import AGENT, Bounds, Site, crawl, serve
from corpusmill.pipeline.redirects import opener
from corpusmill.pipeline.web import gunzip

# ---- the beginning of a WARC file of a recent Common Crawl, by an HTTP range request ----

INDEX = "https://index.commoncrawl.org"
DATA = "https://data.commoncrawl.org"
#: The crawl that is taken where the index can't be read.
KNOWN_ID = "CC-MAIN-2026-04"
BYTES = 32 * 1024 * 1024
#: A download that breaks off is kept from this size on: the last record is cut in any case.
ENOUGH = 4 * 1024 * 1024
CONNECT_SECONDS = 5.0
DOWNLOAD_SECONDS = 120.0


def fetch_commoncrawl(folder: Path, index: str = INDEX, data: str = DATA) -> str:
    """Writes the first `BYTES` of a crawl's first WARC file into `folder`; says in a phrase what it is.

    Raises OSError where Common Crawl can't be reached or gives no such file.
    """
    crawl = newest_id(index)
    with _get(f"{data}/crawl-data/{crawl}/warc.paths.gz") as answer:
        try:
            path = gunzip(answer.read(BYTES)).decode("ascii").split()[0]
        except (OSError, ValueError, IndexError) as error:
            raise OSError(f"{crawl}: its list of files can't be read") from error
    target = folder / path.rpartition("/")[2]
    size = download_head(f"{data}/{path}", target)
    return f"the first {size / 2**20:.0f} MB of {path} (Common Crawl {crawl})"


def newest_id(index: str) -> str:
    """The id of the newest crawl, or of a known one where the index, which is often busy, does not answer as expected."""
    try:
        with _get(f"{index}/collinfo.json") as answer:
            ids = [entry["id"] for entry in json.loads(answer.read(BYTES))]
    except urllib.error.URLError as error:
        if isinstance(error.reason, socket.gaierror):
            raise  # no network at all: asking for the data would only take more time
        return KNOWN_ID
    except (OSError, http.client.HTTPException, ValueError, TypeError, KeyError):
        return KNOWN_ID
    return max((i for i in ids if re.fullmatch(r"CC-MAIN-\d{4}-\d\d", i)), default=KNOWN_ID)


def download_head(url: str, target: Path) -> int:
    """The first `BYTES` of a file; returns how many came."""
    end = time.monotonic() + DOWNLOAD_SECONDS
    size = 0
    with _get(url, {"Range": f"bytes=0-{BYTES - 1}"}) as answer, open(target, "wb") as file:
        try:
            while size < BYTES and time.monotonic() < end and (chunk := answer.read(min(1 << 18, BYTES - size))):
                size += file.write(chunk)
        except (OSError, http.client.HTTPException) as error:
            if size < ENOUGH:
                raise OSError(f"{url}: the download broke off after {size:,} bytes") from error
    if time.monotonic() >= end and size < ENOUGH:
        raise OSError(f"{url}: only {size:,} bytes came in {DOWNLOAD_SECONDS:.0f} seconds")
    return size


def _get(url: str, headers: dict[str, str] | None = None) -> Any:
    """An open answer. Every wait for the server is bounded, so a machine without a network moves on in seconds."""
    request = urllib.request.Request(url, headers={"User-Agent": AGENT.replace("loopback crawl", "demo"), **(headers or {})})
    return opener().open(request, timeout=CONNECT_SECONDS)


# ---- documentation that a Debian or Ubuntu registry ships: downloaded, unpacked without installing, served and crawled ----

LANGUAGES = ("en", "de", "es", "fr", "it", "ja", "zh-cn")
#: Host name, folder below usr/share/doc, paths to begin with, and packages. The two guides are natural near-duplicates.
SITES = (
    ("anarchist-faq.test", "anarchism/html", ("/",), ("anarchism",)),
    (
        "sysadmin-reference.test",
        "debian-reference-common/docs",
        tuple(f"/index.{language}.html" for language in LANGUAGES),
        ("debian-reference-common", *(f"debian-reference-{language}" for language in LANGUAGES)),
    ),
    ("install-amd64.test", "installation-guide-amd64", ("/en/", "/de/", "/es/", "/fr/"), ("installation-guide-amd64",)),
    ("install-arm64.test", "installation-guide-arm64", ("/en/",), ("installation-guide-arm64",)),
)
#: Seconds that apt may take in all for one of its commands.
APT_SECONDS = 150
APT = ("-q", "-o", "Acquire::Retries=0", "-o", "Acquire::http::Timeout=5", "-o", "Acquire::https::Timeout=5", "-o", "APT::Sandbox::User=")


def fetch_debian(folder: Path, bounds: Bounds) -> str:
    """Crawls the packages that can be had into `folder`; says in a phrase what it is. Raises OSError where there are none."""
    for tool in ("apt-get", "dpkg-deb"):
        if not shutil.which(tool):
            raise OSError(f"{tool} is not on this machine")
    with tempfile.TemporaryDirectory(prefix="corpusmill-packages-") as temporary:
        root = Path(temporary)
        packages = download_packages([name for *_, names in SITES for name in names], root)
        for package in packages:
            subprocess.run(["dpkg-deb", "-x", str(package), str(root / "unpacked")], check=True, capture_output=True)
        doc = root / "unpacked" / "usr" / "share" / "doc"
        folders = {host: doc / place for host, place, _, _ in SITES if (doc / place).is_dir()}
        sites = [Site(host, starts) for host, _, starts, _ in SITES if host in folders]
        with serve(folders) as port:
            counts = crawl(sites, port, folder, bounds)
    if not counts:
        raise OSError("the packages hold no pages")
    return f"{sum(counts.values()):,} pages of {len(packages)} documentation packages of this system's registry, crawled on this machine"


def download_packages(names: list[str], root: Path) -> list[Path]:
    """Downloads the packages that the registry has, with lists of our own where the system has none yet."""
    into = root / "packages"
    into.mkdir()
    available = listed(names, [])
    options: list[str] = []
    if not available:
        options = own_lists(root)
        apt(["update", *options], into)
        available = listed(names, options)
    if not available:
        raise OSError("the package registry has none of the documentation packages")
    apt(["download", *options, *available], into)
    return sorted(into.glob("*.deb"))


def listed(names: list[str], options: list[str]) -> list[str]:
    """Those of the packages that apt knows where to get."""
    result = subprocess.run(["apt-cache", *options, "policy", *names], capture_output=True, text=True, timeout=APT_SECONDS, check=False)
    known, name = set(), ""
    for line in result.stdout.splitlines():
        if line and not line[0].isspace():
            name = line.rstrip(":")
        elif "Candidate:" in line and "(none)" not in line:
            known.add(name)
    return [name for name in names if name in known]


def own_lists(root: Path) -> list[str]:
    """Options that keep apt's lists below `root`: nothing of the system changes, and nobody needs to be root."""
    for name in ("lists/partial", "cache/archives/partial"):
        (root / name).mkdir(parents=True)
    return ["-o", f"Dir::State::Lists={root}/lists", "-o", f"Dir::Cache={root}/cache"]


def apt(command: list[str], folder: Path) -> None:
    try:
        result = subprocess.run(
            ["apt-get", *APT, *command], cwd=folder, capture_output=True, text=True, timeout=APT_SECONDS, check=False,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise OSError(f"apt-get {command[0]} took more than {APT_SECONDS} seconds") from error
    if result.returncode:
        said = [line for line in result.stderr.splitlines() if line.startswith("E:")]
        raise OSError(f"apt-get {command[0]} failed ({(said or ['E: no reason given'])[0][2:].strip()})")


# ---- the pages that Python's documentation server renders for the standard library and installed packages ----

PYDOC_HOST = "pydoc.test"


def fetch_pydoc(folder: Path, bounds: Bounds, pages: int = 600) -> str:
    """Crawls a pydoc server of this Python into `folder`; says in a phrase what it is."""
    with pydoc_server() as port:
        counts = crawl([Site(PYDOC_HOST, ("/",), pages)], port, folder, bounds)
    if not counts:
        raise OSError("pydoc renders no pages")
    return f"{sum(counts.values()):,} pages of Python's own documentation (pydoc), crawled on this machine"


@contextmanager
def pydoc_server() -> Iterator[int]:
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
