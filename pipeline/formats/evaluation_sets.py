"""Reads rows in the formats in which evaluation sets and labelled texts are published: JSONL, JSON, CSV, TSV, Parquet and Arrow, compressed
files and zip archives."""

import csv
import io
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import IO, Any

import pyarrow as pa

from corpusmill.pipeline.config import parse_json
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.files import open_file
from corpusmill.pipeline.formats.compressed import compression_of, inflating
from corpusmill.pipeline.formats.delimited import delimiter_of
from corpusmill.pipeline.formats.parquet import open_parquet

#: The keys under which JSON files keep their rows, if the file is not a list itself.
LISTS = ("data", "examples", "rows", "questions", "instances")
#: The most decompressed bytes and rows of a file, which is held in memory; and the bytes that are read at a time.
MOST_BYTES, MOST_ROWS, CHUNK = 1 << 30, 10_000_000, 1 << 20
DELIMITED = (".csv", ".tsv")
ENDINGS = (".jsonl", ".ndjson", ".json", *DELIMITED, ".parquet", ".arrow", ".zip")
COMPRESSIONS = (".gz", ".zst", ".lz4")
READ = "JSONL, JSON, CSV, TSV, Parquet and Arrow are read, plain or in .gz, .zst, .lz4 or .zip"
#: Names of files beside a set's rows that hold no items: what the library `datasets` saves, and what stands in any repository.
NO_ITEMS = re.compile(
    r"(?i)[._].*|dataset_(info|dict|infos)\.json|state\.json|(readme|licen[cs]e|citation|changelog)\b.*|.*\.(md|py|ya?ml|toml|lock|bib|html)"
)
#: Columns for the answers to choose from: `A`, `choice_a`, `option1`, `answerB`, `opa`.
OPTION = re.compile(r"(?i)(?:choice|option|answer|op)?[ _]?(?:[a-j]|[1-9])")

Rows = list[dict[str, Any]]


def data_files(place: str, paths: Sequence[str]) -> list[str]:
    """Returns the files of a folder, pattern or archive that hold rows, by their names; `place` itself in any case. Raises
    InputError if there are none, and if one may hold rows but can't be read."""
    found = []
    for path in paths:
        inside = [part for part in PurePosixPath(path).parts if part not in (*PurePosixPath(place).parts, "..")]
        if path == place:
            return [path]
        if path.endswith("/") or any(part.startswith(".") for part in inside) or NO_ITEMS.fullmatch(PurePosixPath(path).name):
            continue
        if not _bare(path).endswith(ENDINGS):
            raise InputError(f"{path}: not a kind of file that holds rows ({READ}); name the other files, or move this one.")
        found.append(path)
    if not found:
        raise InputError(f"{place}: no file with rows in it ({READ}).")
    return found


def _bare(name: str) -> str:
    """Returns a file's name without the ending of a compression."""
    return next((name.removesuffix(compression) for compression in COMPRESSIONS if name.endswith(compression)), name)


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
            places = data_files(path, [f"{path}/{name}" for name in sorted(archive.namelist())])
            names = [place.removeprefix(f"{path}/") for place in places]
            _check_size(path, sum(archive.getinfo(name).file_size for name in names))
            members = [(place, archive.read(name)) for place, name in zip(places, names, strict=True)]
    except InputError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError) as error:  # or a password
        raise InputError(f"{path}: not a readable zip archive ({error}).") from error
    for place, content in members:
        yield place, _read_rows(place, io.BytesIO(content), content[:8])


def _read_rows(place: str, file: IO[bytes], start: bytes) -> Rows:
    if start.startswith(b"PAR1"):
        batches: Iterable[pa.RecordBatch] = open_parquet(place, file).iter_batches(use_threads=False)
    elif start.startswith((b"ARROW1", b"\xff\xff\xff\xff")):
        batches = _arrow_batches(place, file, start)
    else:
        return _text_rows(place, _inflated(place, file, start))
    try:
        rows = [row for batch in batches for row in batch.to_pylist()]
    except (pa.ArrowException, OSError, MemoryError, ValueError) as error:
        raise _unreadable(place, "Arrow or Parquet", error) from error
    return _some(place, rows)


def _some(place: str, rows: Rows) -> Rows:
    if not rows:
        raise InputError(f"{place}: there is no row in it.")
    return rows


def _arrow_batches(place: str, file: IO[bytes], start: bytes) -> list[pa.RecordBatch]:
    try:
        opened = pa.ipc.open_file(file) if start.startswith(b"ARROW1") else pa.ipc.open_stream(file)
        batches: list[pa.RecordBatch] = opened.read_all().to_batches()
        for batch in batches:
            batch.validate(full=True)  # Arrow trusts the sizes that a file states
        if sum(batch.num_rows for batch in batches) > MOST_ROWS:
            raise InputError(f"{place}: it has more than {MOST_ROWS:,} rows, too many for memory.")
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
        raise InputError(f"{place}: it decompresses to more than {MOST_BYTES:,} bytes, too many for memory.")


def _text_rows(place: str, content: bytes) -> Rows:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{place}: byte {error.start} is not UTF-8.") from error
    read = _delimited_rows if _bare(place).endswith(DELIMITED) else _json_rows
    return _some(place, read(place, text) if text.strip() else [])


def _delimited_rows(place: str, text: str) -> Rows:
    """Returns the rows of CSV or TSV. Columns of options become the list `choices`. MMLU's own files have no line of names."""
    csv.field_size_limit(MOST_BYTES)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter_of(_bare(place), text.partition("\n")[0].encode()), strict=True)
    names: list[str] = []
    rows: Rows = []
    try:
        for fields in reader:
            if not names and len(fields) == 6 and re.fullmatch("[A-D]", fields[5]):
                names = ["question", "A", "B", "C", "D", "answer"]
            elif not names:
                names = fields
                continue
            if len(fields) not in (0, len(names)):
                raise csv.Error(f"it has {len(fields)} of {len(names)} columns")
            if fields:
                row = dict(zip(names, fields, strict=True))
                options = [value for name, value in row.items() if OPTION.fullmatch(name)]
                rows.append({**({"choices": options} if len(options) > 1 else {}), **row})
    except csv.Error as error:
        raise InputError(f"{place}:{reader.line_num}: not a row of CSV ({error}).") from error
    return rows


def _json_rows(place: str, text: str) -> Rows:
    whole = _whole(text)
    return _jsonl_rows(place, text) if whole is None else whole


def _whole(text: str) -> Rows | None:
    """Returns the rows of a text that is one JSON value; None if it is not, or if the value holds no list of objects."""
    if text.lstrip()[0] == "{" and text.strip().find("}\n{") >= 0:
        return None
    try:
        value = parse_json(text)
    except ValueError:
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
                row = parse_json(line)
            except ValueError as error:
                raise InputError(f"{place}:{number}: not JSON ({str(error)[:100]}).") from error
            if not isinstance(row, dict):
                raise InputError(f"{place}:{number}: a row has to be a JSON object.")
            rows.append(row)
    return rows
