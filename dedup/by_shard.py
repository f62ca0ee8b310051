"""The cluster tables by shard, for what is done shard by shard: each task would else open every table for the few rows of its shard."""

from collections.abc import Sequence

from corpusmill.dedup.cluster_table import read_clusters
from corpusmill.dedup.merge import neighbours, worth_merging
from corpusmill.pipeline.config import Config
from corpusmill.pipeline.lists import input_paths, write_list
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.stage import Output, Piece, Worker


def clusters_by_shard(run: StageRun, shards: Sequence[str], tables: list[FileRef]) -> list[FileRef]:
    """For each shard what has its rows: a table of those of some shards, or the list of all cluster tables where these are few."""
    listed = write_list(run, "cluster-tables", tables)
    if not worth_merging(len(shards), len(tables)):
        return [listed] * len(shards)
    blocks = neighbours(shards)
    pieces = [Piece(f"merged/clusters-{number:05d}", (listed,), {"shards": list(block)}) for number, block in enumerate(blocks)]
    done = run.map("merged clusters", ShardRowsWorker, pieces, config=Config())
    return [row.ref("dedup", row.outputs[0].path) for row, block in zip(done, blocks, strict=True) for _ in block]


class ShardRowsWorker(Worker):
    """The list of cluster tables to one table of the rows of some shards (`shards` of a piece), in the form and order that these have."""

    def process(self, piece: Piece) -> Output:
        table = read_clusters(self.run, input_paths(self.run, piece.inputs), piece.params["shards"])
        return Output({f"{piece.key}.parquet": table}, rows_in=table.num_rows)
