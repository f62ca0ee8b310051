"""Detects the format of a file by its content. The file's name tells which format it should have."""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, TypeAlias

from corpusmill.pipeline.config import parse_json
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.files import open_file
from corpusmill.pipeline.formats.compressed import compression_of, inflating
from corpusmill.pipeline.formats.delimited import header_fault, split_rows
from corpusmill.pipeline.formats.parquet import group_bytes, open_parquet, text_fault
from corpusmill.pipeline.formats.streams import Window
from corpusmill.pipeline.manifest import FileRef

#: Decompressed bytes that are read from the beginning of a file.
HEAD = 1 << 16
WARC_MAGIC = b"WARC/"
FILEDESC = b"filedesc://"
NEWLINES = b"\r\n"
COMPRESSED = r"(\.gz|\.zst|\.lz4)?$"
NAMES = {
    "warc": re.compile(r"\.(warc|wet|wat)" + COMPRESSED, re.IGNORECASE),
    "arc": re.compile(r"\.arc" + COMPRESSED, re.IGNORECASE),
    "jsonl": re.compile(r"\.(jsonl|ndjson|json)" + COMPRESSED, re.IGNORECASE),
    "parquet": re.compile(r"\.parquet$", re.IGNORECASE),
    "csv": re.compile(r"\.(csv|tsv|tab)" + COMPRESSED, re.IGNORECASE),
    "html": re.compile(r"\.(html?|xhtml)" + COMPRESSED, re.IGNORECASE),
    "text": re.compile(r"\.(txt|text|md|markdown)" + COMPRESSED, re.IGNORECASE),
}
TITLES = {"warc": "WARC", "arc": "ARC", "jsonl": "JSONL", "parquet": "Parquet", "csv": "CSV", "html": "HTML", "text": "text"}
#: Formats that are detected by the file's name alone: nearly any bytes can be a page or a text.
BY_NAME = ("html", "text")
#: How files begin that are neither, whatever their name: PDF, ZIP (also of offices and e-books), PNG, JPEG, GIF.
BINARY = (b"%PDF-", b"PK\x03\x04", b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF8")
#: The names of all formats, for messages.
KNOWN = "WARC, ARC, JSONL, Parquet, CSV, TSV, HTML or text"


@dataclass(frozen=True)
class InputFile:
    """A file that can be read.

    `layout`: `plain` (Parquet, too); `gzip`, `zstd` or `lz4` for one compressed stream; `gzip-frames` and so on for a WARC or ARC with a
    compressed frame for each record. `groups`: for Parquet, the compressed size of each row group in bytes. `fault`: for Parquet, CSV and
    TSV, one sentence on what is wrong with the text column.
    """

    ref: FileRef
    format: str
    layout: str
    groups: tuple[int, ...] = ()
    fault: str = ""


@dataclass(frozen=True)
class Refused:
    """A file that should hold data, but can't be read: `rule` is its rule in the report, `reason` a sentence for the user."""

    ref: FileRef
    rule: str
    reason: str


@dataclass(frozen=True)
class Ignored:
    """A file in a folder that does not claim to hold documents: an index, a log, a marker."""

    path: str


def named_format(path: str) -> str | None:
    """Returns the format that a file's name promises; None if it promises none."""
    return next((name for name, pattern in NAMES.items() if pattern.search(path)), None)


#: A function that returns the layout of an open WARC or ARC, from the file, its format and its compression.
LayoutOf: TypeAlias = Callable[[IO[bytes], str, str], str]


def detect(
    ref: FileRef, text_key: str = "text", layout_of: LayoutOf = lambda file, format, compression: compression
) -> InputFile | Refused | Ignored:
    """Returns the format of a file from its beginning (Parquet: its footer). `text_key`: the column that should hold the text."""
    promised = named_format(ref.path)
    if not ref.bytes:
        return Refused(ref, "empty_file", f"{ref.path}: there is nothing in it.") if promised else Ignored(ref.path)
    try:
        with open_file(ref.path, ref.bytes, whole=HEAD) as file:
            return _detect(ref, file, promised, text_key, layout_of)
    except InputError as error:
        return Refused(ref, "unreadable", str(error))
    except OSError as error:
        return Refused(ref, "unreadable", f"{ref.path}: can't be read ({error.strerror or error}).")


def _detect(ref: FileRef, file: IO[bytes], promised: str | None, text_key: str, layout_of: LayoutOf) -> InputFile | Refused | Ignored:
    start = file.read(4)
    file.seek(0)
    if start == b"PAR1":
        with open_parquet(ref.path, file) as parquet:
            source = InputFile(ref, "parquet", "plain", tuple(group_bytes(parquet)), text_fault(ref.path, parquet, text_key))
        return _unless_promised(source, promised)
    compression = compression_of(start) or "plain"
    head = file.read(HEAD) if compression == "plain" else _inflated_head(file, compression)
    if not head.strip(b"\0\r\n\t ") and promised:
        what = f" but an empty or broken {compression} stream" if compression != "plain" else ""
        return Refused(ref, "empty_file", f"{ref.path}: there is nothing in it{what}.")
    begins = head.lstrip(NEWLINES)
    if begins.startswith((WARC_MAGIC, FILEDESC)):
        format = "warc" if begins.startswith(WARC_MAGIC) else "arc"
        return _unless_promised(InputFile(ref, format, layout_of(file, format, compression)), promised)
    if promised in BY_NAME and not begins.startswith(BINARY):
        return InputFile(ref, str(promised), compression)
    if _is_jsonl(head, promised):
        return _unless_promised(InputFile(ref, "jsonl", compression), promised)
    if promised == "csv" and b"\0" not in head:
        header = next(split_rows(ref.path, Window(io.BytesIO(head)), HEAD), None)
        return InputFile(ref, "csv", compression, fault=header_fault(ref.path, header, text_key))
    if promised is None:
        return Ignored(ref.path)
    return Refused(ref, "wrong_format", f"{ref.path}: not {_a(promised)} file, though its name says so (it begins with {_sample(head)}).")


def _unless_promised(source: InputFile, promised: str | None) -> InputFile | Refused:
    if promised in (None, source.format, *BY_NAME):
        return source
    reason = f"{source.ref.path}: not {_a(str(promised))} file, though its name says so (it holds {TITLES[source.format]})."
    return Refused(source.ref, "wrong_format", reason)


def _a(format: str) -> str:
    return f"{'an' if format in ('arc', 'html') else 'a'} {TITLES[format]}"


def _inflated_head(file: IO[bytes], compression: str) -> bytes:
    stream = inflating(file, compression)
    head = b""
    while len(head) < HEAD and (part := stream.read(HEAD - len(head))):
        head += part
    return head


def _is_jsonl(head: bytes, promised: str | None) -> bool:
    """Whether the file begins with a JSON object on a line. Where its name promises JSONL, bad lines may come before that line."""
    lines = [line for line in head.removeprefix(b"\xef\xbb\xbf").split(b"\n") if line.strip()]
    if not lines or (promised != "jsonl" and not lines[0].lstrip().startswith(b"{")):
        return False
    if len(lines) == 1 and len(head) >= HEAD:
        return lines[0].lstrip().startswith(b"{")  # a line longer than what was read
    return any(_is_object(line) for line in (lines if promised == "jsonl" else lines[:1]))


def _is_object(line: bytes) -> bool:
    try:
        return line.lstrip().startswith(b"{") and isinstance(parse_json(line), dict)
    except ValueError:
        return False


#: The most undecodable characters of a sample of 40 that a message still shows.
BROKEN = 4


def _sample(head: bytes) -> str:
    """Returns the first characters of a file, safe to print on a terminal."""
    text = head[:40].decode("utf-8", "replace")
    if text.count("\ufffd") > BROKEN:
        return "bytes that are no text"
    return repr("".join(c if c.isprintable() else "?" for c in text))
