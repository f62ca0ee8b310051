"""Token shards of given documents, written as the tokens stage writes them."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.pipeline.packing import plan
from corpusmill.pipeline.shards import publish
from corpusmill.pipeline.special_tokens import EOT_ID
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_shards import (
    INDEX,
    SHARDS_FILE,
    PackingFile,
    ShardSet,
    TokenShard,
    plan_bytes,
    plan_name,
    shard_contents,
    shard_names,
    token_dtype,
)


def write_token_set(
    folder: str | Path,
    shards: Sequence[Sequence[Sequence[int] | npt.NDArray[Any]]],
    vocabulary_size: int = 4096,
    tokenizer: str = "f" * 64,
    pack: Sequence[int] = (),
    split: str = "train",
) -> ShardSet:
    """Writes a set; `shards` are lists of documents, each a list of ids that ends with 0; the id of a document is `shard/row`."""
    storage, written = Storage(str(folder)), []
    for number, documents in enumerate(shards):
        dtype = token_dtype(vocabulary_size)
        tokens = np.concatenate([np.array([], dtype), *(np.asarray(document, dtype) for document in documents)])
        counts = np.array([len(document) for document in documents], np.int64)
        rows = len(documents)
        index = pa.table({
            "id": [f"{number}/{row}" for row in range(rows)], "first": np.cumsum(counts) - counts, "tokens": counts,
            "utf8_bytes": 10 * counts, "url": [f"http://site.test/{number}/{row}" for row in range(rows)],
            "source": ["crawl.warc.gz"] * rows, "offset": [100 * row for row in range(rows)], "length": [90] * rows,
            "data_file": ["dedup/data/part-00000.parquet"] * rows, "data_row": range(rows), "text_begin": [0] * rows,
            "copy": [0] * rows, "cluster_id": [None] * rows, "language": [None] * rows,
        }).cast(INDEX)  # fmt: skip
        outputs = {name: publish(storage, name, content) for name, content in shard_contents(number, tokens, index).items()}
        file, index_file = shard_names(number)
        plans = []
        for length in pack:
            table, packed = plan(counts, length)
            output = publish(storage, plan_name(file, length), plan_bytes(table))
            plans.append(PackingFile(length, output.path, packed, output.bytes, output.sha256))
        hashes = outputs[file].sha256, outputs[index_file].sha256
        written.append(TokenShard(file, index_file, len(tokens), rows, 10 * len(tokens), *hashes, plans=tuple(plans)))
    found = ShardSet(token_dtype(vocabulary_size).name, vocabulary_size, tokenizer, split, tuple(written), 0)
    storage.write_bytes(SHARDS_FILE, found.to_json())
    return found


def random_documents(shards: int, documents: int, longest: int, seed: int = 0, vocabulary_size: int = 4096) -> list[list[list[int]]]:
    """Returns documents of 1 to `longest` tokens, END_OF_TEXT included."""
    rng = np.random.default_rng(seed)
    return [[[*rng.integers(4, vocabulary_size, rng.integers(0, longest)).tolist(), 0] for _ in range(documents)] for _ in range(shards)]


def flat(shards: Sequence[Sequence[Sequence[int]]]) -> list[int]:
    return [token for documents in shards for document in documents for token in document]


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class TokenArray:
    """Ids in memory (uint16 or uint32), with what a loader of windows reads of token shards."""

    end_of_text_id = EOT_ID

    def __init__(self, ids: npt.NDArray[Any]):
        self.ids, self.starts = np.ascontiguousarray(ids), np.array([0, len(ids)], np.int64)

    def __len__(self) -> int:
        return len(self.ids)

    def map(self, numbers: Iterable[int]) -> None:
        """Does nothing, as the array is in memory."""

    def window(self, start: int, length: int) -> npt.NDArray[Any]:
        return self.ids[start : start + length]
