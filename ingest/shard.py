"""A shard of documents, and its report: cuts the rows of a task into shards that do not depend on the batches in which the rows arrive."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from corpusmill.ingest.config import IngestConfig
from corpusmill.ingest.guard import RowBatch
from corpusmill.ingest.pages import MIB
from corpusmill.ingest.rows import INGEST_REPORT
from corpusmill.pipeline.shards import content_bytes
from corpusmill.pipeline.stage import DocumentFiles

#: Rows of a shard at most. Without this limit, `shard_mb` could hold millions of very short documents.
SHARD_ROWS = 1 << 18


class Shard(DocumentFiles):
    """A shard of at most SHARD_ROWS rows, with documents of at most `shard_mb`, or with one larger document. Where it ends depends on the
    rows alone, not on the batches in which they arrive."""

    def __init__(self, config: IngestConfig):
        super().__init__(config.documents, INGEST_REPORT)
        self.left, self.rows_left = config.shard_mb * MIB, SHARD_ROWS

    def fill(self, batch: RowBatch) -> RowBatch | None:
        """Takes rows of the batch until the shard is full; returns the other rows, or None if all fit."""
        kept = np.asarray(batch.report["kept"].to_numpy(), bool)
        sizes = np.zeros(len(kept), np.int64)
        sizes[kept] = content_bytes(batch.documents)
        ends = np.cumsum(sizes)
        count = min(int(np.searchsorted(ends, self.left, "right")), self.rows_left)
        if self.rows_left == SHARD_ROWS and len(kept):
            count = max(count, 1)
        documents = int(kept[:count].sum())
        self.add(batch.documents[:documents], batch.report[:count])
        self.left -= int(ends[count - 1]) if count else 0
        self.rows_left -= count
        return replace(batch, documents=batch.documents[documents:], report=batch.report[count:]) if count < len(kept) else None


def filled(task: str, batches: Iterable[RowBatch], config: IngestConfig) -> Iterator[tuple[str, Shard, bool]]:
    """Yields each shard of a task as soon as it is full, with the name of its files (`part-00042`, or `part-00042-0000`, ... where there
    are several), and whether it is the last one."""
    shard, number = Shard(config), 0
    for batch in batches:
        rest = shard.fill(batch)
        while rest is not None:
            yield f"{task}-{number:04d}", shard, False
            shard, number = Shard(config), number + 1
            rest = shard.fill(rest)
    yield f"{task}-{number:04d}" if number else task, shard, True
