"""Formats whose files hold a row for each document or sequence: Parquet for Hugging Face `datasets`, MosaicML Streaming, litdata.

MDS and litdata are written here, because their packages need older libraries than a run, or bring many libraries with them."""

import hashlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from corpusmill.tokenize.export.source import DocumentStretch, SequenceBatch, SplitSource, TokenFormat

# ---- Parquet ---------------------------------------------------------------------------------------------


DOCUMENT = [("id", pa.string()), ("url", pa.string()), ("shard", pa.int32()), ("first", pa.int64())]
SEQUENCE = [("position", pa.int64())]
#: Level 1 takes two thirds of level 3's time for 8% more bytes. Ids repeat within a row group, so a dictionary helps.
WRITTEN = {"compression": "zstd", "compression_level": 1, "use_dictionary": ["input_ids.list.element"], "store_schema": True}


class ParquetIds(TokenFormat):
    """Parquet files for `datasets`. `input_ids` ends with END_OF_TEXT. `shard` and `first` are the document's address in the run, for
    `corpusmill trace RUN --shard SHARD --token FIRST`. Sequences are in one file, and have their `position` in the split instead."""

    has_rows: ClassVar[bool] = True

    def write(self, source: SplitSource, folder: Path) -> None:
        (folder / "data").mkdir(exist_ok=True)
        ids = self.dtype(source.dtype)
        schema = pa.schema([*(SEQUENCE if self.sequence_length else DOCUMENT), ("input_ids", pa.list_(pa.from_numpy_dtype(ids)))])
        for number, tables in enumerate(self.files(source, schema)):
            path = folder / "data" / f"{source.split}-{number:05d}-of-{1 if self.sequence_length else len(source):05d}.parquet"
            with pq.ParquetWriter(path, schema, **WRITTEN) as writer:
                for table in tables:
                    writer.write_table(table)

    def files(self, source: SplitSource, schema: pa.Schema) -> Iterator[Iterator[pa.Table]]:
        """Yields for each file the tables that become its row groups."""
        if self.sequence_length:
            yield (sequence_rows(found, schema) for found in source.sequences(self.sequence_length))
            return
        for number in range(len(source)):
            yield (document_rows(stretch, number, schema) for stretch in source.stretches(number))

    def finish(self, folder: Path, splits: list[str], tokenizer_json: bytes) -> None:
        """Writes the dataset card, which tells `load_dataset(FOLDER)` the files of each split."""
        lines = "\n".join(f"  - split: {split}\n    path: data/{split}-*.parquet" for split in splits)
        (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files:\n{lines}\n---\n")


def document_rows(stretch: DocumentStretch, number: int, schema: pa.Schema) -> pa.Table:
    """Returns the documents of a stretch of shard `number`."""
    table = stretch.documents
    shard = pa.array(np.full(table.num_rows, number, np.int32))
    lists = id_lists(np.concatenate(([0], stretch.ends())), stretch.tokens, schema)
    return pa.Table.from_arrays([table["id"], table["url"], shard, table["first"], lists], schema=schema)


def sequence_rows(found: SequenceBatch, schema: pa.Schema) -> pa.Table:
    number, length = found.tokens.shape
    return pa.Table.from_arrays(
        [pa.array(found.positions), id_lists(np.arange(number + 1) * length, found.tokens.ravel(), schema)], schema=schema
    )


def id_lists(offsets: "np.typing.NDArray[np.int64]", tokens: "np.typing.NDArray[np.integer]", schema: pa.Schema) -> pa.ListArray:
    """Returns ids as lists, in the type that `schema` gives them, without a copy."""
    ids = schema.field("input_ids").type.value_type.to_pandas_dtype()
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(tokens.view(ids)))


# ---- MosaicML Streaming ----------------------------------------------------------------------------------


#: Bytes of a shard, MDSWriter's default. A larger sample is a shard of its own.
SIZE_LIMIT = 1 << 26


class MDS(TokenFormat):
    """Files for MosaicML Streaming. Columns: `id` and `url` (str; empty where missing), `tokens` (one-dimensional ndarray). Sequences have
    their `position` in the split (int) instead of id and URL."""

    has_rows: ClassVar[bool] = True
    wide: ClassVar[str] = "uint32"

    def write(self, source: SplitSource, folder: Path) -> None:
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


