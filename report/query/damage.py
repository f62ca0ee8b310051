"""Which shards of a table are not what the stage wrote, so that the rest can be asked.

When a run is opened only sizes are compared, which takes no reading. Where a query fails, the files that it reads are compared with
the sha256 that the manifest has of them: a page that is damaged often reads without an error, with other values.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import groupby
from pathlib import PurePosixPath

import pyarrow as pa

from corpusmill.pipeline.errors import CorpusmillError
from corpusmill.pipeline.shards import OutputFile, open_parquet
from corpusmill.pipeline.storage import Storage
from corpusmill.report.query.tables import Table
from corpusmill.report.read import RunReader

THREADS = 4
_SHA256 = 64  # hex digits; a run that was put together by hand may have none


def without_torn(reader: RunReader, table: Table) -> Table:
    """The table without files that are missing, or cut short. Each of them becomes a warning."""
    storage = reader.storage.child(table.stage)
    return _without(
        reader, table, {shard.path: said for shard in _of_another_size(storage, table.shards) if (said := _unreadable(storage, shard))}
    )


def without_damaged(reader: RunReader, table: Table) -> Table:
    """The table without files that do not hold what the stage wrote; all of them are read. Each of them becomes a warning."""
    storage = reader.storage.child(table.stage)
    with ThreadPoolExecutor(THREADS) as pool:
        said = zip(table.shards, pool.map(lambda shard: _changed(storage, shard), table.shards), strict=True)
        return _without(reader, table, {shard.path: why for shard, why in said if why})


def _without(reader: RunReader, table: Table, damaged: dict[str, str]) -> Table:
    for why in damaged.values():
        reader.warn(f"{table.stage}: a shard is left out: {why}")
    return replace(table, shards=tuple(shard for shard in table.shards if shard.path not in damaged))


def _of_another_size(storage: Storage, shards: tuple[OutputFile, ...]) -> Iterator[OutputFile]:
    """The files whose size is not that of the manifest: a folder is listed once."""
    for folder, files in groupby(shards, key=lambda shard: str(PurePosixPath(shard.path).parent)):
        sizes = storage.listing(folder)
        yield from (shard for shard in files if sizes.get(PurePosixPath(shard.path).name, -1) != shard.bytes)


def _unreadable(storage: Storage, shard: OutputFile) -> str:
    """Why a file can't be opened, in a sentence; empty where it can: it may be of a later attempt than the manifest."""
    try:
        open_parquet(storage, shard.path).close()
    except (CorpusmillError, OSError, ValueError) as error:
        return str(error)
    return ""


def _changed(storage: Storage, shard: OutputFile) -> str:
    """What is wrong with the bytes of a file, in a sentence; empty where nothing is."""
    path = storage.path(shard.path)
    try:
        if len(shard.sha256) == _SHA256 and storage.sha256(shard.path) != shard.sha256:
            return f"{path}: damaged: it does not hold what the stage wrote (its sha256 is another)."
        if len(shard.sha256) == _SHA256:
            return _unreadable(storage, shard)
        with open_parquet(storage, shard.path) as opened:
            opened.read()
    except (CorpusmillError, OSError, ValueError, pa.ArrowException) as error:
        return str(error)
    return ""
