"""The third phase: what is connected by candidates is judged together, in groups that fit into memory (`components.py`, `packing.py`).

Of the documents one range is in memory at a time, and one file of candidates; what is known of the others waits on disk (`spill.py`).
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa

from corpusmill.dedup.components import DOCUMENT
from corpusmill.dedup.corpus import Shard, located, starts
from corpusmill.dedup.packing import JUDGED, group
from corpusmill.dedup.spill import Index, Spill
from corpusmill.pipeline.shards import batches_stream, iter_tables, read_table
from corpusmill.pipeline.stage import Output
from corpusmill.pipeline.storage import Storage

GROUPS_FILE = "groups/documents.arrow"
#: Documents of a range, of which each takes up to 50 bytes of memory; a shard is never parted.
RANGE_DOCUMENTS = 1 << 24

#: One batch a shard: its documents that have a candidate, by row.
GROUPED = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("group", pa.int64(), nullable=False),
        pa.field("near", pa.bool_(), nullable=False),  # whether it is in a bucket, so that its signature and text are needed
        pa.field("words", pa.int64(), nullable=False),  # what it weighs, as GROUP_WORDS
    ]
)


class CandidateStars:
    """The candidates of some files, read anew each time; `star` is the column that says what belongs together."""

    def __init__(self, run: Storage, files: Sequence[str], star: str):
        self.run, self.files, self.star = run, files, star

    def __iter__(self) -> Iterator[tuple[Index, Index]]:
        for path in self.files:
            table = read_table(self.run, path, [self.star, "document"])
            yield table[self.star].to_numpy(), table["document"].to_numpy()


def groups_output(run: Storage, shards: list[Shard], own: int, groups: Sequence[str], buckets: Sequence[str], places: int) -> Output:
    """The file of what is judged where. Components with none of the first `own` documents, those of this run, are left out: earlier
    runs have judged them. `groups`, `buckets`: the files of copies and candidates. `places`: 64-bit words of a signature. Counts: `groups`,
    `apart`."""
    first = _first_shards(shards)
    in_range = [shards[a:b] for a, b in pairwise(first)]
    spill = Spill(starts(shards)[first])
    copies, candidates = CandidateStars(run, groups, "first"), CandidateStars(run, buckets, "bucket")
    count, apart = group(spill, copies, candidates, lambda number: _shingles(run, in_range[number]) + places, own)
    tables = (table for number, some in enumerate(in_range) for table in _tables(spill, number, some))
    counts = {"groups": max(count, 1) if shards else 0, "apart": apart}
    return Output({GROUPS_FILE: batches_stream(GROUPED, tables, "lz4")}, counts=counts)


def _first_shards(shards: Sequence[Shard]) -> list[int]:
    """The shard with which each range begins, and the number of shards."""
    first, documents = [0], 0
    for number, shard in enumerate(shards):
        if documents and documents + shard.rows > RANGE_DOCUMENTS:
            first.append(number)
            documents = 0
        documents += shard.rows
    return [*first, len(shards)]


def _shingles(run: Storage, shards: Sequence[Shard]) -> Index:
    counts = [table["shingles"].to_numpy() for shard in shards for table in iter_tables(*located(run, shard.signatures.path), ["shingles"])]
    return np.concatenate([np.zeros(0, np.int64), *counts])


def _tables(spill: Spill, number: int, shards: Sequence[Shard]) -> Iterator[pa.Table]:
    """The rows of GROUPED of each shard of a range."""
    members, begin = spill.all_of(JUDGED, number, 4), spill.bounds[number]
    for shard in shards:
        mine = members[slice(*np.searchsorted(members[:, DOCUMENT], [begin, begin + shard.rows]))]
        row, near, group, words = mine.T
        yield pa.table([row - begin, group, near.astype(bool), words], schema=GROUPED)
        begin += shard.rows
