"""The rows of training files: JSONL and Parquet with columns, text with a line or a file a row."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from corpusmill.filters.classifier.defaults.corpora import PREFIX, corpus_path
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.files import expand, file_ref, local_path, open_file
from corpusmill.pipeline.formats.compressed import Inflating, compression_of, inflating
from corpusmill.pipeline.formats.detect import InputFile, detect
from corpusmill.pipeline.formats.parquet import open_parquet
from corpusmill.pipeline.formats.streams import Window, split_lines
from corpusmill.pipeline.storage import is_remote
from corpusmill.pipeline.text.damage import storable

#: A line, or a text, that is longer is refused, bytes.
MOST_BYTES = 256 << 20
#: Rows of Parquet that are Python objects at a time.
BATCH = 256
#: Of text files: the name of the one column that they have.
TEXT = "text"


@dataclass(frozen=True)
class File:
    """A file to read: `format` is jsonl, parquet, lines or documents; `compression` None, gzip, zstd or lz4."""

    path: str
    format: str
    compression: str | None


def find_files(given: str, folder: str | Path, format: str = "auto") -> list[File]:
    """The files of one input (a file, folder, glob or URL, relative to `folder`; or a corpus, `package://NAME`), in sorted order.

    Raises InputError where there are none, or one that is named itself can't be read as examples.
    """
    if given.startswith(PREFIX):
        given = str(corpus_path(given.removeprefix(PREFIX)))
    path = given if is_remote(given) else str(Path(folder) / given)
    paths = expand(path)
    alone = paths == [path]
    if not alone:
        paths = [path for path in paths if not Path(path).name.startswith((".", "_"))]
    found = [file for path in paths if (file := _examined(path, format, alone))]
    if not found:
        raise InputError(f"{given}: no JSONL, Parquet or text file in it.")
    return found


def _examined(path: str, format: str, alone: bool) -> File | None:
    """None where a file of a folder is no file of examples."""
    if format in ("lines", "documents"):
        with open_file(path) as file:
            return File(path, format, compression_of(file.read(4)))
    found = detect(file_ref(path))
    if isinstance(found, InputFile) and found.format in ("jsonl", "parquet", "text") and format in ("auto", found.format):
        kind = ("lines" if alone else "documents") if found.format == "text" else found.format
        return File(path, kind, None if found.layout == "plain" else found.layout.split("-")[0])
    if not alone:
        return None
    if isinstance(found, InputFile):
        wanted = "JSONL, Parquet or text" if format == "auto" else format
        raise InputError(f"{path}: not a {wanted} file (it holds {found.format}).")
    raise InputError(getattr(found, "reason", f"{path}: not a JSONL, Parquet or text file."))


def read_rows(file: File, columns: Sequence[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """`(place, row)`: where a row lies, for sentences (`data.jsonl:12`), and its columns; of Parquet only those that are asked for.

    Raises InputError where the file breaks, or a row is none.
    """
    with open_file(file.path) as stream:
        if file.format == "parquet":
            yield from _parquet(file.path, stream, columns)
        elif file.format == "documents":
            content = b"".join(line for _, line in _lines(file, stream))
            yield file.path, {TEXT: _decoded(file.path, content)}
        else:
            for number, line in _lines(file, stream):
                if line.strip():
                    place = f"{file.path}:{number}"
                    text = _decoded(place, line)
                    yield place, _object(place, text) if file.format == "jsonl" else {TEXT: text.strip("\r\n")}


def _lines(file: File, stream: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """The lines of a file, numbered from 1, without a byte order mark."""
    content = inflating(stream, file.compression) if file.compression else stream
    for number, line in enumerate(split_lines(Window(content), MOST_BYTES), 1):
        if isinstance(content, Inflating) and content.fault and not line.ended:
            break  # a line of which the rest is lost
        if len(line.content) < line.length:
            raise InputError(f"{file.path}:{number}: the line has {line.length:,} bytes, more than {MOST_BYTES:,}.")
        yield number, line.content.removeprefix(b"\xef\xbb\xbf") if number == 1 else line.content
    if isinstance(content, Inflating) and content.fault:
        what = "ends before its time" if content.fault == "truncated" else "is damaged"
        raise InputError(f"{file.path}: the compressed file {what}.")


def _decoded(place: str, content: bytes) -> str:
    try:
        return storable(content.decode("utf-8")) or ""
    except UnicodeDecodeError as error:
        raise InputError(f"{place}: byte {error.start} is not UTF-8.") from error


def _object(place: str, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place}: not JSON ({str(error)[:100]}).") from error
    if not isinstance(found, dict):
        raise InputError(f"{place}: not a JSON object.")
    return found


def _parquet(path: str, stream: IO[bytes], columns: Sequence[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    import pyarrow as pa

    with open_parquet(path, stream) as parquet:
        names = parquet.schema_arrow.names
        missing = [name for name in columns if name not in names]
        if missing:
            raise InputError(f"{path}: has no column {missing[0]!r} (it has {', '.join(names)}).")
        number = 0
        try:
            for batch in parquet.iter_batches(BATCH, columns=list(dict.fromkeys(columns)), use_threads=False):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}: row {number}", row
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{path}: not a readable Parquet file ({str(error).splitlines()[0].rstrip('.')}).") from error


def fingerprint(path: str) -> dict[str, Any]:
    """A file's name without the folders of the machine, its bytes and sha256."""
    digest, size = hashlib.sha256(), 0
    with open_file(path) as file:
        while part := file.read(1 << 20):
            digest.update(part)
            size += len(part)
    return {"name": Path(local_path(path)).name, "bytes": size, "sha256": digest.hexdigest()}
