"""`python -m corpusmill.pipeline.crawl OUT` gets a small real crawl for a first run, once, and prints what it is, then its path."""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from corpusmill.pipeline.crawl.crawler import Bounds
from corpusmill.pipeline.crawl.sources import fetch_commoncrawl, fetch_debian, fetch_pydoc
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.storage import TEMPORARY, Storage

#: What a finished crawl says about itself; without it a crawl is not finished.
DESCRIPTION = "crawl.json"

SOURCES: dict[str, Callable[[Path], str]] = {
    "commoncrawl": lambda folder: fetch_commoncrawl(folder),
    "debian": lambda folder: fetch_debian(folder, Bounds()),
    "pydoc": lambda folder: fetch_pydoc(folder, Bounds(seconds=90.0)),
}


@dataclass(frozen=True)
class CrawlResult:
    """A crawl: the path to give to `corpusmill run`, and what it is, in one sentence."""

    path: str
    how: str


def get_crawl(folder: Path, given: str | None = None, sources: Sequence[str] = tuple(SOURCES)) -> CrawlResult:
    """The crawl at `given`; else the one that lies in `folder`; else a new one in `folder` from the first source that works."""
    if given:
        if "://" not in given and not Path(given).exists():
            raise InputError(f"{given}: there is no such crawl.")
        return CrawlResult(given, f"The crawl is {given}, as given.")
    if made := _reused(folder):
        return made
    failures = []
    for name in sources:
        try:
            return _make(folder, name)
        except (OSError, subprocess.SubprocessError) as error:
            failures.append(f"{name}: {error}")
    raise CorpusmillError(f"No crawl can be had ({'; '.join(failures)}); give one with CRAWL=path.")


def _reused(folder: Path) -> CrawlResult | None:
    """A finished crawl whose files are all there."""
    try:
        description = json.loads((folder / DESCRIPTION).read_text())
        files = {folder / "warc" / name: size for name, size in description["files"].items()}
        if all(path.stat().st_size == size for path, size in files.items()):
            return CrawlResult(str(folder / "warc"), f"The crawl is {description['what']} (made before, in {folder}).")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return None


def _make(folder: Path, name: str) -> CrawlResult:
    """Makes the crawl beside its place and moves it there when it is whole."""
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


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m corpusmill.pipeline.crawl", description="Get a small real crawl for a first run.")
    parser.add_argument("folder", metavar="OUT", type=Path, help="where it is kept and found again")
    parser.add_argument("--source", choices=("auto", *SOURCES), default="auto", help="auto takes the first that works")
    parser.add_argument("--crawl", metavar="PATH", help="a crawl that you have: takes the place of all sources")
    given = parser.parse_args(argv)
    try:
        result = get_crawl(given.folder, given.crawl, tuple(SOURCES) if given.source == "auto" else (given.source,))
    except CorpusmillError as error:
        print(f"corpusmill: {error}", file=sys.stderr)
        return error.exit_code
    print(result.how, result.path, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
