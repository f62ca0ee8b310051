"""How records begin: the header of a WARC record and the line before one of ARC, read as they are and recognised
where they are searched for behind damage.

`heads` takes what real writers write. `is_start` is strict, for it is asked about any place of a damaged stretch, where
text may merely look like a record; it reads each line once, however hostile the text is.
"""

import re
from dataclasses import dataclass
from typing import Protocol

from corpusmill.pipeline.formats.detect import WARC_MAGIC
from corpusmill.pipeline.formats.streams import Window

#: The longest block of WARC header lines that is believed, bytes.
MAX_HEADER = 1 << 20
#: A record larger than this is more than any limit lets in, bytes.
HUGE = 1 << 30
#: The longest line before an ARC record that is believed, and the longest of a damaged WARC header, bytes.
MAX_LINE = 1 << 14
#: All that FastWARC takes for a length, and more: what it reads must not be damage where the walk comes to it.
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
    """What the line before an ARC record says. The URL and the type may hold spaces."""

    url: bytes
    date: bytes
    type: bytes
    size: int


def parse_arc_line(line: bytes) -> ArcLine | None:
    """URL, address, date, type and length (version 1 of ARC; 2 has more fields before the length)."""
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
    size: int  # of the block behind it


class Grammar(Protocol):
    """One of the two formats."""

    name: str

    def heads(self, window: Window) -> list[Head] | str:
        """What may be the header at the window's position, the likelier first, or in words why there is none
        (`truncated` where the stream ends)."""

    def may_begin(self, content: bytes) -> bool:
        """Whether a record may begin with these bytes."""

    def seek_start(self, window: Window, stop: int | None) -> bool:
        """Moves to the next place before `stop` where a record surely begins, or to `stop` or the end."""


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
            block = window.peek(end + MAX_LINE)  # a damaged line may look like the end to us; not to FastWARC
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
    """Where the WARC header at the window's position ends."""
    size = 1 << 12
    while True:
        block = window.peek(size)
        if end := HEADER_END.search(block):
            return end.end()
        if len(block) < size or size >= MAX_HEADER:
            return None
        size *= 4


def _line(window: Window) -> bytes:
    """The next line, at most MAX_LINE bytes of it."""
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
