"""Words of SQL, and DuckDB's errors in one sentence."""

import difflib
import re
from collections.abc import Collection

import duckdb

from corpusmill.pipeline.report.safe import safe_line

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
_FILE = re.compile(r'Cannot access (?:file|directory) "(.+)" - ', re.S)


def quoted(text: str) -> str:
    """A string literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """A column's or table's name in SQL, whatever it holds."""
    return '"' + name.replace('"', '""') + '"'


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
