"""Makes documents for the benchmarks of deduplication, read from files or generated from a text, and writes them as a finished `ingest`."""

import json
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from corpusmill.pipeline.manifest import Manifest, TaskRow
from corpusmill.pipeline.schemas import DOCUMENTS, document_id
from corpusmill.pipeline.shards import Content, publish
from corpusmill.pipeline.storage import Storage


def read_texts(paths: Sequence[str], count: int = 0) -> list[str]:
    """Reads the texts of Parquet (files or folders) and JSONL files; from a plain text, generates `count` documents of its sentences."""
    texts: list[str] = []
    for path in _files(paths):
        if path.suffix == ".parquet":
            texts += pq.read_table(path, columns=["text"])["text"].to_pylist()
        elif path.suffix == ".jsonl":
            texts += [json.loads(line)["text"] for line in path.read_text().splitlines() if line.strip()]
        else:
            texts += mutated(path.read_text(), count)
    return texts


def _files(paths: Sequence[str]) -> Iterator[Path]:
    for path in map(Path, paths):
        yield from sorted(path.glob("*.parquet")) if path.is_dir() else [path]


def mutated(text: str, count: int, seed: int = 1) -> list[str]:
    """Generates documents of a dozen sentences; three in ten are earlier documents with up to a tenth of the words changed."""
    draw = random.Random(seed)
    sentences = [s for s in re.split(r"(?<=\.)\s+", text) if len(s.split()) > 4]
    documents: list[str] = []
    for _ in range(count):
        if documents and draw.random() < 0.3:
            share = draw.choice([0.0, 0.005, 0.01, 0.02, 0.05, 0.1])
            words = draw.choice(documents).split(" ")
            documents.append(" ".join(f"changed{draw.randrange(10**6)}" if draw.random() < share else word for word in words))
        else:
            documents.append(" ".join(draw.choices(sentences, k=draw.randint(6, 20))))
    return documents


def number_id(number: int, text: str) -> str:
    """Returns the id that `write_texts` gives to document `number`."""
    return document_id(str(number), text.encode())


def write_texts(root: Path, texts: Sequence[str], shards: int) -> Storage:
    """Writes a run whose `ingest` stage is finished with these documents, in this order."""
    size = -(-len(texts) // shards)
    empty: dict[str, Any] = dict.fromkeys(DOCUMENTS.names)

    def tables() -> Iterator[tuple[pa.Table, int]]:
        for first in range(0, shards * size, size):
            rows = [
                {**empty, "id": number_id(i, text), "source": "benchmark", "offset": i, "text": text}
                for i, text in enumerate(texts[first : first + size], first)
            ]
            yield pa.Table.from_pylist(rows, schema=DOCUMENTS), len(rows)

    return write_upstream(root, tables())


def write_upstream(root: Path, shards: Iterator[tuple[Content, int]]) -> Storage:
    """Writes a run whose `ingest` stage is finished with these shards (Parquet and number of rows); holds one shard in memory at a time."""
    run = Storage(str(root))
    manifest = Manifest(run.child("ingest"))
    keys = []
    for number, (content, rows) in enumerate(shards):
        key = f"part-{number:05d}"
        output = publish(run.child("ingest"), f"data/{key}.parquet", content)
        manifest.append(TaskRow(key, key, [], "", "", rows, rows, 0, 0, [output]))
        keys.append(key)
    manifest.finish(keys)
    return run
