"""Inputs such as `cc:CC-MAIN-2026-04?segments=3`: files of Common Crawl, or of any server with the same layout.

A crawl usually has 100 segments, each with some 900 files of about 1 GB; its list of files is `crawl-data/CRAWL/warc.paths.gz`. An input
chooses a sample of these files, which depends on the list and the seed alone. Larger samples contain smaller ones: the files of
`segments=3` are among those of `segments=5`.
"""

import os
import re
from collections import defaultdict
from dataclasses import dataclass
from urllib.parse import parse_qsl

import xxhash

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.files import is_web, listed, open_file
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.stores import is_store
from corpusmill.pipeline.watch.progress import Bytes
from corpusmill.pipeline.web import Patience, download, forget, gunzip

PREFIX = "cc:"
BASE = "https://data.commoncrawl.org/"
#: The environment variable with the address of a mirror.
BASE_VARIABLE = "CORPUSMILL_CC_BASE"
KINDS = ("warc", "wet")
CRAWL = re.compile(r"CC-[A-Z]+(?:[-/][A-Za-z0-9]+)+")
PATH = re.compile(r"(?!.*(?:^|/)\.\.?(?:/|$))[A-Za-z0-9._=+/-]+")
SEGMENT = re.compile(r"/segments/([^/]+)/")
HOW = "cc:CC-MAIN-2026-04?segments=3&files=1&kind=warc"
ALL = "all"


@dataclass(frozen=True)
class CrawlInput:
    """The parts of a `cc:` input. `segments` and `files` (of each segment) are None for all of them."""

    crawl: str
    kind: str = "warc"
    segments: int | None = 1
    files: int | None = 1
    seed: int = 0
    base: str = BASE

    @property
    def list_url(self) -> str:
        return f"{self.base}crawl-data/{self.crawl}/{self.kind}.paths.gz"


def is_crawl(given: str) -> bool:
    return given.startswith(PREFIX)


def parse_crawl(given: str) -> CrawlInput:
    """Parses `cc:CRAWL?segments=N&files=N&kind=warc|wet&seed=N&base=URL`; raises InputError where it is malformed."""
    crawl, _, query = given.removeprefix(PREFIX).partition("?")
    if not CRAWL.fullmatch(crawl):
        raise InputError(f"{given}: {crawl!r} is no name of a crawl (an example: {HOW}).")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    except ValueError as error:
        raise InputError(f"{given}: what follows the question mark is not KEY=VALUE&... (an example: {HOW}).") from error
    values = dict(pairs)
    unknown = [key for key in values if key not in ("segments", "files", "kind", "seed", "base")]
    if unknown or len(values) < len(pairs):
        raise InputError(f"{given}: {unknown[0] if unknown else 'a key'!r} is unknown or twice there (an example: {HOW}).")
    if values.get("kind", "warc") not in KINDS:
        raise InputError(f"{given}: kind is {' or '.join(KINDS)}.")
    base = values.get("base") or os.environ.get(BASE_VARIABLE) or BASE
    if not (is_web(base) or is_store(base)):
        raise InputError(f"{given}: the base {base!r} is no address that begins with https://, http:// or s3://.")
    return CrawlInput(
        crawl, values.get("kind", "warc"), _number(given, values, "segments"), _number(given, values, "files"),
        _number(given, values, "seed", 0) or 0, base.rstrip("/") + "/",
    )  # fmt: skip


def _number(given: str, values: dict[str, str], key: str, least: int = 1) -> int | None:
    value = values.get(key, str(least))
    if value == ALL and least:
        return None
    if not (value.isascii() and value.isdecimal() and least <= int(value) < 1 << 32):
        raise InputError(f"{given}: {key} is a whole number from {least} on{', or all' if least else ''}.")
    return int(value)


def files_of(given: str, patience: Patience | None = None) -> list[str]:
    """Returns the URLs of a `cc:` input's files, sorted. Downloads the crawl's list, unless it is in the cache or in a store."""
    wanted = parse_crawl(given)
    try:
        content = _list(wanted, patience)
    except InputError as error:
        if "no such file" in str(error):
            raise InputError(f"{given}: {wanted.base} has no crawl {wanted.crawl} ({wanted.list_url} is not there).") from error
        raise
    return sorted(wanted.base + path for path in choose(_paths(wanted, content), wanted))


def find_files(given: str) -> dict[str, FileRef | None]:
    """Returns the files of any input, as `listed` does: a `cc:` input, or a path, glob or URL."""
    return dict.fromkeys(files_of(given)) if is_crawl(given) else listed(given)


def fetch(given: str, bar: Bytes, patience: Patience | None = None) -> None:
    """Downloads the files of a `cc:` input, unless they are in the cache or in a store."""
    if not is_store(parse_crawl(given).base):
        download(files_of(given, patience), bar, patience)


def _list(wanted: CrawlInput, patience: Patience | None) -> bytes:
    if not is_store(wanted.base):
        download([wanted.list_url], patience=patience)
    with open_file(wanted.list_url) as file:
        return file.read()


def _paths(wanted: CrawlInput, content: bytes) -> list[str]:
    """Returns the paths in a crawl's list. An invalid list is removed from the cache, so that the next run downloads it again."""
    why = "it is empty"
    try:
        paths = gunzip(content).decode("ascii").split()
    except (OSError, ValueError) as error:
        paths, why = [], str(error)
    strange = next((path for path in paths if not PATH.fullmatch(path)), None)
    if strange is not None:
        paths, why = [], f"it names {strange[:80]!r}"
    if not paths:
        forget(wanted.list_url)
        raise InputError(f"{wanted.list_url}: what the server gave is no list of files ({why}).")
    return paths


def choose(paths: list[str], wanted: CrawlInput) -> list[str]:
    """Chooses files of a crawl: `wanted.files` of each of `wanted.segments` segments, both in the order of their seeded hashes."""
    segments: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        found = SEGMENT.search(path)
        segments[found[1] if found else path.rpartition("/")[0]].append(path)

    def order(name: str) -> tuple[int, str]:
        return xxhash.xxh3_64_intdigest(name.encode(), wanted.seed), name

    chosen = sorted(segments, key=order)[: wanted.segments]
    return [path for segment in chosen for path in sorted(segments[segment], key=order)[: wanted.files]]
