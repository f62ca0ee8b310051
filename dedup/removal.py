"""The last phase: the documents that stay, and a report row for each that came in."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.dedup.clusters import CLUSTERS, EXACT
from corpusmill.dedup.corpus import shard_key
from corpusmill.dedup.signatures import require_columns
from corpusmill.pipeline.schemas import REPORT, with_columns
from corpusmill.pipeline.shards import open_parquet
from corpusmill.pipeline.stage import Output, Piece, Worker, documents_output
from corpusmill.pipeline.storage import Storage

EXACT_DUPLICATE, NEAR_DUPLICATE = "exact_duplicate", "near_duplicate"

#: Documents that stay say how many copies they stand for.
SIZE = pa.field("cluster_size", pa.int64(), nullable=False)
DEDUP_REPORT = with_columns(
    REPORT,
    [
        pa.field("cluster", pa.int64()),  # null where there is no copy
        SIZE,
        pa.field("kept_id", pa.string(), nullable=False),
        pa.field("similarity", pa.float64()),
        pa.field("verified", pa.string()),
    ],
)


def read_shard_clusters(run: Storage, path: str, shard: str) -> pa.Table:
    """The rows of one shard of the cluster table, which is sorted by shard: other row groups are not read."""
    tables = [CLUSTERS.empty_table()]
    with open_parquet(run, path) as file:
        column = CLUSTERS.get_field_index("shard")
        for group in range(file.num_row_groups):
            statistics = file.metadata.row_group(group).column(column).statistics
            if statistics is None or not statistics.has_min_max or statistics.min <= shard <= statistics.max:
                table = file.read_row_group(group, use_threads=False)
                tables.append(table.filter(pc.equal(table["shard"], shard)))
    return pa.concat_tables(tables)


class RemovalWorker(Worker):
    """One shard of documents and the cluster table (`inputs`) to the shard without its copies."""

    def process(self, piece: Piece) -> Output:
        path, clusters_path = (input_.path for input_ in piece.inputs)
        clusters = read_shard_clusters(self.run, clusters_path, shard_key(path))
        rows = clusters["row"].to_numpy()
        data, reports, size, begin = [], [], 0, 0
        with open_parquet(self.run, path) as file:
            require_columns(self.run.path(path), file.schema_arrow.names, ["id", "url", "text"])
            schema = with_columns(file.schema_arrow.remove_metadata(), [SIZE])
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, use_threads=False)
                first, last = np.searchsorted(rows, [begin, begin + table.num_rows])
                report = _report(table, clusters.slice(first, last - first), rows[first:last] - begin)
                kept = with_size(table, report["cluster_size"], schema).filter(report["kept"])
                data.append(kept)
                reports.append(report)
                size += pc.sum(pc.binary_length(table["text"])).as_py() or 0
                begin += table.num_rows
        documents = pa.concat_tables([schema.empty_table(), *data])
        report = pa.concat_tables([DEDUP_REPORT.empty_table(), *reports])
        failed = pc.value_counts(pc.list_flatten(report["failed"])).to_pylist()
        return documents_output(piece.key, documents, report, bytes_in=size, counts={pair["values"]: pair["counts"] for pair in failed})


def with_size(table: pa.Table, size: pa.ChunkedArray, schema: pa.Schema) -> pa.Table:
    columns = [size if name == SIZE.name else table[name] for name in schema.names]
    return pa.table(columns, schema=schema)


def _report(table: pa.Table, clusters: pa.Table, rows: np.ndarray) -> pa.Table:
    """The report rows of a piece of a shard; `rows` are the rows in it of the `clusters` rows."""
    at = np.full(table.num_rows, -1)
    at[rows] = np.arange(len(rows))
    place = pa.array(at, mask=at < 0)
    found = {name: clusters[name].take(place) for name in ("kept", "cluster", "cluster_size", "kept_id", "similarity", "verified")}
    kept = pc.fill_null(found["kept"], True)
    exact = pc.fill_null(pc.equal(found["verified"], EXACT), False)
    chars = pc.utf8_length(table["text"]).cast(pa.int64())
    columns = {
        "id": table["id"],
        "url": table["url"],
        "kept": kept,
        "failed": _failed(kept.to_numpy(), exact.to_numpy()),
        "chars_in": chars,
        "chars_out": pc.if_else(kept, chars, 0),
        "cluster": found["cluster"],
        "cluster_size": pc.fill_null(found["cluster_size"], 1),
        "kept_id": pc.coalesce(found["kept_id"], table["id"]),
        "similarity": found["similarity"],
        "verified": found["verified"],
    }
    return pa.table([columns[name] for name in DEDUP_REPORT.names], schema=DEDUP_REPORT)


def _failed(kept: np.ndarray, exact: np.ndarray) -> pa.Array:
    """One rule for each document that goes, none for each that stays."""
    offsets = np.concatenate([[0], np.cumsum(~kept)]).astype(np.int32)
    rules = pa.array(np.where(exact[~kept], EXACT_DUPLICATE, NEAR_DUPLICATE), pa.string())
    return pa.ListArray.from_arrays(pa.array(offsets), rules)
