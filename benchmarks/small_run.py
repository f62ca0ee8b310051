"""Measures a small run from the command to the report: a thousand pages, WARC to tokens, by the clock and by the processor.

    python benchmarks/small_run.py CRAWL.warc.gz... [--pages 1000] [--repeats 5] [--workers 2] [--against CHECKOUT] [--folder DIR]

The pages have at most 100 kB, and are taken from the archives in turn. `warm` is a run where kernels and templates are compiled.
`shipped` is one on a machine that has compiled nothing, but got the kernels in a folder, as from a container image or a shared disk. With
`--against`, each run takes turns with one of another checkout (its `src` is put on the path). Seconds are medians, then all of them;
those of the processor are of all processes, as in overhead.py. The first run of each checkout compiles kernels and does not count.
"""

import argparse
import ctypes
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from itertools import chain, islice, zip_longest
from pathlib import Path
from statistics import median

from fastwarc.warc import ArchiveIterator, WarcRecordType
from overhead import PR_SET_CHILD_SUBREAPER, SECTIONS, Seconds, command

from corpusmill.ingest.demo_crawl import WarcWriter
from corpusmill.pipeline.cache import cache_folder, kernels_folder
from corpusmill.pipeline.recipe import Recipe

LARGEST = 100_000  # bytes of a page
SMALLEST = 2_000


def pages_of(archive: str) -> Iterator[tuple[str, bytes]]:
    """Yields address and content of the pages of ordinary size."""
    with open(archive, "rb") as file:
        for record in ArchiveIterator(file, record_types=WarcRecordType.response):
            body = record.reader.read()
            if SMALLEST <= len(body) <= LARGEST and b"<html" in body[:2000].lower():
                yield record.headers["WARC-Target-URI"], body


def write_pages(archives: list[str], path: Path, pages: int) -> int:
    """Writes pages of all archives in turn into one. Returns how many there are."""
    written = 0
    with open(path, "wb") as out:
        writer = WarcWriter(out, "benchmarks/small_run.py")
        rounds = zip_longest(*map(pages_of, archives))
        for page in islice(filter(None, chain.from_iterable(rounds)), pages):
            writer.page(*page)
            written += 1
    return written


def measured(checkout: str, given: argparse.Namespace, folder: str, shipped: bool) -> Seconds:
    """Runs the recipe once in a new folder. Returns seconds of the processor and of the clock."""
    shutil.rmtree(f"{folder}/run", ignore_errors=True)
    shutil.rmtree(f"{folder}/cache", ignore_errors=True)
    before = dict(os.environ)
    os.environ["PYTHONPATH"] = f"{checkout}/src"
    if shipped:
        cache = Path(folder, "cache")
        cache.mkdir()
        for path in cache_folder().glob("*"):
            if path.name not in ("templates", "kernels"):  # models stay
                (cache / path.name).symlink_to(path)
        shutil.copytree(kernels_folder(), cache / "shipped")
        os.environ |= {"CORPUSMILL_CACHE": str(cache), "NUMBA_CACHE_DIR": str(cache / "shipped")}
    ours = ["-m", "corpusmill", "run", f"{folder}/recipe.yaml", f"{folder}/pages.warc.gz", "--output", f"{folder}/run"]
    try:
        return command([*ours, "--workers", str(given.workers)], f"{folder}/nothing", "all")
    finally:
        os.environ.clear()
        os.environ.update(before)


def processor() -> str:
    names = re.findall(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return f"{names[0] if names else platform.processor()}, {len(os.sched_getaffinity(0))} cores"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archives", nargs="+")
    parser.add_argument("--pages", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--against", help="another checkout")
    parser.add_argument("--folder", help="where the runs are made (a temporary folder)")
    given = parser.parse_args()
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    checkouts = {"here": str(Path(__file__).resolve().parents[1])} | ({"there": given.against} if given.against else {})
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        pages = write_pages(given.archives, Path(folder, "pages.warc.gz"), given.pages)
        Path(folder, "recipe.yaml").write_text(Recipe({"ingest": {}, **SECTIONS}).to_yaml())
        print(f"{pages} pages, {Path(folder, 'pages.warc.gz').stat().st_size / 1e6:.1f} MB of WARC.gz; {processor()}", flush=True)
        for checkout in checkouts.values():
            measured(checkout, given, folder, shipped=False)
        for what in ("warm", "shipped"):
            found: dict[str, list[Seconds]] = {name: [] for name in checkouts}
            for _ in range(given.repeats):
                for name, checkout in checkouts.items():
                    found[name].append(measured(checkout, given, folder, shipped=what == "shipped"))
            for name, seconds in found.items():
                clock, cpu = sorted(wall for _, wall in seconds), sorted(used for used, _ in seconds)
                each = "  ".join(f"{wall:.1f}" for wall in clock)
                print(f"  {what:8} {name:6} {median(clock):6.1f} s of the clock, {median(cpu):6.1f} s of processors  ({each})", flush=True)


if __name__ == "__main__":
    main()
