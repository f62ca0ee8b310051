"""Compares reading of records with FastWARC's own iteration and warcio, on one core, on the same files.

    python benchmarks/warc.py CRAWL.warc.gz... [--rounds 5]

All three read every record with its body. FastWARC parses HTTP headers as it goes (`parse_http=True`); corpusmill also gives exact
offsets and lengths and checks each record's place. The second pair also takes type, URL and date of each record.
Prints CPU seconds (the best of all rounds, taken in turns), records and decompressed MB a second, and ratios.
"""

import argparse
import logging
import os
import time
from collections.abc import Callable

from fastwarc.warc import ArchiveIterator

from corpusmill.ingest.archive_walk import examine
from corpusmill.ingest.warc import Record, read_records
from corpusmill.pipeline.files import file_ref
from corpusmill.pipeline.formats.detect import InputFile

Counted = tuple[int, int]


def ours(sources: list[InputFile], fields: bool) -> Counted:
    count = size = 0
    for source in sources:
        with open(source.ref.path, "rb") as file:
            for record in read_records(file, source.format, source.layout, 0, source.ref.bytes, 1 << 30):
                if isinstance(record, Record):
                    count += 1
                    size += len(record.body)
                    if fields:
                        _ = record.type, record.url, record.timestamp
    return count, size


def by_fastwarc(sources: list[InputFile], fields: bool) -> Counted:
    count = size = 0
    for source in sources:
        with open(source.ref.path, "rb") as file:
            for record in ArchiveIterator(file, parse_http=True):
                count += 1
                size += len(record.reader.read())
                if fields:
                    headers = record.headers
                    _ = headers.get("WARC-Type"), headers.get("WARC-Target-URI"), headers.get("WARC-Date")
    return count, size


def by_warcio(sources: list[InputFile], fields: bool) -> Counted:
    from warcio.archiveiterator import ArchiveIterator as Warcio

    count = size = 0
    for source in sources:
        with open(source.ref.path, "rb") as file:
            for record in Warcio(file):
                count += 1
                size += len(record.raw_stream.read())
                if fields:
                    headers = record.rec_headers
                    _ = record.rec_type, headers.get_header("WARC-Target-URI"), headers.get_header("WARC-Date")
    return count, size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    logging.disable()  # warcio's warnings about URLs
    sources = [found for path in options.paths if isinstance(found := examine(file_ref(path)), InputFile)]
    megabytes = sum(os.path.getsize(source.ref.path) for source in sources) / 1e6
    print(f"{len(sources)} files, {megabytes:,.1f} MB: {', '.join(sorted({f'{s.format} {s.layout}' for s in sources}))}")
    for fields in (False, True):
        readers: dict[str, Callable[[list[InputFile], bool], Counted]] = {"FastWARC": by_fastwarc, "corpusmill": ours}
        best = dict.fromkeys(readers, float("inf"))
        counted: dict[str, Counted] = {}
        for _ in range(options.rounds):
            for name, reader in readers.items():
                started = time.process_time()
                counted[name] = reader(sources, fields)
                best[name] = min(best[name], time.process_time() - started)
        started = time.process_time()
        counted["warcio"] = by_warcio(sources, fields)
        best["warcio"] = time.process_time() - started
        print("with type, URL and date:" if fields else "with bodies:")
        for name, seconds in best.items():
            count, _ = counted[name]
            print(f"  {name:12} {count:9,} records {seconds:8.3f} CPU s {count / seconds:10,.0f} records/s {megabytes / seconds:7.1f} MB/s")
        ratios = {name: best[name] / best["corpusmill"] for name in ("FastWARC", "warcio")}
        print(f"  corpusmill is {ratios['FastWARC']:.2f} times FastWARC and {ratios['warcio']:.1f} times warcio")


if __name__ == "__main__":
    main()
