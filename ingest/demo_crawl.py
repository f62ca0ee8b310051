"""`python -m corpusmill.ingest.demo_crawl OUT` gets a small real crawl for a first run, once, and prints its description and its path.

It takes the first source that is available: Common Crawl, or the documentation packages of a Debian registry. Each `fetch_...` writes WARC
files into a folder and returns a phrase that describes them. It raises OSError where it gets nothing.
"""

import argparse
import base64
import gzip
import hashlib
import http.client
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import corpusmill
from corpusmill.pipeline.config import parse_json
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.redirects import opener
from corpusmill.pipeline.storage import TEMPORARY, Storage
from corpusmill.pipeline.web import gunzip

AGENT = f"corpusmill/{corpusmill.__version__} (demo)"
#: The description of a finished crawl. A crawl without this file is not finished.
DESCRIPTION = "crawl.json"


@dataclass(frozen=True)
class CrawlResult:
    """A crawl: the path to give to `corpusmill run`, and a sentence that describes the crawl."""

    path: str
    how: str


def get_crawl(folder: Path, given: str | None = None, sources: Sequence[str] = ()) -> CrawlResult:
    """Returns the crawl at `given`; else the one in `folder`; else a new one in `folder`, from the first source that works."""
    if given:
        if "://" not in given and not Path(given).exists():
            raise InputError(f"{given}: there is no such crawl.")
        return CrawlResult(given, f"The crawl is {given}, as given.")
    if made := _reused(folder):
        return made
    failures = []
    for name in sources or SOURCES:
        try:
            return _make(folder, name)
        except (OSError, subprocess.SubprocessError) as error:
            failures.append(f"{name}: {error}")
    raise CorpusmillError(f"No crawl can be had ({'; '.join(failures)}); give one with CRAWL=path.")


def _reused(folder: Path) -> CrawlResult | None:
    """Returns the finished crawl in `folder`; None if there is none, or one of its files is missing."""
    try:
        description = parse_json((folder / DESCRIPTION).read_text())
        files = {folder / "warc" / name: size for name, size in description["files"].items()}
        if all(path.stat().st_size == size for path, size in files.items()):
            return CrawlResult(str(folder / "warc"), f"The crawl is {description['what']} (made before, in {folder}).")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return None


