"""Compares filter kernels, steps and FineWeb's chain with datatrove, dolma and NeMo Curator: one process, one core, same documents.

    python benchmarks/filters.py DOCUMENTS.parquet [MORE.jsonl ...] [--megabytes 20] [--reference-megabytes 2]
                                 [--dolma PYTHON] [--nemo PYTHON]

datatrove runs with its default words (spaCy) and with `re.findall` for its tokenizer. "All values" means that each filter
computes all of its values, as corpusmill's always do; "early exit" is each filter and the chain as datatrove runs them. dolma and NeMo
Curator need other versions of shared libraries: give the Python of an environment that has them. Times are CPU times, the best of
several repetitions on both sides, after a first call that compiles and fills caches. The chain is also timed cold, on new batches.
"""

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datatrove_filters import Chain, all_values, language_filter, regex_words, stock_words

from corpusmill.filters.gopher import STOP_WORDS
from corpusmill.filters.statistics import LINES, NEWLINE_LINES, REPETITION, WORDS, Needs, measure
from corpusmill.filters.worker import FilterConfig, FilterWorker
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.schemas import DOCUMENTS
from corpusmill.pipeline.storage import Storage

REPETITIONS = 3
GOPHER = Needs(WORDS | LINES | REPETITION, STOP_WORDS)
PEERS = Path(__file__).with_name("filter_peers.py")


def read_texts(paths: list[Path]) -> Iterator[str]:
    for path in paths:
        if path.suffix == ".parquet":
            yield from pq.read_table(path, columns=["text"])["text"].to_pylist()
        else:
            with path.open() as file:
                yield from (json.loads(line)["text"] for line in file)


def up_to(texts: list[str], megabytes: float) -> list[str]:
    """Returns about `size` bytes of text: evenly chosen documents where there is more, all documents repeated where there is less."""
    size = sum(len(text.encode()) for text in texts)
    step = max(int(size / megabytes / 1e6), 1)
    chosen: list[str] = []
    taken = 0
    while True:
        for text in texts[::step]:
            chosen.append(text)
            taken += len(text.encode())
            if taken >= megabytes * 1e6:
                return chosen


def speed(function: Callable[[], Any], megabytes: float, repetitions: int = REPETITIONS) -> float:
    """Returns MB of text a CPU second, the best of some repetitions; the first call (compiling) is not counted."""
    function()
    times = []
    for _ in range(repetitions):
        started = time.process_time()
        function()
        times.append(time.process_time() - started)
    return megabytes / min(times)


def worker(**section: Any) -> FilterWorker:
    made = FilterWorker(FilterConfig.model_validate(section), Storage("."), {})
    made.setup()
    return made


def documents_table(texts: list[str]) -> pa.Table:
    rows = [dict.fromkeys(DOCUMENTS.names) | {"id": str(place), "source": "", "text": text} for place, text in enumerate(texts)]
    return pa.Table.from_pylist(rows, schema=DOCUMENTS)


def ours(texts: list[str]) -> dict[str, Callable[[], Any]]:
    """Returns corpusmill's measured functions by name. A step's time includes its report rows and verdicts."""
    column, documents, shard = pa.array(texts, pa.large_string()), documents_table(texts), FileRef("", "")
    everything = Needs(GOPHER.groups | NEWLINE_LINES, STOP_WORDS, 30)
    gopher = ["gopher_repetition", "gopher_quality"]
    workers = {
        "Gopher, step": worker(steps=gopher),
        "Gopher, step, spaCy's words": worker(steps=gopher, word_rule="spacy"),
        "FineWeb quality, step": worker(steps=["fineweb_quality"]),
        "C4, step": worker(steps=[{"c4": {"preset": "fineweb"}}]),
        "language, step": worker(steps=["language"]),
        "FineWeb's chain": worker(preset="fineweb"),
    }
    kernels: dict[str, Callable[[], Any]] = {
        "Gopher, kernels": lambda: measure(column, "words", GOPHER),
        "Gopher, kernels, spaCy's words": lambda: measure(column, "spacy", GOPHER),
        "Gopher and FineWeb, kernels": lambda: measure(column, "words", everything),
    }
    return kernels | {name: lambda it=it: it.filter(documents, shard) for name, it in workers.items()}  # type: ignore[misc]


