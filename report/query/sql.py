"""Quotes names and values for SQL, opens DuckDB, and turns its errors into one sentence."""

import atexit
import itertools
import math
import os
import re
import shutil
import tempfile
from collections.abc import Collection
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import IO, cast

import duckdb
from fsspec import AbstractFileSystem

from corpusmill.filters.relation import identifier, quoted
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.files import expand, file_ref, open_file
from corpusmill.pipeline.memory import available_memory
from corpusmill.pipeline.names import instead_of
from corpusmill.pipeline.safe import safe_line
from corpusmill.pipeline.storage import Storage, Store
from corpusmill.pipeline.stores import is_store

Value = str | int | float | bool | None

#: Errors about the query, never about a file.
OF_THE_QUERY = (
    duckdb.BinderException, duckdb.CatalogException, duckdb.ConversionException, duckdb.NotImplementedException,
    duckdb.OutOfMemoryException, duckdb.OutOfRangeException, duckdb.ParserException, duckdb.PermissionException,
    duckdb.TypeMismatchException,
)  # fmt: skip
#: DuckDB's error type before its message.
_KIND = re.compile(r"^(\w+ ){1,3}Error: ")
#: A column of the reports without its quotes, in the line that DuckDB shows.
_OFFSET = re.compile(r"""LINE .*(?<!")\boffset\b(?!")""", re.IGNORECASE)
_COLUMN = re.compile(r'(?:Referenced column|column named) "?(.+?)"? (?:not found|was not found)', re.S)
_CANDIDATES = re.compile(r"Candidate bindings: (.+)")
_LIBRARY = re.compile(r"'(\w+)' is required for this operation")
_TABLE = re.compile(r"Table with name (.+?) does not exist", re.S)
#: A name that needs no quotes unless it is a keyword of SQL.
_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")
_FILE = re.compile(r'Cannot access (?:file|directory) "(.+)" - ', re.S)


def column(name: str) -> str:
    """Returns a column's or table's name, quoted only where needed."""
    return name if _is_plain(name) else identifier(name)


def _is_plain(name: str) -> bool:
    return _PLAIN.fullmatch(name) is not None and name not in _reserved()


@cache
def _reserved() -> frozenset[str]:
    """Returns the words that DuckDB does not allow as names without quotes."""
    rows = duckdb.connect(":memory:").execute("SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category <> 'unreserved'")
    return frozenset(word for (word,) in rows.fetchall())


def literal(value: Value) -> str:
    """Returns a value in SQL. Characters that a page must not show become `chr(N)`, so that the printed query is the one that runs."""
    if value is None:
        return "NULL"
    if isinstance(value, bool | int):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else f"'{value}'::DOUBLE"
    parts = re.split(r"([^\x20-\x7e\u00a1-\u00ac\u00ae-\u05ff])", value)
    pieces = [f"chr({ord(part)})" if place % 2 else quoted(part) for place, part in enumerate(parts) if part]
    return " || ".join(pieces) or "''"


def no_table(name: str, names: Collection[str]) -> str:
    """Returns a sentence that names the table that may be meant, or else those of documents and reports."""
    main = [known for known in names if known.endswith(("_documents", "_report"))]
    sentence = f"there is no table {name!r}{instead_of(name, names)}."
    meant = "did you mean" in sentence or len(names) <= len(main)
    return sentence if meant else f"there is no table {name!r} (the main ones are {', '.join(main)}; corpusmill query RUN lists all)."


def sentence(error: duckdb.Error, names: Collection[str] = ()) -> str:
    """Returns a sentence with a full stop about a failed query, without DuckDB's internals. `names`: the tables that exist."""
    message = str(error)
    if column := _COLUMN.search(message):
        near = _CANDIDATES.search(message)
        return f"there is no column {column[1]!r}" + (f" (near it: {near[1].replace(chr(34), '')})." if near else ".")
    if library := _LIBRARY.search(message):
        return f"{library[1]} is not installed here; pip install {library[1]}."
    if table := _TABLE.search(message):
        return no_table(table[1], names)
    if file := _FILE.search(message):
        return f"{file[1]}: a query may read the files of its run alone."
    if isinstance(error, duckdb.OutOfMemoryException):
        return "the query needs more memory than there is; ask for fewer columns or rows."
    first = safe_line(_KIND.sub("", message.strip().split("\n\n")[0].split("\n\t")[0]), 300).rstrip(".")
    if not isinstance(error, duckdb.ParserException):
        return f"{first}."
    keyword = '; offset is a keyword of SQL: write "offset" for the column' if _OFFSET.search(message) else ""
    return f"not valid SQL: {first}{keyword}."


#: The least memory of queries in bytes, and their default share of the free memory; the rest is for the rows in Python.
LEAST_MEMORY = 512 << 20
SHARE_OF_MEMORY = 0.5

_SETTINGS = {
    "allow_persistent_secrets": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",  # a Python variable is never a table
}
_NUMBER = itertools.count()


def connect(storage: Storage, memory: int | None = None) -> duckdb.DuckDBPyConnection:
    """Opens a connection that can read the files of `storage`.

    `memory`: bytes for queries, by default a share of the free memory. What exceeds it goes to a temporary folder, which DuckDB makes when
    needed and removes at the end.
    """
    memory = memory or max(LEAST_MEMORY, int(available_memory() * SHARE_OF_MEMORY))
    spill = os.path.join(_spill_folder(), str(next(_NUMBER)))
    connection = duckdb.connect(":memory:", config={**_SETTINGS, "memory_limit": f"{memory >> 20} MiB", "temp_directory": spill})
    connection.execute("SET parquet_metadata_cache = true")  # reads the footers of the shards once, not once for each query
    allow_store(connection, storage)
    return connection


@cache
def _spill_folder() -> str:
    """Returns a new temporary folder that only this user can read. It is removed when the process ends."""
    folder = tempfile.mkdtemp(prefix="corpusmill-query-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def remove_spilled() -> None:
    """Removes the temporary folder of all connections, for a process that ends without its exit functions."""
    shutil.rmtree(_spill_folder(), ignore_errors=True)


def allow_store(connection: duckdb.DuckDBPyConnection, storage: Storage) -> None:
    """Lets the connection read the files of `storage` where they lie on a store."""
    if storage.remote and not connection.filesystem_is_registered(protocol := storage.root.partition("://")[0]):
        connection.register_filesystem(_StoreFiles(protocol))


class _StoreFiles(AbstractFileSystem):
    """The objects of a store, or files of a web server, for DuckDB."""

    cachable = False

    def __init__(self, protocol: str):
        super().__init__()
        self.protocol = protocol

    def open(self, path: str, mode: str = "rb", **_: object) -> IO[bytes]:
        return open_file(path)

    def info(self, path: str, **_: object) -> dict[str, object]:
        return {"name": path, "size": file_ref(path).bytes, "type": "file"}

    def modified(self, path: str) -> datetime:
        return cast(datetime, Store(path).info("")["last_modified"]) if is_store(path) else datetime.fromtimestamp(0, UTC)

    def glob(self, path: str, **_: object) -> list[str]:
        try:
            return expand(path)
        except InputError:
            return []


def restrict_to_run(connection: duckdb.DuckDBPyConnection, storage: Storage) -> None:
    """Restricts the connection to the run's files and locks its settings."""
    connection.execute(f"SET allowed_directories = [{quoted(place(storage, ''))}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def place(storage: Storage, path: str) -> str:
    """Returns the absolute path of a file of the run for DuckDB, so that a later change of the working folder does not matter; links to the
    run are followed."""
    return storage.path(path) if storage.remote else str(Path(storage.root).resolve() / path)
