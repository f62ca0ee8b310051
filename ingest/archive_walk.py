"""Walks the records of a WARC or ARC with their exact borders. Each byte of a damaged file belongs to a record or to a `Gap`.

FastWARC reads sound WARCs (`warc.py`); this walk decides where FastWARC stops or can't read. A stretch that is not a record becomes one
`Gap`. The result of the walk at a place does not depend on anything before the place. So a file that is cut at the beginnings of records
gives the same records as the whole file.

This file has three parts: how records begin, the walk over plain bytes, and the walk over files that hold a record in each compressed frame
(a gzip member, a zstd frame or an LZ4 frame). In such files, offsets and lengths are those of frames. Zero bytes and frames without a
record (a dictionary, or blank lines alone) belong to the record before them.
"""

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Protocol

from corpusmill.pipeline.formats.compressed import CHUNK, Codec, Corrupt, codec_of
from corpusmill.pipeline.formats.detect import NEWLINES, WARC_MAGIC, Ignored, InputFile, Refused, detect
from corpusmill.pipeline.formats.streams import RangeFile, Window
from corpusmill.pipeline.manifest import FileRef

#: The longest header of a WARC record that is accepted, in bytes.
MAX_HEADER = 1 << 20
#: No limit of a recipe accepts a record larger than this, in bytes.
HUGE = 1 << 30
#: The longest line before an ARC record that is accepted, and the longest line of a damaged WARC header, in bytes.
MAX_LINE = 1 << 14
#: A length in a WARC header. Accepts all that FastWARC accepts, and more, so that the walk finds no damage in records that FastWARC reads.
CONTENT_LENGTH = re.compile(rb"\n[\r\f]*content-length[ \t\r\n\f]*:[ \t\r\n\f]*\+?(\d{1,18})[ \t\r\f]*(?=\n)", re.IGNORECASE)
HEADER_END = re.compile(rb"\n\r*\n")
STRICT_END = b"\r\n\r\n"
VERSION_LINE = re.compile(rb"WARC/[01]\.\d{1,2}[ \t]*\r*\n")
VERSION_LINE_CRLF = re.compile(rb"WARC/[^\n]*\r\n")
HEADER_LINE = re.compile(rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+[ \t]*:|[ \t]).*\n")
BLANK_LINE = re.compile(rb"\r*\n")
ARC_DATE = re.compile(rb"\d{8,20}")
ARC_ADDRESS = re.compile(rb"[0-9a-fA-F.:]{2,45}|-")
ARC_LENGTH = re.compile(rb"(\d{1,18})\r?\n")
ARC_SCHEME = re.compile(rb"[a-zA-Z][a-zA-Z0-9+.-]{0,31}:")


@dataclass(frozen=True)
class ArcLine:
    """The line before an ARC record. The URL and the type may contain spaces."""

    url: bytes
    date: bytes
    type: bytes
    size: int


def parse_arc_line(line: bytes) -> ArcLine | None:
    """Parses a line of URL, IP address, date, type and length; returns None if it is malformed.

    This is version 1 of ARC; version 2 has more fields before the length, which become a part of the type.
    """
    words = line.split(b" ")
    length = ARC_LENGTH.fullmatch(words[-1])
    if not length or not ARC_SCHEME.match(line):
        return None
    for place in range(len(words) - 2, 1, -1):
        if ARC_DATE.fullmatch(words[place]) and ARC_ADDRESS.fullmatch(words[place - 1]):
            return ArcLine(b" ".join(words[: place - 1]), words[place], b" ".join(words[place + 1 : -1]), int(length.group(1)))
    return None


@dataclass(frozen=True)
class Head:
    header: bytes
    size: int  # of the block after it


class Grammar(Protocol):
    """How the walk recognises the records of a format, WARC or ARC."""

    name: str

    def heads(self, window: Window) -> list[Head] | str:
        """Returns the possible headers at the window's position, the likelier first; or, in words, why there is none (`truncated` where the
        stream ends)."""

    def may_begin(self, content: bytes) -> bool:
        """Whether a record may begin with these bytes."""

    def seek_start(self, window: Window, stop: int | None) -> bool:
        """Moves to the next place before `stop` where a record surely begins, and returns True; else moves to `stop` or the end."""


