"""Compares the URL filter with datatrove's on 100,000 URLs: verdicts, speed, and memory of the lists.

    python benchmarks/urls.py [CRAWL.warc.gz...] [--urls 100000] [--workers 4]

Paths are those of the crawl (or made up), a fifth of the hosts is on the lists, and every URL has another host, which is
the harder case. The speed for URLs in the order of the crawl, where a site's pages follow each other, is printed too.
Each filter runs in a process of its own; CPU seconds, one core. Needs the test extra.
"""

import argparse
import json
import random
import re
import subprocess
import sys
import tarfile
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from corpusmill.ingest.urls.filter import DATATROVE_REASONS, UrlFilter, UrlFilterConfig
from corpusmill.ingest.urls.lists import shipped_sources

Filter = Callable[[str], str | None]


def crawled(paths: list[str]) -> Iterator[str]:
    """Yields the URLs of the responses."""
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    for path in paths:
        with open(path, "rb") as file:
            for record in ArchiveIterator(file, record_types=WarcRecordType.response, parse_http=False):
                yield (record.headers.get("WARC-Target-URI") or "").strip("<>")


def scattered(paths: list[str], count: int) -> list[str]:
    """Returns `count` URLs of as many hosts, the same in every run."""
    chance = random.Random(0)
    domains, urls, *words = (list(source.entries()) for source in shipped_sources())
    some = [word for kind in words for word in kind]
    listed = chance.sample(domains, count // 5)
    made: list[str] = []
    for number in range(count):
        name = "".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(4, 14)))
        host = listed[number] if number < len(listed) else f"{name}.{chance.choice(['com', 'org', 'de', 'co.uk', 'com.br', 'ru'])}"
        path = chance.choice(paths) if paths else f"/{name}/{number}/index.html"
        if chance.random() < 0.03:
            path += "/" + "-".join(chance.choices(some, k=2))
        made.append(f"{chance.choice(['http', 'https'])}://{chance.choice(['', 'www.', 'blog.'])}{host}{path}")
    made[::500] = chance.choices(urls, k=len(made[::500]))
    chance.shuffle(made)
    return made


def ours(preset: str) -> Filter:
    made = UrlFilter(UrlFilterConfig.model_validate({"preset": preset}))
    made.setup()

    def reason(url: str) -> str | None:
        failures = made.failures(url)
        return DATATROVE_REASONS[failures[0].rule] if failures else None

    return reason


def datatroves(folder: str) -> Filter:
    """Returns datatrove's filter with the suffixes that ship with tldextract; its lists are already unpacked in `folder`."""
    from datatrove.data import Document
    from datatrove.pipeline.filters import url_filter
    from tldextract import TLDExtract

    url_filter.cached_assets_path = lambda **_: folder
    made = url_filter.URLFilter()
    made.tldextractor = TLDExtract(cache_dir=None, suffix_list_urls=())
    made.download_data()

    def reason(url: str) -> str | None:
        verdict = made.filter(Document(text="", id="", metadata={"url": url}))
        return None if verdict is True else verdict[1]

    return reason


def memory() -> dict[str, int]:
    """Returns resident, proportional, private and peak resident memory of this process (MB)."""
    text = Path("/proc/self/smaps_rollup").read_text() + Path("/proc/self/status").read_text()
    kb = {name: int(value) for name, value in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}
    return {
        "rss": kb["Rss"] // 1000,
        "pss": kb["Pss"] // 1000,
        "private": (kb["Private_Clean"] + kb["Private_Dirty"]) // 1000,
        "peak": kb["VmHWM"] // 1000,
    }


def measure(kind: str, folder: str) -> None:
    """Runs one filter: prints its results, then waits until it may end."""
    warnings.simplefilter("ignore")
    urls = json.loads(Path(folder, "urls.json").read_text())
    before, started = memory(), time.process_time()
    reason = datatroves(folder) if kind == "datatrove's" else ours(kind)
    reason("http://example.com/")
    told: dict[str, Any] = {"load_seconds": time.process_time() - started, "before": before}
    for name, some in urls.items():
        started = time.process_time()
        found = [reason(url) for url in some if url]
        told[name] = {"seconds": time.process_time() - started, "reasons": found}
    print(json.dumps(told | {"after": memory()}), flush=True)
    sys.stdin.readline()
    print(json.dumps(memory()), flush=True)
    sys.stdin.readline()


