"""Rows of the files that a user gives for instruction tuning and alignment: JSONL, a JSON array, or Parquet."""

import hashlib
import io
import json
import zlib
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.storage import Storage

Row = dict[str, Any]


def read_records(path: str) -> Iterator[tuple[str, Row]]:
    """Every row of a file with its place: `FILE:LINE`, or `FILE, row N` (from 1) where there are no lines.

    The format is told by the name: `.jsonl`, `.jsonl.gz`, `.json`, `.parquet`. Raises InputError.
    """
    content = _content(path)
    if path.endswith((".jsonl", ".jsonl.gz", ".ndjson")):
        yield from _json_lines(path, content)
    elif path.endswith(".json"):
        yield from _json_array(path, content)
    elif path.endswith(".parquet"):
        yield from _parquet_rows(path, content)
    else:
        raise InputError(f"{path}: the name does not tell the format (expected .jsonl, .jsonl.gz, .json or .parquet).")


def read_lines(path: str) -> list[str]:
    """The lines of a text file, without their ends. Raises InputError."""
    try:
        return _content(path).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start} is not UTF-8.") from error


def file_ref(path: str) -> FileRef:
    """A user's file as a task's input; its fingerprint is the sha256 of what it holds."""
    content = _raw(path)
    return FileRef(path, hashlib.sha256(content).hexdigest(), len(content))


def _raw(path: str) -> bytes:
    folder, _, name = path.rpartition("/")
    try:
        return Storage(folder or ".").read_bytes(name)
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror or error}).") from error


def _content(path: str) -> bytes:
    content = _raw(path)
    if path.endswith(".gz"):
        content = _inflate(path, content)
    if not content.strip():
        raise InputError(f"{path}: the file is empty.")
    return content


def _inflate(path: str, compressed: bytes) -> bytes:
    """All members of a gzip file."""
    parts = []
    while compressed:
        member = zlib.decompressobj(wbits=31)
        try:
            parts.append(member.decompress(compressed))
        except zlib.error as error:
            raise InputError(f"{path}: not a gzip file ({error}).") from error
        if not member.eof:
            raise InputError(f"{path}: the gzip file is truncated.")
        compressed = member.unused_data
    return b"".join(parts)


def _json_lines(path: str, content: bytes) -> Iterator[tuple[str, Row]]:
    for number, line in enumerate(io.BytesIO(content), 1):
        if line.strip():
            yield f"{path}:{number}", _row(f"{path}:{number}", _parse(f"{path}:{number}", line))


def _json_array(path: str, content: bytes) -> Iterator[tuple[str, Row]]:
    rows = _parse(path, content)
    if not isinstance(rows, list):
        raise InputError(f"{path}: a .json file of examples is one array (a file with an example a line is named .jsonl).")
    for number, row in enumerate(rows, 1):
        yield f"{path}, row {number}", _row(f"{path}, row {number}", row)


def _parquet_rows(path: str, content: bytes) -> Iterator[tuple[str, Row]]:
    try:
        rows = pq.read_table(io.BytesIO(content), use_threads=False).to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path}: not a readable Parquet file ({error}).") from error
    for number, row in enumerate(rows, 1):
        yield f"{path}, row {number}", row


def _parse(place: str, content: bytes) -> Any:
    try:
        return json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(f"{place}: byte {error.start} is not UTF-8.") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{place}: not JSON ({error.msg} at line {error.lineno} column {error.colno}).") from error
    except RecursionError as error:
        raise InputError(f"{place}: not JSON that can be read (it is nested too deeply).") from error


def _row(place: str, row: Any) -> Row:
    if not isinstance(row, dict):
        raise InputError(f"{place}: expected an object with named fields, not {type(row).__name__}.")
    return row
