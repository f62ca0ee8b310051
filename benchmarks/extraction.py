"""Compares extraction with its peers: quality on pages with known main text, and speed.

    pip install -e '.[fit]'
    python benchmarks/extraction.py GOLD_FOLDER

GOLD_FOLDER is described in `gold.py`. Quality is shown for models that have seen no page of the site (five folds), and for the
one that ships, which was fitted to these very pages: word F1 by page type, the other sets, the confusion of page types, and
title, author and date next to trafilatura's and htmldate's. Speed is that of the whole stage, WARC.gz in, Parquet and
report out, on one core, next to trafilatura alone on the decoded bodies: CPU seconds of this process and its children.
"""

import argparse
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fit_extraction
import gold
import trafilatura
from gold import GoldPage
from resiliparse.extract.html2text import extract_plain_text

from corpusmill.ingest.config import ExtractionConfig
from corpusmill.ingest.html.page_type import TYPES
from corpusmill.ingest.pages import extract_page
from ingest import cpu_seconds, ours


def resiliparse_alone(page: GoldPage) -> str:
    text: str = extract_plain_text(
        page.html, main_content=True, alt_texts=False, links=False, form_fields=False, noscript=False, comments=False, post_meta=False
    )
    return text


PEERS: dict[str, Callable[[GoldPage], str]] = {
    f"trafilatura {trafilatura.__version__}": lambda page: trafilatura.extract(page.body) or "",
    "trafilatura, precision": lambda page: trafilatura.extract(page.body, favor_precision=True) or "",
    "trafilatura, no comments": lambda page: trafilatura.extract(page.body, include_comments=False, deduplicate=False) or "",
    "resiliparse, main content": resiliparse_alone,
}


def show_quality(pages: list[GoldPage]) -> None:
    config = ExtractionConfig()
    texts, types = fit_extraction.held_out_texts(fit_extraction.examples_of(pages), config)
    shipped = {page.url: extract_page(page.html, page.url, config) for page in pages}
    without_blocks = {url: found.text for url, found in shipped.items() if url not in texts}  # from their data, which no net reads
    show("corpusmill, sites not seen", texts | without_blocks, pages)
    show("corpusmill as it ships", {url: found.text for url, found in shipped.items()}, pages)
    for name, extract in PEERS.items():
        show(name, {page.url: extract(page) for page in pages}, pages)
    show_types(types, pages)
    show_metadata({url: (found.title, found.author, found.date) for url, found in shipped.items()}, pages)


def show(name: str, texts: dict[str, str], pages: list[GoldPage]) -> None:
    print(f"{name}\n  {gold.quality_by_type(texts, pages)}\n  {gold.quality(texts, pages)}", flush=True)


def show_types(types: dict[str, Any], pages: list[GoldPage]) -> None:
    """Prints how many pages of each type (rows) are held for each type (columns) by models that have not seen the site."""
    counts = Counter((page.type, TYPES[int(types[page.url].argmax())]) for page in pages if page.set == "wcxb_dev" and page.url in types)
    print(f"{'':14}" + "".join(f"{name[:6]:>7}" for name in TYPES))
    for row in TYPES:
        print(f"{row:14}" + "".join(f"{counts[row, column]:7}" for column in TYPES))
    print(f"right: {sum(counts[name, name] for name in TYPES) / counts.total():.3f}")


def show_metadata(ours: dict[str, tuple[str | None, str | None, str | None]], pages: list[GoldPage]) -> None:
    """Prints for title, author and date how often a value is right where the gold has one, and how often there is one where it has none."""
    import htmldate

    chosen = [page for page in pages if page.set == "wcxb_dev"]
    theirs = {page.url: trafilatura.extract_metadata(page.body, default_url=page.url) for page in chosen}
    of_trafilatura = {url: (found.title, found.author, found.date) if found else (None,) * 3 for url, found in theirs.items()}
    of_htmldate = {page.url: (None, None, htmldate.find_date(page.html, url=page.url)) for page in chosen}
    for place, name in enumerate(("title", "author", "date")):
        for peer, values in (("corpusmill", ours), ("trafilatura", of_trafilatura), ("htmldate", of_htmldate)):
            given = [(values[page.url][place], getattr(page, name)) for page in chosen]
            wanted = [agrees(name, value, right) for value, right in given if right]
            extra = [bool(value) for value, right in given if not right]
            if any(value for value, _ in given):
                shares = f"right {sum(wanted) / len(wanted):.3f} of {len(wanted)}, given without gold {sum(extra)} of {len(extra)}"
                print(f"{name:7} {peer:12} {shares}")


def agrees(name: str, value: str | None, right: str) -> bool:
    """Whether a value is the gold's: dates by their first ten characters, others where one holds all words of the other."""
    if not value:
        return False
    ours, theirs = set(gold.words(value)), set(gold.words(right))
    return value[:10] == right[:10] if name == "date" else bool(ours and theirs) and (ours <= theirs or theirs <= ours)


#: Repetitions of a set in the input of the stage, so that pages dominate the start-up time, which is also shown.
COPIES = 10


def show_speed(folder: Path, pages: list[GoldPage]) -> None:
    for name in gold.SETS:
        path = folder / f"{name}.warc.gz"
        timed_stage(path, 1)  # imports, and compiled code
        one, few = timed_stage(path, 1)
        all_seconds, many = timed_stage(path, COPIES)
        speed = (many - few) / (all_seconds - one)
        chosen = [page for page in pages if page.set == name]
        started = cpu_seconds()
        for page in chosen:
            trafilatura.extract(page.body)
        slow = len(chosen) / (cpu_seconds() - started)
        print(
            f"{name:12} the whole stage {speed:5.0f} pages/s (and {one - few / speed:.1f} s to start), trafilatura alone {slow:3.0f}: "
            f"{speed / slow:.1f} times",
            flush=True,
        )


def timed_stage(path: Path, copies: int) -> tuple[float, int]:
    """Returns CPU seconds and pages of the stage on `copies` copies of a WARC."""
    with tempfile.TemporaryDirectory() as folder:
        for number in range(copies):
            shutil.copy(path, Path(folder) / f"{number}.warc.gz")
        started = cpu_seconds()
        count = ours([folder])
        return cpu_seconds() - started, count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--speed-only", action="store_true")
    options = parser.parse_args()
    pages = gold.load(options.folder)
    show_speed(options.folder, pages)
    if not options.speed_only:
        show_quality(pages)


if __name__ == "__main__":
    main()