class Warc:
    name = "warc"

    def heads(self, window: Window) -> list[Head] | str:
        start = window.peek(len(WARC_MAGIC))
        if start != WARC_MAGIC:
            return "truncated" if WARC_MAGIC.startswith(start) else "no WARC record begins here"
        end = _header_end(window)
        if end is None:
            return "truncated" if window.ended else "the header does not end"
        headers = [window.peek(end)]
        if not headers[0].endswith(STRICT_END) and VERSION_LINE_CRLF.match(headers[0]):
            block = window.peek(end + MAX_LINE)  # FastWARC reads on to a strict end, so a damaged line may not be the end
            place = block.find(STRICT_END, end - len(STRICT_END))
            headers[:0] = [block[: place + len(STRICT_END)]] if place >= 0 else []
        lengths = [CONTENT_LENGTH.findall(header) for header in headers]
        heads = [Head(header, int(found[-1])) for header, found in zip(headers, lengths) if found]
        return heads or "the header has no Content-Length"

    def may_begin(self, content: bytes) -> bool:
        return content.startswith(WARC_MAGIC)

    def seek_start(self, window: Window, stop: int | None) -> bool:
        while window.seek_pattern(WARC_MAGIC, stop):
            if self._is_start(window):
                return True
            window.skip(1)
        return False

    @staticmethod
    def _is_start(window: Window) -> bool:
        size = 1 << 12
        place = 0
        block = window.peek(size)
        line = VERSION_LINE.match(block)
        length = False
        while line or (len(block) == size and size < MAX_HEADER):
            if line:
                place = line.end()
                if length and BLANK_LINE.match(block, place):
                    return True
                length = length or bool(CONTENT_LENGTH.match(block, place - 1))
            elif b"\n" in block[place:]:
                return False
            else:
                size *= 4
                block = window.peek(size)
            line = (VERSION_LINE if not place else HEADER_LINE).match(block, place)
        return False


class Arc:
    name = "arc"

    def heads(self, window: Window) -> list[Head] | str:
        line = _line(window)
        if not line.endswith(b"\n"):
            return "truncated" if len(line) < MAX_LINE else "no ARC record begins here"
        found = parse_arc_line(line)
        if not found:
            return "the line before the record has no valid length" if ARC_SCHEME.match(line) else "no ARC record begins here"
        return [Head(line, found.size)]

    def may_begin(self, content: bytes) -> bool:
        return bool(ARC_SCHEME.match(content))

    def seek_start(self, window: Window, stop: int | None) -> bool:
        while True:
            line = _line(window)
            scheme = ARC_SCHEME.search(line)
            if scheme and parse_arc_line(line[scheme.start() :]) and (stop is None or window.position + scheme.start() < stop):
                window.skip(scheme.start())
                return True
            window.skip(max(0, len(line) - 1))
            if not window.seek_pattern(b"\n", stop):
                return False
            window.skip(1)


def _header_end(window: Window) -> int | None:
    """Returns the length of the WARC header at the window's position, or None if it does not end."""
    size = 1 << 12
    while True:
        block = window.peek(size)
        if end := HEADER_END.search(block):
            return end.end()
        if len(block) < size or size >= MAX_HEADER:
            return None
        size *= 4


def _line(window: Window) -> bytes:
    """Returns the next line, or about MAX_LINE bytes of a longer one."""
    size = 1 << 9
    while True:
        content = window.peek(size)
        place = content.find(b"\n")
        if place >= 0:
            return content[: place + 1]
        if len(content) < size or size >= MAX_LINE:
            return content
        size *= 4


WARC = Warc()
ARC = Arc()
GRAMMARS: dict[str, Grammar] = {"warc": WARC, "arc": ARC}


