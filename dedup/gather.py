"""The fourth phase: what is judged together comes together. A shard's documents that have a candidate, in a batch for each group, or for
some where the file is merged with others."""

from itertools import pairwise

import numpy as np
import pyarrow as pa

from corpusmill.dedup.batches import batches_bytes, open_batches
from corpusmill.dedup.corpus import Index, located, read_rows
from corpusmill.dedup.merge_gathered import GROUP, group_blocks
from corpusmill.pipeline.shards import open_parquet
from corpusmill.pipeline.stage import Output, Piece, Worker
from corpusmill.pipeline.storage import Storage

#: The column that says of which shard a document is.
NUMBER = "shard_number"


class GatherWorker(Worker):
    """A shard of documents to its members by group, a batch for each. `inputs`: as `read_members` needs them, the file of groups first.

    `params`: `groups`, how many there are; of a piece: `shard`, its number, and `merged`, if it is merged with others: from which
    shard to which.
    """

    def process(self, piece: Piece) -> Output:
        groups, signatures, *texts = (ref.path for ref in piece.inputs)
        table, group = read_members(self.run, piece.params["shard"], groups, signatures, *texts)
        blocks = np.arange(self.params["groups"] + 1)
        if merged := piece.params.get("merged"):
            blocks = group_blocks(self.run, groups, merged, self.params["groups"])
            table = table.append_column(GROUP, pa.array(group.astype(np.int32)))
        bounds = np.searchsorted(group, blocks)
        parts = [table.slice(a, b - a) for a, b in pairwise(bounds)]
        return Output({f"{piece.key}.arrow": batches_bytes(table.schema, parts, "lz4")}, rows_in=table.num_rows)


def read_members(run: Storage, shard: int, groups: str, signatures: str, texts: str | None = None) -> tuple[pa.Table, Index]:
    """`(documents, group)`: the documents of a shard that have a candidate, and the group of each (ascending).

    `groups` is the file of groups, in which the shard has the number `shard`. The columns are those of the signatures, with `row`, `near`
    (whether the document is in a bucket) and `text`, null where it is in none or there are no `texts`; and `shard_number`.
    """
    with open_batches(run, groups) as reader:
        members = pa.Table.from_batches([reader.get_batch(shard)])
    rows, near, group = (members[name].to_numpy() for name in ("row", "near", "group"))
    order = np.argsort(group, kind="stable")
    with open_parquet(*located(run, signatures)) as file:
        schema = file.schema_arrow.remove_metadata()
    table = pa.concat_tables([schema.empty_table(), *read_rows(run, signatures, rows, schema.names)])
    table = table.append_column("row", members["row"]).append_column("near", members["near"])
    table = table.append_column(NUMBER, pa.array(np.full(len(rows), shard, np.int32)))
    in_order = (np.diff(order) == 1).all()
    table = table if in_order else table.take(pa.array(order))
    if texts is None:
        return table.append_column("text", pa.nulls(len(rows), pa.large_string())), group[order]
    found = [column for part in read_rows(run, texts, rows[near], ["text"]) for column in part["text"].cast(pa.large_string()).chunks]
    column = pa.chunked_array(found, pa.large_string())
    if not (in_order and near.all()):  # else there is nothing to copy
        column = column.take(pa.array((np.cumsum(near) - 1)[order], mask=~near[order]))
    return table.append_column("text", column), group[order]
