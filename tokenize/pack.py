"""The last phase of the stage: a packing plan for each shard and length (`pipeline/packing.py`)."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from corpusmill.pipeline.config import Config
from corpusmill.pipeline.manifest import TaskRow
from corpusmill.pipeline.packing import plan
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.shards import publish, read_table
from corpusmill.pipeline.stage import Output, Piece, Worker
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_shards import PackingFile, TokenShard, plan_bytes, plan_name

INDEX_ENDING = ".index.parquet"


class PackConfig(Config):
    """Nothing of the stage's section: a plan follows from its shard and length."""


class PackWorker(Worker):
    """Packs one shard into rows of one length, by the tokens of its documents alone."""

    def process(self, piece: Piece) -> Output:
        index, length = piece.inputs[0].path, piece.params["length"]
        table, rows = _plan(self.run, index, length)
        return Output({plan_name(_name(index), length): plan_bytes(table)}, counts={"length": length, "rows": rows, "pieces": len(table)})


def pack(run: StageRun, gathered: Sequence[TaskRow], lengths: Sequence[int]) -> Sequence[TaskRow]:
    """Performs the phase `pack` for the shards of these tasks."""
    indexes = [row.ref(run.stage.name, output.path) for row in gathered for output in row.outputs if output.path.endswith(INDEX_ENDING)]
    pieces = [
        Piece(f"pack-{length}-{_name(index.path).replace('/', '-')}", (index,), {"length": length})
        for length in sorted(set(lengths))
        for index in indexes
    ]
    return run.map("pack", PackWorker, pieces, config=PackConfig())


def write_plans(storage: Storage, shard: TokenShard, lengths: Sequence[int]) -> tuple[PackingFile, ...]:
    """Writes the plans of a shard that lies in `storage`."""
    found = []
    for length in lengths:
        table, rows = _plan(storage, shard.index, length)
        output = publish(storage, plan_name(shard.file, length), plan_bytes(table))
        found.append(PackingFile(length, output.path, rows, output.bytes, output.sha256))
    return tuple(found)


def _plan(storage: Storage, index: str, length: int) -> tuple[pa.Table, int]:
    return plan(read_table(storage, index, ["tokens"])["tokens"].to_numpy(), length)


def _name(index: str) -> str:
    """`train/tokens-00000` for the path of an index in the run."""
    return index.partition("/")[2].removesuffix(INDEX_ENDING)


def plans_by_shard(packed: Sequence[TaskRow]) -> dict[str, tuple[PackingFile, ...]]:
    """The plans of each shard, by the path of its `.bin` in the stage's folder."""
    found: dict[str, tuple[PackingFile, ...]] = {}
    for row in packed:
        (output,), length = row.outputs, row.counts["length"]
        shard = output.path.removesuffix(f".pack-{length}.arrow") + ".bin"
        described = PackingFile(length, output.path.rpartition("/")[2], row.counts["rows"], output.bytes, output.sha256)
        found[shard] = (*found.get(shard, ()), described)
    return found


def packing_line(packing: dict[str, Any]) -> str:
    """One line of `ShardSet.packing` for people."""
    return f"{packing['rows']:,} rows of {packing['length']:,}, {packing['waste']:.3%} of their places empty"
