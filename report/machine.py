"""Rows for other programs: JSON that every parser reads, and CSV that a spreadsheet does not execute."""

import csv
import json
import math
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from corpusmill.pipeline.safe import safe_line, safe_text

#: What a spreadsheet may take for a formula, at a cell's beginning (OWASP, CSV injection), full-width forms included.
_FORMULA = re.compile(r"[\s'\"]*[=+\-@|%＝＋－＠]|[\t\r\n]")


def plain(value: Any, longest: int | None = None) -> Any:
    """`value` in what JSON can say: NaN is null, an infinity the text `inf` or `-inf`; names of objects are text.

    Texts (but names) of more than `longest` characters are cut.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    if isinstance(value, dict):
        return {str(key): plain(item, longest) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, longest) for item in value]
    if isinstance(value, str) and longest is not None and len(value) > longest:
        return value[:longest] + "…"
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return plain(value.item(), longest) if hasattr(value, "item") else str(value)


def as_json(value: Any, indent: int | None = None) -> str:
    """JSON in ASCII: what a terminal would obey are escapes, and nothing of it is lost."""
    return json.dumps(plain(value), indent=indent, allow_nan=False)


def print_json_lines(rows: Iterable[dict[str, Any]]) -> None:
    """One object a line on standard output."""
    for row in rows:
        print(as_json(row))


def warn(sentences: Iterable[str]) -> None:
    """Notes go to standard error, so that what a program reads is rows alone."""
    for sentence in sentences:
        print(f"Note: {safe_line(sentence, 400)}", file=sys.stderr)


def print_csv(rows: Iterable[dict[str, Any]], columns: Sequence[str], file: TextIO | None = None) -> None:
    """CSV (RFC 4180: commas, quotes doubled, lines end in CR LF) with a header, on standard output.

    A list is JSON, a value that is missing is empty. Control sequences are taken out of texts, and one that a spreadsheet could take
    for a formula gets an apostrophe before it; numbers are as they are.
    """
    out = csv.writer(file or sys.stdout, lineterminator="\r\n")
    out.writerow([_cell(name) for name in columns])
    for row in rows:
        out.writerow([_cell(row.get(name)) for name in columns])


def _cell(value: Any) -> str | int | float:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return value
    text = safe_text(value) if isinstance(value, str) else as_json(value)
    return f"'{text}" if isinstance(value, str) and _FORMULA.match(text) else text
