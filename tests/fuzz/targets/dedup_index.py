"""Fuzzes an index of earlier crawls with one arbitrary file: its entries, or one sentence."""

import contextlib
import json
from functools import cache
from pathlib import Path

from fuzzing import changed, choose, choosing, json_mutants, scratch

from corpusmill.dedup.config import DedupConfig
from corpusmill.dedup.index import DECISIONS, CrawlIndex, decisions, kept_ids, parameters
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.shards import publish
from corpusmill.pipeline.storage import Storage

CONFIG = DedupConfig.model_validate({"index": {"path": "index", "name": "two"}})
FILES = ["index.json", "one/entry.json", "one/decisions.parquet"]


@cache
def sound() -> Path:
    storage = Storage(str(scratch() / "index"))
    rows = DECISIONS.empty_table().from_pylist([{"entry": "one", "shard": "a", "row": 0, "id": "x", "kept": False}], DECISIONS)
    output = publish(storage, "one/decisions.parquet", rows)
    ref = {"path": output.path, "fingerprint": output.sha256, "bytes": output.bytes}
    shard = {"name": "a", "rows": 1, "texts": None, "signatures": ref, "keys": {"near": ref}, "entry": "one"}
    entry = {"name": "one", "number": 0, "documents": "d", "columns": ["url"], "shards": [shard], "decisions": ref}
    storage.write_bytes("one/entry.json", json.dumps(entry).encode())
    storage.write_bytes("index.json", json.dumps({"parameters": parameters(CONFIG)}).encode())
    return Path(storage.root)


def seeds() -> list[bytes]:
    contents = [(sound() / name).read_bytes() for name in FILES]
    return [choosing(place, content) for place, content in enumerate(contents)] + [
        choosing(place, changed) for place in (0, 1) for changed in json_mutants(f"index {place}", json.loads(contents[place]), 10)
    ]


def fuzz(data: bytes) -> None:
    name, content = choose(data, FILES)
    with changed(sound(), name, content) as folder:
        index = CrawlIndex(str(folder))
        with contextlib.suppress(InputError):
            index.check(CONFIG)
        with contextlib.suppress(InputError):
            entries = index.entries()
            for entry in entries:
                refs = [entry.decisions, *(shard.signatures for shard in entry.shards)]
                assert all(Path(ref.path).resolve().is_relative_to(folder.resolve()) for ref in refs), "a file lies outside the index"
            assert decisions(entries).schema.names == DECISIONS.names
        with contextlib.suppress(InputError):
            kept_ids(str(folder))
