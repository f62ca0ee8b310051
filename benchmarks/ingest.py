"""Compares ingest with loops that people write by hand: WARC.gz to text, on one core.

    python benchmarks/ingest.py CRAWL.warc.gz... [--pages 300]

corpusmill's side is the whole stage in this process: Parquet of documents and a report row for every record. The peers are plain
loops that keep nothing but the texts: warcio with resiliparse, and warcio with trafilatura where it is installed (on
--pages pages from all over the crawl). Prints CPU seconds, pages and compressed MB a CPU second, and the ratios.
"""

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from corpusmill.ingest.stage import IngestStage
from corpusmill.pipeline.engine import InlineEngine
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.progress import Progress


def ours(paths: list[str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        stage = IngestStage(IngestStage.Config())
        run = StageRun(stage, Storage(folder), {"ingest": stage.config}, paths, InlineEngine(), Progress(False))
        run.execute()
        return sum(row.kept for row in run.manifest.rows())


def pages(paths: list[str]) -> Iterator[bytes]:
    """Yields the bodies of HTML responses with status 200, read by warcio."""
    from warcio.archiveiterator import ArchiveIterator

    for path in paths:
        with open(path, "rb") as file:
            for record in ArchiveIterator(file):
                if record.rec_type != "response" or record.http_headers.get_statuscode() != "200":
                    continue
                if (record.http_headers.get_header("Content-Type") or "").startswith("text/html"):
                    yield record.content_stream().read()


def with_resiliparse(paths: list[str]) -> int:
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding

    texts = []
    for body in pages(paths):
        html = bytes_to_str(body, detect_encoding(body, from_html_meta=True))
        text = extract_plain_text(
            html, main_content=True, alt_texts=False, links=False, form_fields=False, noscript=False, comments=False, post_meta=False
        )
        if text.strip():
            texts.append(text)
    return len(texts)


def with_trafilatura(paths: list[str], stride: int) -> int:
    import trafilatura

    done = 0
    for number, body in enumerate(pages(paths)):
        if number % stride == 0:
            trafilatura.extract(body, favor_precision=True, include_comments=False, deduplicate=False)
            done += 1
    return done


def cpu_seconds() -> float:
    """Returns the CPU time of this process and of its ended children, such as the stage's reader process."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def timed(name: str, work: Callable[[], int], size: int | None) -> float:
    """Prints and returns pages a CPU second; CPU time does not depend on the load of the machine."""
    started = cpu_seconds()
    count = work()
    seconds = cpu_seconds() - started
    speed = f"  {size / seconds / 1e6:6.1f} MB/s" if size else ""
    print(f"{name:28} {count:7,} pages  {seconds:7.2f} CPU s  {count / seconds:8,.0f} pages/s{speed}", flush=True)
    return count / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+")
    parser.add_argument("--pages", type=int, default=300, help="pages for trafilatura")
    options = parser.parse_args()
    size = sum(Path(path).stat().st_size for path in options.paths)
    ours(options.paths[:1])  # imports and caches
    speed = timed("corpusmill ingest", lambda: ours(options.paths), size)
    peer = timed("warcio + resiliparse", lambda: with_resiliparse(options.paths), size)
    print(f"ratio to warcio + resiliparse: {speed / peer:.2f}")
    stride = max(1, sum(1 for _ in pages(options.paths)) // options.pages)
    try:
        slow = timed("warcio + trafilatura", lambda: with_trafilatura(options.paths, stride), None)
    except ImportError:
        print("warcio + trafilatura: trafilatura is not installed")
    else:
        print(f"ratio to warcio + trafilatura: {speed / slow:.1f}")


if __name__ == "__main__":
    main()
