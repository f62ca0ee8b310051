"""Speed of the filter kernels and steps against datatrove's filters: one process, one core, the same documents.

    python benchmarks/filters.py DOCUMENTS.jsonl [MORE.parquet ...] [--megabytes 20] [--reference-megabytes 2]

datatrove runs with `re.findall` for its tokenizer, and also with its own (spaCy) where that is installed. Every filter
sees every document (no early exit), as ours do. Times are CPU times; the best of several repetitions counts for both.
"""

import argparse
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from corpusmill.filters.gopher_quality import STOP_WORDS
from corpusmill.filters.models import language_model
from corpusmill.filters.stage import FilterConfig, FilterWorker
from corpusmill.filters.statistics import LINES, NEWLINE_LINES, REPETITION, WORDS, Needs, measure
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.schemas import DOCUMENTS
from corpusmill.pipeline.storage import Storage

REPETITIONS = 3


def read_texts(paths: list[Path]) -> Iterator[str]:
    for path in paths:
        if path.suffix == ".parquet":
            yield from pq.read_table(path, columns=["text"])["text"].to_pylist()
        else:
            with path.open() as file:
                yield from (json.loads(line)["text"] for line in file)


def up_to(texts: list[str], megabytes: float) -> list[str]:
    """The documents, repeated or cut to about so much text."""
    chosen: list[str] = []
    size = 0
    while size < megabytes * 1e6:
        for text in texts:
            chosen.append(text)
            size += len(text.encode())
            if size >= megabytes * 1e6:
                break
    return chosen


def speed(function: Callable[[], Any], megabytes: float) -> float:
    """MB of text a second of CPU time, the best of some repetitions; the first call (compiling) is not counted."""
    function()
    times = []
    for _ in range(REPETITIONS):
        started = time.process_time()
        function()
        times.append(time.process_time() - started)
    return megabytes / min(times)


def worker(steps: list[Any]) -> FilterWorker:
    worker = FilterWorker(FilterConfig.model_validate({"steps": steps}), Storage("."), {})
    worker.setup()
    return worker


def ours(texts: list[str]) -> dict[str, Callable[[], Any]]:
    column = pa.array(texts, pa.large_string())
    rows = [dict.fromkeys(DOCUMENTS.names) | {"id": str(n), "source": "", "text": text} for n, text in enumerate(texts)]
    documents, shard = pa.Table.from_pylist(rows, schema=DOCUMENTS), FileRef("", "")
    gopher = Needs(WORDS | LINES | REPETITION, STOP_WORDS)
    everything = Needs(gopher.groups | NEWLINE_LINES, STOP_WORDS, 30)
    workers = {
        "gopher": worker(["gopher_repetition", "gopher_quality"]),
        "fineweb": worker(["fineweb_quality"]),
        "language": worker(["language"]),
        "all": worker(
            ["language", "gopher_repetition", "gopher_quality", {"c4": {"filter_no_terminal_punct": False}}, "fineweb_quality", "quality"]
        ),
    }
    return {
        "kernels, Gopher": lambda: measure(column, "words", gopher),
        "kernels, Gopher and FineWeb": lambda: measure(column, "words", everything),
        "steps, Gopher": lambda: workers["gopher"].filter(documents, shard),
        "steps, FineWeb quality": lambda: workers["fineweb"].filter(documents, shard),
        "steps, language": lambda: workers["language"].filter(documents, shard),
        "steps, FineWeb's chain and quality": lambda: workers["all"].filter(documents, shard),
    }


def datatrove_filters(words: Callable[..., list[str]] | None) -> dict[str, list[Any]]:
    """datatrove's filters by family; with `words` for their tokenizer where given, else with their own."""
    from datatrove.pipeline.filters import (
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
        fineweb_quality_filter,
        gopher_quality_filter,
        gopher_repetition_filter,
    )
    from datatrove.utils.text import split_into_words

    for module in (fineweb_quality_filter, gopher_quality_filter, gopher_repetition_filter):
        module.split_into_words = words or split_into_words
    return {"Gopher": [GopherRepetitionFilter(), GopherQualityFilter(min_doc_words=1)], "FineWeb quality": [FineWebQualityFilter()]}


def every_value(filters: list[Any]) -> None:
    """Takes the thresholds away, so that no filter stops before its last value: each document costs what all values cost."""
    for rule in filters:
        for name, value in vars(rule).items():
            if name.startswith(("max_", "dup_")) and isinstance(value, int | float):
                setattr(rule, name, 1e9)
            elif name.startswith("min_") and value is not None:
                setattr(rule, name, -1)
        for name in ("top_n_grams", "dup_n_grams"):
            if hasattr(rule, name):
                setattr(rule, name, tuple((n, 1e9) for n, _ in getattr(rule, name)))
        for name, value in {"line_punct_thr": -1, "short_line_threshold": 2, "char_duplicates_ratio": 1e9, "new_line_ratio": 1e9}.items():
            if hasattr(rule, name):
                setattr(rule, name, value)


def references(texts: list[str]) -> Iterator[tuple[str, str, Callable[[], Any]]]:
    """`(family, what, function)` of each peer."""
    from datatrove.data import Document
    from fasttext.FastText import _FastText

    documents = [Document(text=text, id="") for text in texts]
    find = re.compile(r"\w+|[^\w\s]").findall

    def run(filters: list[Any]) -> None:
        for rule in filters:
            for document in documents:
                rule.filter(document)

    tokenizers: dict[str, Callable[..., list[str]] | None] = {"regex words": lambda text, language: find(text)}
    try:
        import spacy  # noqa: F401

        tokenizers["its own words (spaCy)"] = None
    except ImportError:
        print("datatrove with its own tokenizer: spaCy is not installed, so left out")
    for what, words in tokenizers.items():
        for family, filters in datatrove_filters(words).items():
            every_value(filters)
            yield family, f"datatrove {family}, {what}", lambda filters=filters: run(filters)
    model = _FastText(language_model())
    yield "language", "datatrove language (fastText a document, k=-1)", lambda: [model.predict(t.replace("\n", " "), k=-1) for t in texts]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+", help="JSONL or Parquet files with a column text")
    parser.add_argument("--megabytes", type=float, default=20, help="text for ours")
    parser.add_argument("--reference-megabytes", type=float, default=2, help="text for the peers, the first of the same documents")
    arguments = parser.parse_args()
    source = [text for text in read_texts(arguments.data) if text.strip()]
    texts, few = up_to(source, arguments.megabytes), up_to(source, arguments.reference_megabytes)
    size, few_size = (sum(len(text.encode()) for text in some) / 1e6 for some in (texts, few))
    print(f"{len(texts)} documents, {size:.1f} MB; for the peers {len(few)} documents, {few_size:.1f} MB")
    speeds = {}
    for what, function in ours(texts).items():
        speeds[what] = speed(function, size)
        print(f"{what:50s} {speeds[what]:8.1f} MB/s")
    for family, what, function in references(few):
        reference = speed(function, few_size)
        print(f"{what:50s} {reference:8.1f} MB/s   ours ({family}): {speeds[f'steps, {family}'] / reference:.1f} times as fast")


if __name__ == "__main__":
    main()
