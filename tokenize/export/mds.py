"""MosaicML Streaming: MDS shards with a sample a document or a sequence, byte for byte what its `MDSWriter` writes.

Written here because the package that holds `MDSWriter` wants an older numpy and transformers than the rest of a run.
"""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from corpusmill.tokenize.export.format import Format
from corpusmill.tokenize.export.source import Sequences, Source, Stretch

#: Bytes of a shard, as MDSWriter's default: a larger sample is a shard of its own.
SIZE_LIMIT = 1 << 26


class MDS(Format):
    """Columns `id` and `url` (str; empty where there is none) and `tokens` (one-dimensional ndarray). Sequences have their
    `position` in the split (int) instead of id and URL."""

    has_rows: ClassVar[bool] = True
    wide: ClassVar[str] = "uint32"

    def write(self, source: Source, folder: Path) -> None:
        (folder / source.split).mkdir()
        tokens = f"ndarray:{self.dtype(source.dtype).name}"
        if self.sequence_length:
            shards = ShardFiles(folder / source.split, {"position": "int", "tokens": tokens})
            batches = map(sequence_samples, source.sequences(self.sequence_length))
        else:
            shards = ShardFiles(folder / source.split, {"id": "str", "tokens": tokens, "url": "str"})
            batches = map(document_samples, source.all_stretches())
        for samples in batches:
            for sample in samples:
                shards.add(sample)
        shards.finish()


def document_samples(stretch: Stretch) -> Iterator[bytes]:
    """Each document as MDS has it: the sizes of its columns in the order of their names, then their bytes."""
    ends = stretch.ends().tolist()
    starts = [0, *ends[:-1]]
    for start, end, name, url in zip(starts, ends, *(stretch.documents[column].to_pylist() for column in ("id", "url"))):
        name, url = name.encode(), (url or "").encode()
        tokens = array_head(end - start) + stretch.tokens[start:end].tobytes()
        yield b"".join((struct.pack("<3I", len(name), len(tokens), len(url)), name, tokens, url))


def sequence_samples(found: Sequences) -> Iterator[bytes]:
    """Each sequence; columns of a fixed size, as `position`, are not in the list of sizes."""
    head = array_head(found.tokens.shape[1])
    size = struct.pack("<I", len(head) + found.tokens[0].nbytes)
    for position, tokens in zip(found.positions.tolist(), found.tokens):
        yield b"".join((size, struct.pack("<q", position), head, tokens.tobytes()))


def array_head(size: int) -> bytes:
    """How MDS announces a one-dimensional array: the dimensions (four times one) and the type of the size, then the size."""
    kind, form = (0, "<BB") if size < 1 << 8 else (1, "<BH") if size < 1 << 16 else (2, "<BI")
    return struct.pack(form, 1 << 2 | kind, size)


class ShardFiles:
    """`shard.00000.mds` and so on, and `index.json`. Holds the samples of one shard in memory."""

    def __init__(self, folder: Path, columns: dict[str, str], size_limit: int = SIZE_LIMIT):
        """`columns`: their encodings by their names, in the order of the names."""
        self.folder, self.size_limit = folder, size_limit
        self.config: dict[str, Any] = {
            "version": 2,
            "format": "mds",
            "compression": None,
            "hashes": [],
            "size_limit": size_limit,
            "column_names": list(columns),
            "column_encodings": list(columns.values()),
            "column_sizes": [8 if encoding == "int" else None for encoding in columns.values()],
        }
        self.head = json.dumps(self.config, sort_keys=True).encode()
        self.shards: list[dict[str, Any]] = []
        self._begin()

    def _begin(self) -> None:
        self.samples: list[bytes] = []
        self.size = 8 + len(self.head)  # two of the offsets, and the configuration

    def add(self, sample: bytes) -> None:
        size = len(sample) + 4
        if self.samples and self.size + size > self.size_limit:
            self._flush()
        self.samples.append(sample)
        self.size += size

    def _flush(self) -> None:
        """Writes a shard: the number of samples, where each begins and the last ends (uint32), the configuration, the samples."""
        name, number = f"shard.{len(self.shards):05d}.mds", len(self.samples)
        offsets = np.cumsum([8 + 4 * number + len(self.head), *map(len, self.samples)]).astype("<u4")
        with open(self.folder / name, "wb") as file:
            file.write(struct.pack("<I", number))
            file.write(offsets.data)
            file.write(self.head)
            file.writelines(self.samples)
        raw = {"basename": name, "bytes": int(offsets[-1]), "hashes": {}}
        self.shards.append({"samples": number, "raw_data": raw, "zip_data": None, **self.config})
        self._begin()

    def finish(self) -> None:
        if self.samples:
            self._flush()
        (self.folder / "index.json").write_text(json.dumps({"version": 2, "shards": self.shards}, sort_keys=True))
