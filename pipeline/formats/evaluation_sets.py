"""Reads evaluation sets in the formats in which they are published: JSONL, JSON, Parquet and Arrow, compressed files and zip archives."""

import io
import json
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import IO, Any

import pyarrow as pa

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.files import open_file
from corpusmill.pipeline.formats.compressed import compression_of, inflating
from corpusmill.pipeline.formats.parquet import open_parquet

#: The keys under which JSON files keep their rows, if the file is not a list itself.
LISTS = ("data", "examples", "rows", "questions", "instances")
#: The most decompressed bytes and rows of an evaluation set, which is held in memory; and the bytes that are read at a time.
MOST_BYTES, MOST_ROWS, CHUNK = 1 << 30, 10_000_000, 1 << 20
ENDINGS = (".jsonl", ".ndjson", ".json", ".parquet", ".arrow", ".zip")
COMPRESSIONS = (".gz", ".zst", ".lz4")
#: Files that the library `datasets` saves next to its rows.
METADATA_FILES = ("dataset_info.json", "dataset_dict.json", "dataset_infos.json", "state.json")

Rows = list[dict[str, Any]]


def has_data(path: str) -> bool:
    """Whether a file in a folder or archive holds rows of a set, judged by its name."""
    name = PurePosixPath(path).name
    for compression in COMPRESSIONS:
        name = name.removesuffix(compression)
    return name.endswith(ENDINGS) and not name.startswith((".", "_")) and name not in METADATA_FILES


def read_set(path: str) -> Iterator[tuple[str, Rows]]:
    """Yields `(place, rows)` of each table in a file: one, or one for each member of a zip archive. Raises InputError."""
    with open_file(path) as file:
        start = file.read(8)
        file.seek(0)
        if start.startswith(b"PK\x03\x04"):
            yield from _read_zip(path, file)
        else:
            yield path, _read_rows(path, file, start)


def _read_zip(path: str, file: IO[bytes]) -> Iterator[tuple[str, Rows]]:
    try:
        with zipfile.ZipFile(file) as archive:
            names = [name for name in sorted(archive.namelist()) if has_data(name)]
            _check_size(path, sum(archive.getinfo(name).file_size for name in names))
            members = [(f"{path}/{name}", archive.read(name)) for name in names]
    except InputError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError) as error:  # or a password
        raise InputError(f"{path}: not a readable zip archive ({error}).") from error
    if not members:
        raise InputError(f"{path}: no JSONL, JSON or Parquet file in the archive.")
    for place, content in members:
        yield place, _read_rows(place, io.BytesIO(content), content[:8])


def _read_rows(place: str, file: IO[bytes], start: bytes) -> Rows:
    if start.startswith(b"PAR1"):
        batches: Iterable[pa.RecordBatch] = open_parquet(place, file).iter_batches(use_threads=False)
    elif start.startswith((b"ARROW1", b"\xff\xff\xff\xff")):
        batches = _arrow_batches(place, file, start)
    else:
        return _json_rows(place, _inflated(place, file, start))
    try:
        rows = [row for batch in batches for row in batch.to_pylist()]
    except (pa.ArrowException, OSError, MemoryError, ValueError) as error:
        raise _unreadable(place, "Arrow or Parquet", error) from error
    if not rows:
        raise InputError(f"{place}: the evaluation set is empty.")
    return rows


def _arrow_batches(place: str, file: IO[bytes], start: bytes) -> list[pa.RecordBatch]:
    try:
        opened = pa.ipc.open_file(file) if start.startswith(b"ARROW1") else pa.ipc.open_stream(file)
        batches: list[pa.RecordBatch] = opened.read_all().to_batches()
        for batch in batches:
            batch.validate(full=True)  # Arrow trusts the sizes that a file states
        if sum(batch.num_rows for batch in batches) > MOST_ROWS:
            raise InputError(f"{place}: it has more than {MOST_ROWS:,} rows, too many for an evaluation set.")
    except (pa.ArrowException, OSError, MemoryError, ValueError) as error:
        raise _unreadable(place, "Arrow", error) from error
    return batches


def _unreadable(place: str, kind: str, error: BaseException) -> InputError:
    problem = (str(error) or "it asks for more memory than there is").splitlines()[0].rstrip(".")
    return InputError(f"{place}: not a readable {kind} file ({problem}).")


def _inflated(place: str, file: IO[bytes], start: bytes) -> bytes:
    compression = compression_of(start)
    if compression is None:
        return file.read()
    stream = inflating(file, compression)
    content = b""
    while part := stream.read(CHUNK):
        content += part
        _check_size(place, len(content))
    if stream.fault:
        raise InputError(f"{place}: the compressed file is {'cut off' if stream.fault == 'truncated' else 'damaged'}.")
    return content


def _check_size(place: str, size: int) -> None:
    if size > MOST_BYTES:
        raise InputError(f"{place}: it decompresses to more than {MOST_BYTES:,} bytes, too many for an evaluation set.")


def _json_rows(place: str, content: bytes) -> Rows:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{place}: byte {error.start} is not UTF-8, so it can't be read as an evaluation set.") from error
    if not text.strip():
        raise InputError(f"{place}: the evaluation set is empty.")
    whole = _whole(text)
    return _jsonl_rows(place, text) if whole is None else whole


def _whole(text: str) -> Rows | None:
    """Returns the rows of a text that is one JSON value; None if it is not, or if the value holds no list of objects."""
    if text.lstrip()[0] == "{" and text.strip().find("}\n{") >= 0:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, dict):
        value = next((value[key] for key in LISTS if isinstance(value.get(key), list)), None)
    if not isinstance(value, list) or not value or not all(isinstance(row, dict) for row in value):
        return None
    return _squad_rows(value) or None if "paragraphs" in value[0] else value


def _squad_rows(articles: Rows) -> Rows:
    """Returns the questions of SQuAD's own files (articles of paragraphs of questions) as rows like those on Hugging Face."""
    return [
        {"context": paragraph.get("context"), **question}
        for article in articles
        for paragraph in _objects(article.get("paragraphs"))
        for question in _objects(paragraph.get("qas"))
    ]


def _objects(value: Any) -> Rows:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _jsonl_rows(place: str, text: str) -> Rows:
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{place}:{number}: not JSON ({str(error)[:100]}).") from error
            if not isinstance(row, dict):
                raise InputError(f"{place}:{number}: an item of an evaluation set has to be a JSON object.")
            rows.append(row)
    return rows
