"""Parquet of ids for Hugging Face `datasets`: a row a document and a file a token shard, or a row a sequence."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from corpusmill.tokenize.export.format import Format
from corpusmill.tokenize.export.source import Sequences, Source, Stretch

DOCUMENT = [("id", pa.string()), ("url", pa.string()), ("shard", pa.int32()), ("first", pa.int64())]
SEQUENCE = [("position", pa.int64())]
#: Level 1 takes two thirds of level 3's time for 8% more bytes. Ids of up to 16 bits repeat within a row group.
WRITTEN = {"compression": "zstd", "compression_level": 1, "use_dictionary": ["input_ids.list.element"], "store_schema": True}


class ParquetIds(Format):
    """`input_ids` ends with END_OF_TEXT. `shard` and `first` are the document's address in the run: what
    `corpusmill trace RUN --shard SHARD --token FIRST` takes. Sequences have their `position` in the split instead, and are in one file."""

    has_rows: ClassVar[bool] = True

    def write(self, source: Source, folder: Path) -> None:
        (folder / "data").mkdir(exist_ok=True)
        ids = self.dtype(source.dtype)
        schema = pa.schema([*(SEQUENCE if self.sequence_length else DOCUMENT), ("input_ids", pa.list_(pa.from_numpy_dtype(ids)))])
        for number, tables in enumerate(self.files(source, schema)):
            path = folder / "data" / f"{source.split}-{number:05d}-of-{1 if self.sequence_length else len(source):05d}.parquet"
            with pq.ParquetWriter(path, schema, **WRITTEN) as writer:
                for table in tables:
                    writer.write_table(table)

    def files(self, source: Source, schema: pa.Schema) -> Iterator[Iterator[pa.Table]]:
        """For each file the tables that become its row groups."""
        if self.sequence_length:
            yield (sequence_rows(found, schema) for found in source.sequences(self.sequence_length))
            return
        for number in range(len(source)):
            yield (document_rows(stretch, number, schema) for stretch in source.stretches(number))

    def finish(self, folder: Path, splits: list[str], tokenizer_json: bytes) -> None:
        """The card by which `load_dataset(FOLDER)` knows which files are which split."""
        lines = "\n".join(f"  - split: {split}\n    path: data/{split}-*.parquet" for split in splits)
        (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files:\n{lines}\n---\n")


def document_rows(stretch: Stretch, number: int, schema: pa.Schema) -> pa.Table:
    """The documents of a stretch of shard `number`."""
    table = stretch.documents
    shard = pa.array(np.full(table.num_rows, number, np.int32))
    lists = id_lists(np.concatenate(([0], stretch.ends())), stretch.tokens, schema)
    return pa.Table.from_arrays([table["id"], table["url"], shard, table["first"], lists], schema=schema)


def sequence_rows(found: Sequences, schema: pa.Schema) -> pa.Table:
    number, length = found.tokens.shape
    return pa.Table.from_arrays(
        [pa.array(found.positions), id_lists(np.arange(number + 1) * length, found.tokens.ravel(), schema)], schema=schema
    )


def id_lists(offsets: "np.typing.NDArray[np.int64]", tokens: "np.typing.NDArray[np.integer]", schema: pa.Schema) -> pa.ListArray:
    """Ids as lists, in the type that `schema` has for them; they are not copied."""
    ids = schema.field("input_ids").type.value_type.to_pandas_dtype()
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(tokens.view(ids)))
