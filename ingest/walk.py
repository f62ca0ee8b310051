"""Walking the records of a WARC or ARC by hand: exact borders, and every byte accounted for where the file is damaged.

FastWARC reads sound WARCs (`warc.py`); this is the judge where it stops or can't read. A stretch that is no record
becomes one `Gap`. What is found at a place depends on nothing before it, so a file cut into ranges where records begin
gives what the whole file gives.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from corpusmill.ingest.headers import MAX_HEADER, Grammar, Head
from corpusmill.pipeline.formats.detect import NEWLINES
from corpusmill.pipeline.formats.streams import Window

#: Bytes behind a record in which the next one must begin, newlines before it included.
TRAILER = 64


@dataclass(frozen=True)
class Raw:
    """A whole record: where it lies, its header lines, and its block up to the limit that was asked for."""

    offset: int
    length: int
    header: bytes
    block: bytes
    size: int  # of the block as it lies in the file


@dataclass(frozen=True)
class Gap:
    """Bytes that are no whole record: `kind` is `truncated` or `corrupt`."""

    offset: int
    length: int
    kind: str
    reason: str


def walk(window: Window, grammar: Grammar, limit: int) -> Iterator[Raw | Gap]:
    """Records of an uncompressed (or decompressed) file from the window's position to its end."""
    window.skip_any(NEWLINES)
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
        window.skip_any(NEWLINES)
        yield Raw(start, window.position - start, head.header, block, head.size)


def _chosen(window: Window, grammar: Grammar, heads: list[Head], limit: int) -> tuple[Head, str]:
    """The header behind whose block the next record begins, and whether the file ends `beyond` its block or a false
    length would take records behind this one with it; the window is moved past the header."""
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
    """What lies behind a record: the next one or nothing (`well`), anything else (`astray`), or the file ends
    `beyond`. Of a record larger than the limit in a stream that can't seek, nothing is known: `well`."""
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
    rest = window.peek(TRAILER, distance).lstrip(NEWLINES)
    return "well" if not rest or grammar.may_begin(rest) else "astray"


def _gap(window: Window, grammar: Grammar, start: int, reason: str) -> Gap:
    """Moves to the next place where a record begins and accounts for what lies before it."""
    found = grammar.seek_start(window, None)
    length = window.position - start
    if found or reason != "truncated":
        return Gap(start, length, "corrupt", f"{'damaged record' if reason == 'truncated' else reason} (byte {start})")
    return Gap(start, length, "truncated", f"the file ends within the record at {start}")