#: The next record must begin within this many bytes after a record, including blank lines before it.
TRAILER = 64
#: What blank lines consist of. FastWARC skips them before a record, so the walk does.
BLANK = b" \t\f" + NEWLINES


@dataclass(frozen=True)
class Raw:
    """A whole record: its place, its header, and its block up to a limit."""

    offset: int
    length: int
    header: bytes
    block: bytes
    size: int  # of the whole block


@dataclass(frozen=True)
class Gap:
    """Bytes that are not a whole record. `kind` is `truncated` or `corrupt`."""

    offset: int
    length: int
    kind: str
    reason: str


def walk(window: Window, grammar: Grammar, limit: int) -> Iterator[Raw | Gap]:
    """Yields the records of an uncompressed (or decompressed) file from the window's position to its end."""
    _skip_blank_lines(window)
    while window.ensure(1):
        start = window.position
        heads = grammar.heads(window)
        if isinstance(heads, str):
            window.skip(1)
            yield _gap(window, grammar, start, heads)
            continue
        head, lands = _chosen(window, grammar, heads, limit)
        if lands == "beyond":
            yield _gap(window, grammar, start, "truncated")
            continue
        block = window.take(min(head.size, limit))
        if len(block) + window.skip(head.size - len(block)) < head.size:
            yield Gap(start, window.position - start, "truncated", f"the file ends within the record at {start}")
            return
        _skip_blank_lines(window)
        yield Raw(start, window.position - start, head.header, block, head.size)


def _skip_blank_lines(window: Window) -> None:
    window.skip_any(NEWLINES)
    while window.peek(1) in (b" ", b"\t", b"\f"):
        line = _line(window)
        if line.strip(BLANK) or not line.endswith(b"\n"):
            return
        window.skip(len(line))
        window.skip_any(NEWLINES)


def _chosen(window: Window, grammar: Grammar, heads: list[Head], limit: int) -> tuple[Head, str]:
    """Chooses one of the possible headers: the first whose record ends where the next one begins, else the last header.

    Returns the header, and `beyond` where the file ends within its block, or where its block would include the beginning of another record;
    else `well`. Moves the window past the header.
    """
    start = window.position
    with window.hold(heads[-1].size <= limit + MAX_HEADER):
        for head in heads:
            lands = _lands(window, grammar, head, limit)
            window.go(start)
            if lands == "well":
                break
        block_at = start + len(head.header)
        window.go(block_at)
        if lands == "astray":
            lands = "beyond" if grammar.seek_start(window, block_at + head.size) else "well"
            window.go(block_at)
    return head, lands


def _lands(window: Window, grammar: Grammar, head: Head, limit: int) -> str:
    """Returns what follows a record: another record or nothing (`well`), anything else (`astray`); `beyond` if the file ends within it.

    For a record larger than the limit, in a stream that can't seek, this is unknown: `well`.
    """
    distance = len(head.header) + head.size
    if head.size > limit + MAX_HEADER:
        if window.end is None:
            return "well"
        if window.position + distance > window.end:
            return "beyond"
        window.go(window.position + distance)
        distance = 0
    elif not window.ensure(distance):
        return "beyond"
    rest = window.peek(TRAILER, distance).lstrip(BLANK)
    return "well" if not rest or grammar.may_begin(rest) else "astray"


def _gap(window: Window, grammar: Grammar, start: int, reason: str) -> Gap:
    """Moves to the next place where a record begins; returns the Gap before it."""
    found = grammar.seek_start(window, None)
    length = window.position - start
    if found or reason != "truncated":
        return Gap(start, length, "corrupt", f"{'damaged record' if reason == 'truncated' else reason} (byte {start})")
    return Gap(start, length, "truncated", f"the file ends within the record at {start}")


