"""The connection to DuckDB that reads a run: nothing is written beside the run, installed, or found by chance."""

import atexit
import itertools
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

import duckdb

from corpusmill.pipeline.memory import available_memory
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.store_requests import filesystem
from corpusmill.report.query.sql import quoted

#: Bytes that queries get at least, and the share of what is free that they get at most: the rest is for what becomes of the rows.
LEAST_MEMORY = 512 << 20
SHARE_OF_MEMORY = 0.5

_SETTINGS = {
    "allow_persistent_secrets": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",  # no variable of a program is a table
}
_NUMBER = itertools.count()


def connect(storage: Storage) -> duckdb.DuckDBPyConnection:
    """A connection that can read the files of `storage`.

    What does not fit into memory goes to a folder among the system's temporary ones, which DuckDB makes in need and removes at the end.
    """
    memory = max(LEAST_MEMORY, int(available_memory() * SHARE_OF_MEMORY))
    spill = os.path.join(_private(), str(next(_NUMBER)))
    connection = duckdb.connect(":memory:", config={**_SETTINGS, "memory_limit": f"{memory >> 20} MiB", "temp_directory": spill})
    connection.execute("SET parquet_metadata_cache = true")  # footers of a thousand shards are read once, not once a query
    reach(connection, storage)
    return connection


@cache
def _private() -> str:
    """A folder among the system's temporary ones that nobody else can read, or has made before; it goes when this process ends."""
    folder = tempfile.mkdtemp(prefix="corpusmill-query-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def reach(connection: duckdb.DuckDBPyConnection, storage: Storage) -> None:
    """Lets the connection read the files of `storage` where they lie on a store."""
    if storage.remote:
        system = filesystem(storage.root, alone=True)[0]
        protocols = [system.protocol] if isinstance(system.protocol, str) else system.protocol
        if not any(connection.filesystem_is_registered(protocol) for protocol in protocols):
            connection.register_filesystem(system)


def shut_in(connection: duckdb.DuckDBPyConnection, storage: Storage) -> None:
    """From now on the connection can read nothing but the run's files, and none of its settings can be changed."""
    connection.execute(f"SET allowed_directories = [{quoted(place(storage, ''))}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def place(storage: Storage, path: str) -> str:
    """A file of the run as DuckDB is to find it, also when the process works in another folder by then; links to the run are followed."""
    return storage.path(path) if storage.remote else str(Path(storage.root).resolve() / path)