def start(kind: str, folder: str) -> "subprocess.Popen[str]":
    command = [sys.executable, __file__, "--measure", kind, "--folder", folder]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def tell(process: "subprocess.Popen[str]") -> Any:
    assert process.stdout is not None
    return json.loads(process.stdout.readline())


def go_on(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def run(kind: str, folder: str) -> dict[str, Any]:
    process = start(kind, folder)
    told: dict[str, Any] = tell(process)
    process.communicate("\n\n")
    before, after = told["before"], told["after"]
    memories = f"+{after['rss'] - before['rss']:4} MB resident (peak {after['peak']:4} MB)"
    speeds = [f"{len(told[n]['reasons']) / told[n]['seconds']:9,.0f} URLs/s {n}" for n in ("scattered", "crawl") if told[n]["reasons"]]
    print(f"{kind:12} loads in {told['load_seconds']:5.2f} CPU s, {memories} {' '.join(speeds)}", flush=True)
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*")
    parser.add_argument("--urls", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        return measure(options.measure, options.folder)
    started = time.process_time()
    for preset in ("datatrove", "corpusmill"):
        ours(preset)
    print(f"both presets' lists are in the cache ({time.process_time() - started:.1f} CPU s; a few milliseconds once they are)")
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(shipped_sources()[0].path) as archive:
            archive.extractall(folder, filter="data")
        Path(folder, "url_filterblacklistsv0_3_0.tar.gz.completed").touch()
        crawl = list(crawled(options.paths))
        tails = ["/" + url.split("/", 3)[3] for url in crawl if url.count("/") > 2]
        Path(folder, "urls.json").write_text(json.dumps({"scattered": scattered(tails, options.urls), "crawl": crawl}))
        compare(folder)
        share(folder, options.workers)
    return None


def compare(folder: str) -> None:
    told = {kind: run(kind, folder) for kind in ("datatrove's", "datatrove", "corpusmill")}
    peer, own = (told[kind]["scattered"]["reasons"] + told[kind]["crawl"]["reasons"] for kind in ("datatrove's", "datatrove"))
    same = sum(a == b for a, b in zip(peer, own, strict=True))
    print(f"same verdict and reason under the preset datatrove: {same:,} of {len(peer):,} URLs ({same / len(peer):.4%})")
    print("  " + ", ".join(f"{name or 'kept'} {count:,}" for name, count in Counter(peer).most_common()))
    for name in ("scattered", "crawl"):
        if told["datatrove's"][name]["reasons"]:
            ratios = [told["datatrove's"][name]["seconds"] / told[kind][name]["seconds"] for kind in ("datatrove", "corpusmill")]
            print(f"ratio of speed to datatrove's, {name}: {ratios[0]:.2f} (preset datatrove), {ratios[1]:.2f} (corpusmill)")


def share(folder: str, workers: int) -> None:
    """Prints the private memory of each of several processes while all have the lists open."""
    Path(folder, "urls.json").write_text('{"scattered": [], "crawl": []}')
    for kind in ("datatrove", "datatrove's"):
        processes = [start(kind, folder) for _ in range(workers)]
        before = [tell(process)["before"] for process in processes]
        for process in processes:
            go_on(process)
        after = [tell(process) for process in processes]
        for process in processes:
            process.communicate("\n")
        grown = {name: sum(a[name] - b[name] for a, b in zip(after, before)) / workers for name in ("rss", "private")}
        total = sum(a["pss"] for a in after)
        print(
            f"{workers} workers with {kind:12} each +{grown['rss']:4.0f} MB resident, of which {grown['private']:4.0f} MB are its own; "
            f"together {total:,} MB (PSS)"
        )


if __name__ == "__main__":
    main()