#: The end of the name of a layout with a compressed frame for each record.
FRAMED = "-frames"
#: Bytes that are decompressed at a time.
PART = 1 << 20
#: Bytes at a possible frame that are read to see whether it is one: zstd decompresses whole blocks, of up to 128 KiB.
PROBE = 1 << 18
#: The most bytes that deflate stores without an interruption.
STORED = (1 << 16) - 1
#: A huge frame that decompresses to more than this many times its size is a bomb. It is not read to its end; the next frame is searched.
BOMB = 200


@dataclass(frozen=True)
class Frame:
    content: bytes  # up to the limit
    size: int
    end: int
    fault: str | None

    @property
    def blank(self) -> bool:
        return self.fault is None and self.size == len(self.content) and not self.content.strip(BLANK)


def read_frame(file: RangeFile, codec: Codec, start: int, limit: int) -> Frame:
    """Reads the frame that begins at `start`. Its `fault` is `truncated`, `corrupt`, `bomb`, or None."""
    file.seek(start)
    decoder = codec.decoder()
    kept: list[bytes] = []
    size = kept_size = 0
    position = start
    rest = b""
    while not decoder.eof:
        if not rest:
            rest = file.read(CHUNK)
            position += len(rest)
        if not rest:
            return Frame(b"".join(kept), size, position, "truncated")
        try:
            out = decoder.feed(rest, PART)
        except Corrupt:
            return Frame(b"".join(kept), size, position, "corrupt")
        rest = decoder.rest
        size += len(out)
        if kept_size < limit:
            kept.append(out[: limit - kept_size])
            kept_size += len(kept[-1])
        if size > HUGE and size > BOMB * (position - start):
            return Frame(b"".join(kept), size, position - len(rest), "bomb")
    return Frame(b"".join(kept), size, position - len(rest), None)


def walk_frames(file: RangeFile, codec: Codec, grammar: Grammar, start: int, limit: int) -> Iterator[list[Raw | Gap]]:
    """Yields the records of each frame from `start` on. If a frame has several, all have the frame's offset and length."""
    end = file.end - file.start
    start, frame = _behind_blanks(file, codec, start, end, limit)
    while frame:
        if frame.fault == "bomb":
            after = next_frame(file, codec, grammar, start + 1)
            yield list(_records_of(frame, grammar, start, after - start, limit))
            start, frame = _behind_blanks(file, codec, after, end, limit)
            continue
        if frame.fault:
            after = next_frame(file, codec, grammar, start + 1)
            yield [_frame_gap(start, after - start, frame.fault if after == end else "corrupt")]
            start, frame = _behind_blanks(file, codec, after, end, limit)
            continue
        after, following = _behind_blanks(file, codec, frame.end, end, limit)
        yield list(_records_of(frame, grammar, start, after - start, limit))
        start, frame = after, following


def _behind_blanks(file: RangeFile, codec: Codec, start: int, end: int, limit: int) -> tuple[int, Frame | None]:
    """Skips zero bytes and frames without records; returns the next place and the frame there, which is None at the end of the file."""
    while start < end:
        file.seek(start)
        if file.read(1) == b"\0":
            window = Window(file, start + 1)
            window.skip_any(b"\0")
            start = window.position
            continue
        frame = read_frame(file, codec, start, limit + MAX_HEADER)
        if not frame.blank:
            return start, frame
        start = frame.end
    return end, None


def _frame_gap(offset: int, length: int, kind: str) -> Gap:
    what = "the file ends within the compressed record" if kind == "truncated" else "damaged compressed record"
    return Gap(offset, length, kind, f"{what} at {offset}")


def _records_of(frame: Frame, grammar: Grammar, offset: int, length: int, limit: int) -> Iterator[Raw | Gap]:
    content = frame.content
    if frame.size > len(content):  # cut at the limit: the record is too large, the file is not damaged
        heads = grammar.heads(Window(io.BytesIO(content)))
        if isinstance(heads, str):
            yield Gap(offset, length, "corrupt", heads)
            return
        head = heads[0]
        if len(head.header) + head.size > len(content):
            yield Raw(offset, length, head.header, content[len(head.header) : len(head.header) + limit], head.size)
            return
    for part in walk(Window(io.BytesIO(content)), grammar, limit):
        if isinstance(part, Gap):
            yield Gap(offset, length, "corrupt", f"{part.reason}, in the compressed record at {offset}")
        else:
            yield Raw(offset, length, part.header, part.block, part.size)