def cold_chain(texts: list[str], megabytes: float) -> float:
    """Returns MB/s of FineWeb's chain on new texts: the second half, once, after the first half."""
    chain, shard, middle = worker(preset="fineweb"), FileRef("", ""), len(texts) // 2
    chain.filter(documents_table(texts[:middle]), shard)
    unseen = documents_table(texts[middle:])
    started = time.process_time()
    chain.filter(unseen, shard)
    return sum(len(text.encode()) for text in texts[middle:]) / 1e6 / (time.process_time() - started)


def references(texts: list[str]) -> Iterator[tuple[tuple[str, ...], str, Callable[[], Any]]]:
    """Yields `(corpusmill's function to compare with, name, function)` for each of datatrove's filters."""
    from datatrove.data import Document

    def run(filters: list[Any]) -> None:
        for text in texts:
            document = Document(text=text, id="")
            for rule in filters:
                rule.filter(document)

    for words, name in ((regex_words, "regex words"), (stock_words, "stock")):
        words()
        for family, names in {
            "Gopher": ("Gopher, kernels", "Gopher, step", "Gopher, step, spaCy's words"), "FineWeb quality": ("FineWeb quality, step",)
        }.items():  # fmt: skip
            yield names, f"datatrove {family}, all values, {name}", partial(run, all_values(family))
        yield ("FineWeb's chain",), f"datatrove FineWeb's chain, early exit, {name}", partial(Chain().run, texts)
    yield ("language, step",), "datatrove language", partial(run, [language_filter()])


def other_peers(texts: list[str], pythons: dict[str, str | None]) -> Iterator[tuple[str, float]]:
    """Yields `(name, CPU seconds)` of peers in environments of their own."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "texts.json"
        file.write_text(json.dumps(texts))
        for peer, python in pythons.items():
            if python is None:
                print(f"{peer}: no Python given, so left out")
                continue
            done = subprocess.run([python, PEERS, peer, file], capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"{peer}: failed ({(done.stderr.strip().splitlines() or ['no message'])[-1]}), so left out")
                continue
            yield from json.loads(done.stdout.splitlines()[-1]).items()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+", help="JSONL or Parquet files with a column text")
    parser.add_argument("--megabytes", type=float, default=20, help="text for ours")
    parser.add_argument("--reference-megabytes", type=float, default=2, help="text for the peers, from the same documents")
    parser.add_argument("--dolma", metavar="PYTHON", help="a Python that has dolma")
    parser.add_argument("--nemo", metavar="PYTHON", help="a Python that has nemo-curator")
    arguments = parser.parse_args()
    source = [text for text in read_texts(arguments.data) if text.strip()]
    texts = up_to(source, arguments.megabytes)
    few = up_to(texts, arguments.reference_megabytes)
    size, few_size = (sum(len(text.encode()) for text in some) / 1e6 for some in (texts, few))
    print(f"{len(texts)} documents, {size:.1f} MB; for the peers {len(few)} of them, {few_size:.1f} MB")
    speeds = {"FineWeb's chain, texts not seen before": cold_chain(texts, size)}
    for what, function in ours(texts).items():
        speeds[what] = speed(function, size)
    for what, found in speeds.items():
        print(f"{what:55} {found:8.1f} MB/s")

    def report(what: str, found: float, names: tuple[str, ...]) -> None:
        ratios = ", ".join(f"{name} {speeds[name] / found:.1f}" for name in names)
        print(f"{what:55} {found:8.2f} MB/s   ours are faster by: {ratios}")

    for names, what, function in references(few):
        report(what, speed(function, few_size, repetitions=1), names)
    for what, seconds in other_peers(few, {"dolma": arguments.dolma, "nemo": arguments.nemo}):
        report(what, few_size / seconds, ("Gopher, kernels", "Gopher, step"))


if __name__ == "__main__":
    main()
