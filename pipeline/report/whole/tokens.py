"""Token shards of a run: each document of the stage before has a row in the report, each that is kept stands in the shards' indexes,
and the shards themselves are what `corpusmill tokens verify` wants."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.pipeline.manifest import Manifest
from corpusmill.pipeline.report.tokens import verify as shards
from corpusmill.pipeline.report.whole.rows import difference, read_ids
from corpusmill.pipeline.shards import iter_tables
from corpusmill.pipeline.storage import Storage

#: Documents of each shard whose tokens are compared with their texts.
SAMPLE = 20


def token_faults(run: Storage, before: list[str]) -> Iterator[str]:
    """`before` are the document shards (paths from the run) that the tokens were made of."""
    yield from (fault for check in shards.verify(run.root, SAMPLE) for fault in check.faults)
    manifest = Manifest(run.child("tokens"), read_only=True)
    paths = [output.path for task in manifest.rows() for output in task.outputs]
    reports = [path for path in paths if path.startswith("report/")]
    came = pa.concat_arrays([read_ids(run, path) for path in before])
    rows = _columns(run, reports, ["id", "kept"])
    fault = difference(_sorted(rows["id"]), _sorted(came)) if reports else ""
    if fault:
        yield f"{run.path('tokens/report')}: its rows are not the documents of the stage before: {fault}."
    indexed = _columns(run, [path for path in paths if path.endswith(".index.parquet")], ["id"])["id"]
    kept = rows["id"].filter(rows["kept"]) if reports else came
    fault = difference(_sorted(pc.unique(indexed)), _sorted(pc.unique(kept)))
    if fault:
        yield f"{run.path('tokens')}: the shards' indexes do not have the documents that were kept: {fault}."


def _columns(run: Storage, paths: list[str], columns: list[str]) -> pa.Table:
    tables = [table for path in paths for table in iter_tables(run.child("tokens"), path, columns)]
    return pa.concat_tables(tables) if tables else pa.table({name: pa.array([], pa.string()) for name in columns})


def _sorted(ids: pa.Array | pa.ChunkedArray) -> pa.Array:
    array = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
    array = pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array
    return array.take(pc.sort_indices(array))