def next_frame(file: RangeFile, codec: Codec, grammar: Grammar, start: int) -> int:
    """Returns the place of the next frame with a record, or the end of the file."""
    file.seek(start)
    window = Window(file, start)
    while window.seek_pattern(codec.magic):
        head = _first_bytes(codec, window)
        if grammar.may_begin(head.lstrip(NEWLINES)):
            return window.position
        window.skip(1)
    return file.end - file.start


def sure_frame(file: RangeFile, codec: Codec, grammar: Grammar, start: int) -> int:
    """Returns the place of the next gzip member with a record that is surely one of this file, or the end of the file.

    A record may hold another archive. Its members can lie there as they are only where the record's own member stores bytes without
    compression, and deflate (RFC 1951, 3.2.4) interrupts these after at most 65,535 bytes. So members that follow each other for longer
    are the file's own. The last ones of a file never are sure.
    """
    end = file.end - file.start
    while (place := next_frame(file, codec, grammar, start)) < end:
        _, frame = _behind_blanks(file, codec, place, end, 0)
        while frame and not frame.fault and frame.end - place <= STORED:
            _, frame = _behind_blanks(file, codec, frame.end, end, 0)
        if frame and not frame.fault:
            return place
        start = place + 1
    return end


def _first_bytes(codec: Codec, window: Window) -> bytes:
    """Returns the first decompressed bytes of the frame at the window's position; none where no frame begins there."""
    decoder = codec.decoder()
    place = 0
    while place < PROBE and not decoder.eof:
        chunk = window.peek(1 << 11, place)
        try:
            if not chunk or (out := decoder.feed(chunk, TRAILER)):
                return out if chunk else b""
        except Corrupt:
            return b""
        place += len(chunk)
    return b""


def begins_one_stream(file: IO[bytes], codec: Codec, grammar: Grammar) -> bool:
    """Whether a compressed file holds its records in one long stream, instead of a frame for each.

    The first frame that is not empty decides: in one long stream it continues after its first record, or ends within it.
    """
    decoder = codec.decoder()
    head = tail = rest = b""
    size = 0
    expected: int | None = None
    while not (decoder.eof and size):
        if decoder.eof:  # a dictionary, or an empty frame
            decoder = codec.decoder()
        rest = rest or file.read(CHUNK)
        if not rest:
            return False  # the file ends within its first frame, so both layouts give the same
        try:
            out = decoder.feed(rest, PART)
        except Corrupt:
            return False
        rest = decoder.rest
        size += len(out)
        tail = (tail + out)[-TRAILER:]
        if expected is None:
            head += out
            found = grammar.heads(Window(io.BytesIO(head)))
            if not isinstance(found, str):
                expected = len(found[-1].header) + found[-1].size
            elif len(head) > MAX_HEADER:
                return False
        if expected is not None and size > expected + TRAILER:
            return True
    if expected is None or size < expected:
        return grammar.may_begin(head)
    return bool(tail[len(tail) - (size - expected) :].strip(NEWLINES))


def layout_of(file: IO[bytes], format: str, compression: str) -> str:
    """Returns the layout of a WARC or ARC: `plain`, one compressed stream (such as `gzip`), or a frame for each record (`gzip-frames`)."""
    if compression == "plain":
        return compression
    codec = codec_of(file, compression)
    file.seek(0)
    return compression if begins_one_stream(file, codec, GRAMMARS[format]) else compression + FRAMED


def examine(ref: FileRef, text_key: str = "text") -> InputFile | Refused | Ignored:
    """Returns the format of a file, and the layout of a WARC or ARC. `text_key`: the column of Parquet that should hold the text."""
    return detect(ref, text_key, layout_of)
