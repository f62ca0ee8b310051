"""Parquet of ids for Hugging Face `datasets`: a row a document, a file a token shard."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from corpusmill.tokenize.export.format import Format
from corpusmill.tokenize.export.source import Source, Stretch


class ParquetIds(Format):
    """`input_ids` ends with END_OF_TEXT. `shard` and `first` are the document's address in the run: what
    `corpusmill trace RUN --shard SHARD --token FIRST` takes."""

    def write(self, source: Source, folder: Path) -> None:
        (folder / "data").mkdir(exist_ok=True)
        ids = self.dtype(source.dtype)
        schema = pa.schema(
            [
                pa.field("id", pa.string()),
                pa.field("url", pa.string()),
                pa.field("shard", pa.int32()),
                pa.field("first", pa.int64()),
                pa.field("input_ids", pa.list_(pa.from_numpy_dtype(ids))),
            ]
        )
        options = {"compression": "zstd", "compression_level": 3, "use_dictionary": ["input_ids.list.element"], "store_schema": True}
        for number in range(len(source)):
            path = folder / "data" / f"{source.split}-{number:05d}-of-{len(source):05d}.parquet"
            with pq.ParquetWriter(path, schema, **options) as writer:
                for stretch in source.stretches(number):
                    writer.write_table(rows(stretch, number, ids, schema))

    def finish(self, folder: Path, splits: list[str], tokenizer_json: bytes) -> None:
        """The card by which `load_dataset(FOLDER)` knows which files are which split."""
        lines = "\n".join(f"  - split: {split}\n    path: data/{split}-*.parquet" for split in splits)
        (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files:\n{lines}\n---\n")


def rows(stretch: Stretch, number: int, ids: "np.dtype[np.integer]", schema: pa.Schema) -> pa.Table:
    """The documents of a stretch of shard `number` as rows; the ids are not copied."""
    offsets = pa.array(np.concatenate(([0], stretch.ends())).astype(np.int32))
    lists = pa.ListArray.from_arrays(offsets, pa.array(stretch.tokens.view(ids)))
    table = stretch.documents
    shard = pa.array(np.full(table.num_rows, number, np.int32))
    return pa.Table.from_arrays([table["id"], table["url"], shard, table["first"], lists], schema=schema)
