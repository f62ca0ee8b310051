"""The fourth phase: what is judged together comes together. A shard's documents that have a candidate, in a batch for each group."""

from itertools import pairwise

import numpy as np
import pyarrow as pa

from corpusmill.dedup.batches import batches_bytes, open_batches
from corpusmill.dedup.corpus import located, read_rows
from corpusmill.pipeline.shards import open_parquet
from corpusmill.pipeline.stage import Output, Piece, Worker


class GatherWorker(Worker):
    """The signatures of a shard, the file of groups and, where they are needed, the texts (`inputs`) to its documents by group.

    `params`: `groups`, how many there are; of a piece: `shard`, its number. The rows are those of the signatures, with `row`, `near`
    (whether the document is in a bucket) and `text`, null where it is in none.
    """

    def process(self, piece: Piece) -> Output:
        signatures, groups, *texts = (ref.path for ref in piece.inputs)
        with open_batches(self.run, groups) as reader:
            members = pa.Table.from_batches([reader.get_batch(piece.params["shard"])])
        rows, near = members["row"].to_numpy(), members["near"].to_numpy()
        group = members["group"].to_numpy()
        order = np.argsort(group, kind="stable")
        with open_parquet(*located(self.run, signatures)) as file:
            schema = file.schema_arrow.remove_metadata()
        table = pa.concat_tables([schema.empty_table(), *read_rows(self.run, signatures, rows, schema.names)])
        table = table.append_column("row", members["row"]).append_column("near", members["near"]).take(pa.array(order))
        table = table.append_column("text", self._texts(texts, rows, near, order))
        bounds = np.searchsorted(group[order], np.arange(self.params["groups"] + 1))
        parts = [table.slice(a, b - a) for a, b in pairwise(bounds)]
        return Output({f"{piece.key}.arrow": batches_bytes(table.schema, parts, "lz4")}, rows_in=table.num_rows)

    def _texts(self, paths: list[str], rows: np.ndarray, near: np.ndarray, order: np.ndarray) -> pa.Array | pa.ChunkedArray:
        """One text or null for each of `rows[order]`."""
        if not paths:
            return pa.nulls(len(rows), pa.large_string())
        tables = [table["text"].cast(pa.large_string()) for table in read_rows(self.run, paths[0], rows[near], ["text"])]
        texts = pa.chunked_array([chunk for column in tables for chunk in column.chunks], pa.large_string())
        in_order = near.all() and (np.diff(order) == 1).all()  # the usual case of a small input: nothing to copy
        return texts if in_order else texts.take(pa.array((np.cumsum(near) - 1)[order], mask=~near[order]))
