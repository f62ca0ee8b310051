"""Reads CSV and TSV as RFC 4180 describes them: a line of names, then a row for each record. A quoted field may hold line breaks."""

import csv
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from corpusmill.pipeline.formats.streams import TextLine, Window, split_lines


@dataclass(frozen=True)
class DelimitedRow(TextLine):
    """A row of one or several lines. Its `fields` are the bytes of the file as Latin-1; `fault` says what is wrong with its quotes."""

    fields: tuple[str, ...] = ()
    fault: str = ""


def delimiter_of(path: str, header: bytes) -> str:
    """Returns the delimiter of a file from its name and its first line: a tab, or the one of `,`, `;`, tab and `|` that is there most."""
    tabs = ".tsv" in path.lower() or ".tab" in path.lower()
    return "\t" if tabs else max(",;\t|", key=lambda delimiter: header.count(delimiter.encode()))


def split_rows(path: str, window: Window, limit: int) -> Iterator[DelimitedRow]:
    """Yields the rows of a file, from its first byte on; the first has the names of the columns. Blank lines are left out.

    A row with a fault is one line; the next one begins after it. Of a row with more than `limit` bytes, only the beginning is kept.
    """
    csv.field_size_limit(max(limit, csv.field_size_limit()))  # of this process; a row can't have a longer field
    lines, again = split_lines(window, limit), deque[TextLine]()
    delimiter = ""
    while (line := again.popleft() if again else next(lines, None)) is not None:
        delimiter = delimiter or delimiter_of(path, line.content)
        row = _row(line, lines, again, delimiter, limit)
        if row.fields or row.fault:
            yield row


def _row(first: TextLine, lines: Iterator[TextLine], again: deque[TextLine], delimiter: str, limit: int) -> DelimitedRow:
    """Returns the row that begins with a line. The lines that it read in vain go to `again`."""
    taken: list[TextLine] = []

    def feed() -> Iterator[str]:
        line: TextLine | None = first
        while line is not None:
            taken.append(line)
            yield line.content.decode("latin-1")
            full = sum(each.length for each in taken) > limit
            line = None if full else again.popleft() if again else next(lines, None)

    try:
        fields, fault = tuple(next(csv.reader(feed(), delimiter=delimiter, strict=True), ())), ""
    except csv.Error as error:
        again.extendleft(reversed(taken[1:]))
        del taken[1:]
        fields, fault = (), "a quote is not closed" if "end of data" in str(error) else str(error)
    if first.offset == 0 and fields:
        fields = (fields[0].removeprefix("\xef\xbb\xbf"), *fields[1:])
    length = taken[-1].offset + taken[-1].length - first.offset
    return DelimitedRow(first.offset, length, b"".join(each.content for each in taken), taken[-1].ended, fields, fault)


def column_names(header: DelimitedRow) -> list[str]:
    """Returns the names in the first row of a file. Bytes that are not UTF-8 become U+FFFD."""
    return [name.encode("latin-1").decode("utf-8", "replace").strip() for name in header.fields]


def header_fault(path: str, header: DelimitedRow | None, key: str) -> str:
    """Returns a sentence where a file's first row can't name its columns, or does not name the text column `key`; else an empty string."""
    names = column_names(header) if header else []
    twice = next((name for name in names if names.count(name) > 1), None)
    if header is None or header.fault or twice is not None:
        return f"{path}: its first line names no columns ({(header and header.fault) or f'{twice!r} is there twice'})."
    if key not in names:
        return f"{path}: no column {key!r} (ingest.text_key) in its first line; it has {', '.join(names)}; --set ingest.text_key=NAME."
    return ""
