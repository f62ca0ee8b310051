"""Compares extraction with its peers: quality on pages with known main text, and speed.

    pip install -e '.[fit]'
    python benchmarks/extraction.py GOLD_FOLDER

GOLD_FOLDER is described in `gold.py`. Quality is shown for scorers that have seen no page of the site (five folds), and
for the one that ships, which was fitted to these very pages. Speed is that of the whole stage, WARC.gz in, Parquet and
report out, on one core, next to trafilatura alone on the decoded bodies: CPU seconds of this process and its children.
"""

import argparse
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import fit_extraction
import gold
import trafilatura
from gold import GoldPage
from resiliparse.extract.html2text import extract_plain_text

from corpusmill.ingest.config import ExtractionConfig
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
    examples = [fit_extraction.Example(page) for page in pages]
    held_out = fit_extraction.texts_at(examples, fit_extraction.held_out_scores(examples), config.keep_score)
    print(f"{'corpusmill, sites not seen':28} {gold.quality(held_out, pages)}")
    shipped = {page.url: extract_page(page.html, None, config).text for page in pages}
    print(f"{'corpusmill as it ships':28} {gold.quality(shipped, pages)}")
    for name, extract in PEERS.items():
        print(f"{name:28} {gold.quality({page.url: extract(page) for page in pages}, pages)}", flush=True)


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
