"""What a file is, decided by what it holds; its name is only asked whether it says something else."""

import json
import re
from dataclasses import dataclass
from typing import IO

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.ingest.files import open_file
from corpusmill.pipeline.ingest.inflate import GZIP, ZSTD, inflating
from corpusmill.pipeline.ingest.parquet import open_groups
from corpusmill.pipeline.ingest.walk import begins_one_stream
from corpusmill.pipeline.manifest import FileRef

#: Decompressed bytes at the beginning of a file that are looked at.
HEAD = 1 << 16
NAMES = {
    "warc": re.compile(r"\.(warc|wet|wat)(\.gz|\.zst)?$", re.IGNORECASE),
    "jsonl": re.compile(r"\.(jsonl|ndjson|json)(\.gz|\.zst)?$", re.IGNORECASE),
    "parquet": re.compile(r"\.parquet$", re.IGNORECASE),
}
TITLES = {"warc": "WARC", "jsonl": "JSONL", "parquet": "Parquet"}


@dataclass(frozen=True)
class Source:
    """A file that can be read. `layout`: `plain`, `gzip` or `zstd` (one compressed stream), or `members` (a WARC
    with a gzip member for each record); Parquet is `plain`."""

    ref: FileRef
    format: str
    layout: str


@dataclass(frozen=True)
class Refused:
    """A file that can't be read though it is said to hold data: `rule` for the report, `reason` for people."""

    ref: FileRef
    rule: str
    reason: str


@dataclass(frozen=True)
class Ignored:
    """A file in a folder that does not claim to hold documents: an index, a log, a marker."""

    path: str


def named_format(path: str) -> str | None:
    """The format that a file's name promises."""
    return next((name for name, pattern in NAMES.items() if pattern.search(path)), None)


def examine(ref: FileRef) -> Source | Refused | Ignored:
    """Looks at the beginning of a file."""
    promised = named_format(ref.path)
    if not ref.bytes:
        return Refused(ref, "empty_file", f"{ref.path}: there is nothing in it.") if promised else Ignored(ref.path)
    try:
        with open_file(ref.path) as file:
            return _examine(ref, file, promised)
    except InputError as error:
        return Refused(ref, "unreadable", str(error))
    except OSError as error:
        return Refused(ref, "unreadable", f"{ref.path}: can't be read ({error.strerror or error}).")


def _examine(ref: FileRef, file: IO[bytes], promised: str | None) -> Source | Refused | Ignored:
    start = file.read(4)
    file.seek(0)
    if start == b"PAR1":
        open_groups(ref.path, file).close()
        return _unless_promised(Source(ref, "parquet", "plain"), promised)
    compression = "gzip" if start.startswith(GZIP) else "zstd" if start == ZSTD else "plain"
    head = file.read(HEAD) if compression == "plain" else _inflated_head(file, compression)
    if not head.strip(b"\0\r\n\t ") and promised:
        return Refused(
            ref,
            "empty_file",
            f"{ref.path}: there is nothing in it{' but an empty or broken ' + compression + ' stream' if compression != 'plain' else ''}.",
        )
    if head.lstrip(b"\r\n").startswith(b"WARC/"):
        if compression == "gzip":
            file.seek(0)
            compression = "gzip" if begins_one_stream(file) else "members"
        return _unless_promised(Source(ref, "warc", compression), promised)
    if _is_jsonl(head, promised):
        return _unless_promised(Source(ref, "jsonl", compression), promised)
    if head.startswith(b"filedesc://"):
        return Refused(ref, "wrong_format", f"{ref.path}: an ARC file, the format before WARC, which is not read yet; convert it to WARC.")
    if promised is None:
        return Ignored(ref.path)
    return Refused(
        ref, "wrong_format", f"{ref.path}: not a {TITLES[promised]} file, though its name says so (it begins with {_sample(head)})."
    )


def _unless_promised(source: Source, promised: str | None) -> Source | Refused:
    if promised in (None, source.format):
        return source
    reason = f"{source.ref.path}: not a {TITLES[str(promised)]} file, though its name says so (it holds {TITLES[source.format]})."
    return Refused(source.ref, "wrong_format", reason)


def _inflated_head(file: IO[bytes], compression: str) -> bytes:
    stream = inflating(file, compression)
    head = b""
    while len(head) < HEAD and (part := stream.read(HEAD - len(head))):
        head += part
    return head


def _is_jsonl(head: bytes, promised: str | None) -> bool:
    """Whether a line of the beginning is a JSON object; a file that promises JSONL may have bad lines before it."""
    lines = [line for line in head.removeprefix(b"\xef\xbb\xbf").split(b"\n") if line.strip()]
    if not lines or (promised != "jsonl" and not lines[0].lstrip().startswith(b"{")):
        return False
    if len(lines) == 1 and len(head) >= HEAD:
        return lines[0].lstrip().startswith(b"{")  # a line longer than what was read
    return any(_is_object(line) for line in (lines if promised == "jsonl" else lines[:1]))


def _is_object(line: bytes) -> bool:
    try:
        return line.lstrip().startswith(b"{") and isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _sample(head: bytes) -> str:
    """The first characters of a file, safe to print on a terminal."""
    text = head[:40].decode("utf-8", "replace")
    return repr("".join(c if c.isprintable() else "?" for c in text))
