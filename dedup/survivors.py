"""The documents of a shard that no copy replaced, as the phases see them that look inside documents."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.dedup.cluster_table import read_clusters
from corpusmill.dedup.corpus import shard_key
from corpusmill.dedup.signatures import require_columns
from corpusmill.pipeline.shards import open_parquet
from corpusmill.pipeline.storage import Storage


def survivors(run: Storage, shard: str, clusters: Sequence[str], columns: list[str]) -> Iterator[tuple[npt.NDArray[np.int64], pa.Table]]:
    """`(rows, table)` for each row group of a shard: the rows (ascending) that stay by the cluster tables, and their columns."""
    found = read_clusters(run, clusters, [shard_key(shard)])
    removed = found["row"].filter(pc.invert(found["kept"])).to_numpy()
    begin = 0
    with open_parquet(run, shard) as file:
        require_columns(run.path(shard), file.schema_arrow.names, columns)
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=columns, use_threads=False)
            stays = np.ones(table.num_rows, bool)
            first, last = np.searchsorted(removed, [begin, begin + table.num_rows])
            stays[removed[first:last] - begin] = False
            yield np.flatnonzero(stays) + begin, table if stays.all() else table.filter(pa.array(stays))
            begin += table.num_rows
