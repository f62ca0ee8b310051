"""Words of SQL, and DuckDB's errors in one sentence."""

import difflib
import math
import re
from collections.abc import Collection, Iterable
from functools import cache

import duckdb

from corpusmill.pipeline.safe import safe_line

Value = str | int | float | bool | None

#: Errors that say something of the query, never of a file.
OF_THE_QUERY = (
    duckdb.BinderException, duckdb.CatalogException, duckdb.ConversionException, duckdb.NotImplementedException,
    duckdb.OutOfMemoryException, duckdb.OutOfRangeException, duckdb.ParserException, duckdb.PermissionException,
    duckdb.TypeMismatchException,
)  # fmt: skip
#: Tables that a sentence about one that is not there names.
NEAR = 4
#: DuckDB's name of the error before what it says.
_KIND = re.compile(r"^(\w+ ){1,3}Error: ")
_COLUMN = re.compile(r'(?:Referenced column|column named) "?(.+?)"? (?:not found|was not found)', re.S)
_CANDIDATES = re.compile(r"Candidate bindings: (.+)")
_TABLE = re.compile(r"Table with name (.+?) does not exist", re.S)
#: A name that needs no quotes, unless it is a word of SQL.
_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")
_FILE = re.compile(r'Cannot access (?:file|directory) "(.+)" - ', re.S)


def quoted(text: str) -> str:
    """A string literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """A column's or table's name in SQL, whatever it holds."""
    return '"' + name.replace('"', '""') + '"'


def column(name: str) -> str:
    """A column's or table's name in SQL, in quotes only where they are needed."""
    return name if _is_plain(name) else identifier(name)


def aliases(names: Iterable[str]) -> list[str]:
    """Names for columns that stand for what has any name at all: the name itself where it is a plain one."""
    return [name if _is_plain(name) else f"column_{place}" for place, name in enumerate(names, 1)]


def _is_plain(name: str) -> bool:
    return _PLAIN.fullmatch(name) is not None and name not in _reserved()


@cache
def _reserved() -> frozenset[str]:
    """The words that DuckDB allows as no name without quotes."""
    rows = duckdb.connect(":memory:").execute("SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category <> 'unreserved'")
    return frozenset(word for (word,) in rows.fetchall())


def literal(value: Value) -> str:
    """A value in SQL. Characters that a page must not show as they are become `chr(N)`, so that what is printed is what runs."""
    if value is None:
        return "NULL"
    if isinstance(value, bool | int):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else f"'{value}'::DOUBLE"
    parts = re.split(r"([^\x20-\x7e\u00a1-\u00ac\u00ae-\u05ff])", value)
    pieces = [f"chr({ord(part)})" if place % 2 else quoted(part) for place, part in enumerate(parts) if part]
    return " || ".join(pieces) or "''"


def field(name: str) -> str:
    """A field of a JSON object, to stand behind `->` or `->>`: one that is empty or begins with `$` or `/` would be a path there."""
    return literal("/" + name.replace("~", "~0").replace("/", "~1") if name[:1] in ("$", "/", "") else name)


def no_table(name: str, names: Collection[str]) -> str:
    """A sentence that names the tables most like `name`."""
    near = difflib.get_close_matches(name.lower(), names, NEAR, 0.5)
    return f"there is no table {name!r} ({'near it: ' + ', '.join(near) + '; ' if near else ''}corpusmill query RUN lists all)."


def sentence(error: duckdb.Error, names: Collection[str] = ()) -> str:
    """What went wrong with a query, without DuckDB's internals; `names` are the tables that there are. It ends with a full stop."""
    said = str(error)
    if column := _COLUMN.search(said):
        near = _CANDIDATES.search(said)
        return f"there is no column {column[1]!r}" + (f" (near it: {near[1].replace(chr(34), '')})." if near else ".")
    if table := _TABLE.search(said):
        return no_table(table[1], names)
    if file := _FILE.search(said):
        return f"{file[1]}: a query may read the files of its run alone."
    if isinstance(error, duckdb.OutOfMemoryException):
        return "the query needs more memory than there is; ask for fewer columns or rows."
    first = safe_line(_KIND.sub("", said.strip().split("\n\n")[0].split("\n\t")[0]), 300).rstrip(".")
    kind = "not valid SQL: " if isinstance(error, duckdb.ParserException) else ""
    return f"{kind}{first}."
