"""WARCs and ARCs that hold a record in each compressed frame, walked by hand, and files that do not.

A frame is a gzip member, a zstd frame or an LZ4 frame. Offsets and lengths are those of frames in the file; frames
without a record (a dictionary, newlines alone) and zero bytes count to the record before them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from corpusmill.ingest.headers import GRAMMARS, HUGE, MAX_HEADER, Grammar
from corpusmill.ingest.walk import TRAILER, Gap, Raw, walk
from corpusmill.pipeline.formats.compressed import CHUNK, Codec, Corrupt, codec_of
from corpusmill.pipeline.formats.detect import NEWLINES, Ignored, InputFile, Refused, detect
from corpusmill.pipeline.formats.streams import RangeFile, Window
from corpusmill.pipeline.manifest import FileRef

#: What the layout of a file with a compressed frame for each record ends with.
FRAMED = "-frames"
#: Decompressed bytes asked for at a time.
PART = 1 << 20
#: Bytes of what may be a frame that are looked at: a zstd block comes out whole, and may have 128 KiB.
PROBE = 1 << 18
#: A huge frame that decompresses to more than so many times its size is a bomb: the next frame is looked for, not its end.
BOMB = 200


@dataclass(frozen=True)
class Frame:
    content: bytes  # up to the limit
    size: int
    end: int
    fault: str | None

    @property
    def blank(self) -> bool:
        return self.fault is None and self.size == len(self.content) and not self.content.strip(NEWLINES)


def read_frame(file: RangeFile, codec: Codec, start: int, limit: int) -> Frame:
    """The frame that begins at `start`; `fault` where it is cut (`truncated`), `corrupt`, or a `bomb`."""
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
    """The records of each frame from `start` on; several in one frame all have the frame's offset and length."""
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
    """Where something begins behind zero bytes and frames without records, and the frame there; None at the end."""
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
    content = memoryview(frame.content)
    if frame.size > len(content):  # cut at the limit on purpose: the record is too large, not the file broken
        heads = grammar.heads(Window(Bytes(content)))
        if isinstance(heads, str):
            yield Gap(offset, length, "corrupt", heads)
            return
        head = heads[0]
        if len(head.header) + head.size > len(content):
            yield Raw(offset, length, head.header, bytes(content[len(head.header) : len(head.header) + limit]), head.size)
            return
    for part in walk(Window(Bytes(content)), grammar, limit):
        if isinstance(part, Gap):
            yield Gap(offset, length, "corrupt", f"{part.reason}, in the compressed record at {offset}")
        else:
            yield Raw(offset, length, part.header, part.block, part.size)


class Bytes:
    def __init__(self, content: memoryview):
        self.content, self.position = content, 0

    def read(self, size: int, /) -> bytes:
        part = bytes(self.content[self.position : self.position + size])
        self.position += len(part)
        return part


def next_frame(file: RangeFile, codec: Codec, grammar: Grammar, start: int) -> int:
    """Where the next frame with a record begins, or the end of the file."""
    file.seek(start)
    window = Window(file, start)
    while window.seek_pattern(codec.magic):
        head = _first_bytes(codec, window)
        if grammar.may_begin(head.lstrip(NEWLINES)):
            return window.position
        window.skip(1)
    return file.end - file.start


def _first_bytes(codec: Codec, window: Window) -> bytes:
    """What a frame at the window's position begins with; nothing where there is none."""
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
    """Whether a compressed file holds its records in one long stream, not a frame each.

    Decided by its first frame that holds anything: it goes on after its first record, or ends within it.
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
            return False  # cut within its first frame: nothing lies behind it either way
        try:
            out = decoder.feed(rest, PART)
        except Corrupt:
            return False
        rest = decoder.rest
        size += len(out)
        tail = (tail + out)[-TRAILER:]
        if expected is None:
            head += out
            found = grammar.heads(Window(Bytes(memoryview(head))))
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
    """The layout of a WARC or ARC: `plain`, one compressed stream (`gzip`), or a compressed frame for each record (`gzip-frames`)."""
    if compression == "plain":
        return compression
    codec = codec_of(file, compression)
    file.seek(0)
    return compression if begins_one_stream(file, codec, GRAMMARS[format]) else compression + FRAMED


def examine(ref: FileRef, text_key: str = "text") -> InputFile | Refused | Ignored:
    """What a file is, with the layout of a WARC or ARC. `text_key`: the column of Parquet that should hold the text."""
    return detect(ref, text_key, layout_of)