def _make(folder: Path, name: str) -> CrawlResult:
    """Makes the crawl in a temporary folder, and moves it to its place when it is complete."""
    target = folder / "warc"
    temporary = folder / f"{TEMPORARY}{os.getpid()}-warc"
    temporary.mkdir(parents=True)
    try:
        what = SOURCES[name](temporary)
        files = {path.name: path.stat().st_size for path in sorted(temporary.iterdir())}
        (folder / DESCRIPTION).unlink(missing_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    description = {"source": name, "what": what, "files": files}
    Storage(str(folder)).write_bytes(DESCRIPTION, (json.dumps(description, indent=2) + "\n").encode())
    return CrawlResult(str(target), f"The crawl is {what}.")


# ---- the beginning of a WARC file of a Common Crawl, by an HTTP range request ----

DATA, CRAWL = "https://data.commoncrawl.org", "CC-MAIN-2026-04"
BYTES = 32 * 1024 * 1024
#: Bytes from which on a broken download is kept: the last record is cut in any case.
ENOUGH = 4 * 1024 * 1024
CONNECT_SECONDS = 5.0
DOWNLOAD_SECONDS = 120.0


def fetch_commoncrawl(folder: Path, data: str = DATA) -> str:
    """Writes the first `BYTES` bytes of the crawl's first WARC file into `folder`. Returns a phrase that describes it.

    Raises OSError if Common Crawl can't be reached or does not send the file.
    """
    with _get(f"{data}/crawl-data/{CRAWL}/warc.paths.gz") as answer:
        try:
            path = gunzip(answer.read(BYTES)).decode("ascii").split()[0]
        except (OSError, ValueError, IndexError) as error:
            raise OSError(f"{CRAWL}: its list of files can't be read") from error
    target = folder / path.rpartition("/")[2]
    size = download_head(f"{data}/{path}", target)
    return f"the first {size / 2**20:.0f} MB of {path} (Common Crawl {CRAWL})"


def download_head(url: str, target: Path) -> int:
    """Downloads the first `BYTES` bytes of a file. Returns how many came. Raises OSError if it breaks off before ENOUGH bytes."""
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
    """Opens a URL. Every wait for the server is bounded, so that a machine without a network goes on after seconds."""
    request = urllib.request.Request(url, headers={"User-Agent": AGENT, **(headers or {})})
    return opener().open(request, timeout=CONNECT_SECONDS)


# ---- documentation that a Debian or Ubuntu registry ships: downloaded, and unpacked without installing ----

LANGUAGES = ("en", "de", "es", "fr", "it", "ja", "zh-cn")
#: For each site: host name, folder below usr/share/doc, folders of pages in it, and packages. The two guides are natural near-duplicates.
SITES = (
    ("anarchist-faq.test", "anarchism/html", ("",), ("anarchism",)),
    (
        "sysadmin-reference.test",
        "debian-reference-common/docs",
        ("",),
        ("debian-reference-common", *(f"debian-reference-{language}" for language in LANGUAGES)),
    ),
    ("install-amd64.test", "installation-guide-amd64", ("en", "de", "es", "fr"), ("installation-guide-amd64",)),
    ("install-arm64.test", "installation-guide-arm64", ("en",), ("installation-guide-arm64",)),
)
#: Seconds that one command of apt may take.
APT_SECONDS = 150
APT = ("-q", "-o", "Acquire::Retries=0", "-o", "Acquire::http::Timeout=5", "-o", "Acquire::https::Timeout=5", "-o", "APT::Sandbox::User=")


def fetch_debian(folder: Path) -> str:
    """Writes the pages of the packages that the registry has. Returns a phrase that describes them. Raises OSError if it has none."""
    for tool in ("apt-get", "dpkg-deb"):
        if not shutil.which(tool):
            raise OSError(f"{tool} is not on this machine")
    with tempfile.TemporaryDirectory(prefix="corpusmill-packages-") as temporary:
        root = Path(temporary)
        packages = download_packages([name for *_, names in SITES for name in names], root)
        for package in packages:
            subprocess.run(["dpkg-deb", "-x", str(package), str(root / "unpacked")], check=True, capture_output=True)
        doc = root / "unpacked" / "usr" / "share" / "doc"
        pages = 0
        for host, place, folders, _ in SITES:
            found = [path for each in folders for path in sorted((doc / place / each).rglob("*.html")) if path.is_file()]
            pages += write_pages(folder, host, doc / place, found)
    if not pages:
        raise OSError("the packages hold no pages")
    return f"{pages:,} pages of {len(packages)} documentation packages of this system's registry"


def download_packages(names: list[str], root: Path) -> list[Path]:
    """Downloads the packages that the registry has. Where the system has no package lists yet, it uses temporary ones."""
    into = root / "packages"
    into.mkdir()
    available = listed(names, [])
    options: list[str] = []
    if not available:
        options = local_lists(root)
        apt(["update", *options], into)
        available = listed(names, options)
    if not available:
        raise OSError("the package registry has none of the documentation packages")
    apt(["download", *options, *available], into)
    return sorted(into.glob("*.deb"))


def listed(names: list[str], options: list[str]) -> list[str]:
    """Returns those of the packages that apt can download."""
    result = subprocess.run(["apt-cache", *options, "policy", *names], capture_output=True, text=True, timeout=APT_SECONDS, check=False)
    known, name = set(), ""
    for line in result.stdout.splitlines():
        if line and not line[0].isspace():
            name = line.rstrip(":")
        elif "Candidate:" in line and "(none)" not in line:
            known.add(name)
    return [name for name in names if name in known]


def local_lists(root: Path) -> list[str]:
    """Returns options that keep apt's lists below `root`, so that the system stays unchanged and no root rights are needed."""
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
        problems = [line for line in result.stderr.splitlines() if line.startswith("E:")]
        raise OSError(f"apt-get {command[0]} failed ({(problems or ['E: no reason given'])[0][2:].strip()})")


SOURCES: dict[str, Callable[[Path], str]] = {
    "commoncrawl": lambda folder: fetch_commoncrawl(folder),
    "debian": lambda folder: fetch_debian(folder),
}


# ---- WARC/1.1: one gzip member a record, digests as in the standard ----


class WarcWriter:
    """Writes the records of one site to an open binary file."""

    def __init__(self, file: IO[bytes], software: str):
        self.file = file
        self._write("warcinfo", f"software: {software}\r\nformat: WARC File Format 1.1\r\n".encode(), "application/warc-fields")

    def page(self, url: str, html: bytes) -> None:
        """Writes a page as the response of a server."""
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(html)}\r\n\r\n"
        self._write("response", head.encode() + html, "application/http; msgtype=response", {"WARC-Target-URI": url})

    def _write(self, kind: str, block: bytes, content_type: str, headers: dict[str, str] | None = None) -> None:
        from fastwarc.warc import WarcRecord, WarcRecordType

        record = WarcRecord()
        record.init_headers(getattr(WarcRecordType, kind))
        date = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        given = {"WARC-Record-ID": f"<urn:uuid:{uuid.uuid4()}>", "WARC-Date": date, "Content-Type": content_type, **(headers or {})}
        for key, value in given.items():
            record.headers[key] = value
        if kind == "response":
            digest = hashlib.sha1(block.partition(b"\r\n\r\n")[2], usedforsecurity=False).digest()
            record.headers["WARC-Payload-Digest"] = f"sha1:{base64.b32encode(digest).decode()}"
        record.set_bytes_content(block)
        plain = io.BytesIO()
        record.write(plain, checksum_data=True)
        self.file.write(gzip.compress(plain.getvalue(), mtime=0))


def write_pages(folder: Path, host: str, root: Path, paths: Sequence[Path]) -> int:
    """Writes pages below `root` to `folder`/HOST.warc.gz, in their order. Returns their number. Without pages it writes no file."""
    if paths:
        with open(folder / f"{host}.warc.gz", "wb") as file:
            writer = WarcWriter(file, AGENT)
            for path in paths:
                writer.page(f"http://{host}/{quote(path.relative_to(root).as_posix())}", path.read_bytes())
    return len(paths)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m corpusmill.ingest.demo_crawl", description="Get a small real crawl for a first run.")
    parser.add_argument("folder", metavar="OUT", type=Path, help="the folder for the crawl")
    parser.add_argument("--source", choices=("auto", *SOURCES), default="auto", help="auto takes the first that works")
    parser.add_argument("--crawl", metavar="PATH", help="a crawl that you have: takes the place of all sources")
    given = parser.parse_args(argv)
    try:
        result = get_crawl(given.folder, given.crawl, () if given.source == "auto" else (given.source,))
    except CorpusmillError as error:
        print(f"corpusmill: {error}", file=sys.stderr)
        return error.exit_code
    print(result.how, result.path, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
