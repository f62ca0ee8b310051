"""Writes rows for other programs: JSON that every parser reads, and CSV that a spreadsheet does not execute."""

import csv
import json
import math
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from corpusmill.pipeline.safe import safe_line, safe_text

#: The beginnings of a cell that a spreadsheet may take for a formula (OWASP, CSV injection), full-width forms included.
_FORMULA = re.compile(r"[\s'\"]*[=+\-@|%＝＋－＠]|[\t\r\n]")


def plain(value: Any, longest: int | None = None) -> Any:
    """Returns `value` as JSON types: NaN becomes null, an infinity the text `inf` or `-inf`, and keys become text.

    Texts of more than `longest` characters are cut; keys are not.
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
    """Returns JSON in ASCII: control characters are escaped, so a terminal does not obey them and none is lost."""
    return json.dumps(plain(value), indent=indent, allow_nan=False)


def print_json_lines(rows: Iterable[dict[str, Any]]) -> None:
    """Prints one JSON object a line on standard output."""
    for row in rows:
        print(as_json(row))


def warn(sentences: Iterable[str]) -> None:
    """Prints notes on standard error, so that standard output holds rows only."""
    for sentence in sentences:
        print(f"Note: {safe_line(sentence, 400)}", file=sys.stderr)


def print_csv(rows: Iterable[dict[str, Any]], columns: Sequence[str], file: TextIO | None = None, head: bool = True) -> None:
    """Prints CSV, by default with a header and on standard output: RFC 4180 (commas, doubled quotes), but lines end in LF, as the tools of
    a shell expect.

    A list becomes JSON, a missing value an empty cell. Control sequences are removed from texts, and a text that a spreadsheet could take
    for a formula gets an apostrophe before it. Numbers stay as they are.
    """
    out = csv.writer(file or sys.stdout, lineterminator="\n")
    if head:
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