def document_samples(stretch: DocumentStretch) -> Iterator[bytes]:
    """Yields each document as an MDS sample: the sizes of its columns in the order of their names, then their bytes."""
    ends = stretch.ends().tolist()
    starts = [0, *ends[:-1]]
    for start, end, name, url in zip(starts, ends, *(stretch.documents[column].to_pylist() for column in ("id", "url"))):
        name, url = name.encode(), (url or "").encode()
        tokens = array_head(end - start) + stretch.tokens[start:end].tobytes()
        yield b"".join((struct.pack("<3I", len(name), len(tokens), len(url)), name, tokens, url))


def sequence_samples(found: SequenceBatch) -> Iterator[bytes]:
    """Yields each sequence as an MDS sample. Columns of a fixed size, such as `position`, are not in the list of sizes."""
    head = array_head(found.tokens.shape[1])
    size = struct.pack("<I", len(head) + found.tokens[0].nbytes)
    for position, tokens in zip(found.positions.tolist(), found.tokens):
        yield b"".join((size, struct.pack("<q", position), head, tokens.tobytes()))


def array_head(size: int) -> bytes:
    """Returns the head of a one-dimensional MDS array: a byte with the dimensions (times four) and the type of the size, then the size."""
    kind, form = (0, "<BB") if size < 1 << 8 else (1, "<BH") if size < 1 << 16 else (2, "<BI")
    return struct.pack(form, 1 << 2 | kind, size)


class ShardFiles:
    """Writes `shard.00000.mds` and so on, and `index.json`. Holds the samples of one shard in memory."""

    def __init__(self, folder: Path, columns: dict[str, str], size_limit: int = SIZE_LIMIT):
        """`columns`: their encodings by name, sorted by name."""
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
        self.size = 8 + len(self.head)  # the number of samples, the last offset, and the configuration

    def add(self, sample: bytes) -> None:
        size = len(sample) + 4
        if self.samples and self.size + size > self.size_limit:
            self._flush()
        self.samples.append(sample)
        self.size += size

    def _flush(self) -> None:
        """Writes a shard: the number of samples, where each begins and the last one ends (uint32), the configuration, the samples."""
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


# ---- litdata (and LitGPT) --------------------------------------------------------------------------------


#: Bytes of ids in a chunk. TokensLoader reads blocks within a chunk, so it never reads a chunk's last tokens (less than a block).
CHUNK_BYTES = 64_000_000
#: litdata's numbers for torch's types (`litdata.constants._TORCH_DTYPES_MAPPING`).
TYPE_NUMBERS = {"uint16": 20, "int32": 16}
#: A single tensor, as `litdata.utilities._pytree.treespec_dumps` writes it.
ONE_TENSOR = '[1, {"type": null, "context": null, "children_spec": []}]'


class LitData(TokenFormat):
    """Files for litdata: `chunk-0-0.bin` and so on, and `index.json`."""

    def write(self, source: SplitSource, folder: Path) -> None:
        (folder / source.split).mkdir()
        chunks: list[dict[str, Any]] = []
        for stretch in source.all_stretches(CHUNK_BYTES // source.dtype.itemsize):
            name = f"chunk-0-{len(chunks)}.bin"
            size = write_chunk(folder / source.split / name, stretch)
            chunks.append({"chunk_bytes": size, "chunk_size": len(stretch.counts), "dim": len(stretch.tokens), "filename": name})
        config = {
            "chunk_bytes": CHUNK_BYTES,
            "chunk_size": None,
            "compression": None,
            "compression_batch_size": None,
            "compression_level": None,
            "data_format": [f"no_header_tensor:{TYPE_NUMBERS[self.dtype(source.dtype).name]}"],
            "data_spec": ONE_TENSOR,
            "encryption": None,
            "ipc_compression": None,
            "item_loader": "TokensLoader",
            "types": "tensor",
        }
        content = {"chunks": chunks, "config": config, "updated_at": version_of(source)}
        (folder / source.split / "index.json").write_text(json.dumps(content, sort_keys=True))


def write_chunk(path: Path, stretch: DocumentStretch) -> int:
    """Writes the number of items, where each begins and the last one ends (uint32), and the ids. Returns the size in bytes."""
    number = len(stretch.counts)
    offsets = 4 * (number + 2) + np.concatenate(([0], stretch.ends())) * stretch.tokens.itemsize
    with open(path, "wb") as file:
        file.write(np.concatenate(([number], offsets)).astype("<u4").data)
        file.write(stretch.tokens.data)
    return int(offsets[-1])


def version_of(source: SplitSource) -> str:
    """Returns a version for `index.json`. litdata clears its cache of a remote set when it changes; its own writer uses the time."""
    return hashlib.sha256("".join(shard.sha256 for shard in source.description.shards).encode()).hexdigest()[:16]
