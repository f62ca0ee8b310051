"""Which copy stays: a total order of documents, the best first. It depends on the documents and the recipe alone."""

import ast
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.dedup.config import ClusterConfig
from corpusmill.pipeline.errors import InputError

#: Criteria with a name. Any other criterion is an expression over columns; the document with the highest value wins.
NAMED = ("longest", "quality", "newest", "oldest", "first", "sources")
#: Columns that are there for every policy; a policy may need others (`needed_columns`).
ALWAYS = ("id", "source", "offset", "timestamp", "chars")
#: Names of columns in the working files of dedup; a policy can't use columns of documents with these names.
TAKEN_NAMES = ("exact", "url", "signature", "shingles", "by", "row", "near", "text")
TIES = [("id", "ascending"), ("source", "ascending"), ("offset", "ascending"), ("exact", "ascending"), ("index", "ascending")]


def criteria(keep: str | Sequence[str]) -> list[str]:
    return [keep] if isinstance(keep, str) else list(keep)


def check_policy(keep: str | Sequence[str], sources: Sequence[str]) -> None:
    """Raises ValueError if a policy names no criterion, names a column that it can't use, or lacks the list `sources`."""
    if not criteria(keep):
        raise ValueError("keep names no criterion")
    for criterion in criteria(keep):
        taken = [] if criterion in NAMED else [name for name in columns_of(criterion) if name in TAKEN_NAMES]
        if taken:
            raise ValueError(f"keep can't use the column {taken[0]!r}")
        if criterion == "sources" and not sources:
            raise ValueError("keep: sources needs the list `sources`")


def needed_columns(keep: str | Sequence[str]) -> list[str]:
    """Returns the columns of documents that a policy compares besides `ALWAYS`, sorted."""
    found = {"quality"} if "quality" in criteria(keep) else set()
    found.update(name for criterion in criteria(keep) if criterion not in NAMED for name in columns_of(criterion))
    return sorted(found - set(ALWAYS))


def policy_columns(config: ClusterConfig) -> list[str]:
    """Returns the columns of documents that a run's policies (for copies and for URLs) compare besides `ALWAYS`, sorted."""
    return sorted({*needed_columns(config.keep), *(needed_columns(config.url.keep) if config.url.enabled else [])})


def microseconds(timestamp: str | None) -> int | None:
    """Returns an ISO 8601 time as microseconds since 1970 (in UTC where it names no zone), or None if it is not a time."""
    if timestamp is None:
        return None
    try:
        moment = datetime.fromisoformat(timestamp)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def ranks(table: pa.Table, keep: str | Sequence[str], sources: Sequence[str] = ()) -> npt.NDArray[np.int64]:
    """Returns the rank of each row of `table` in the policy's order; 0 is the best.

    `table` has the columns `ALWAYS`, `exact` and `needed_columns(keep)`. Rows without a value come last. Ties are decided by id, crawl
    file, place in the file, and hash of the text. Rows that are equal in all of these are the same document, and keep their order.
    """
    columns = {name: table[name] for name in ("id", "source", "offset")}
    columns["exact"] = table["exact"].cast(pa.binary())
    columns["index"] = pa.array(np.arange(table.num_rows))
    keys: list[tuple[str, str]] = []
    for number, criterion in enumerate(criteria(keep)):
        if criterion == "first":
            keys += [key for key in (("source", "ascending"), ("offset", "ascending")) if key not in keys]
        else:
            columns[f"by{number}"] = _values(table, criterion, sources)
            keys.append((f"by{number}", "descending"))
    keys += [tie for tie in TIES if tie not in keys]
    order = pc.sort_indices(pa.table(columns), sort_keys=keys).to_numpy()
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank


def _values(table: pa.Table, criterion: str, sources: Sequence[str]) -> pa.Array | pa.ChunkedArray:
    """Returns a value for each row; the highest is the best."""
    match criterion:
        case "longest":
            return table["chars"]
        case "newest" | "oldest":
            times = pa.array([microseconds(t) for t in table["timestamp"].to_pylist()], pa.int64())
            return times if criterion == "newest" else pc.negate(times)
        case "sources":
            names = pc.unique(table["source"])
            trust = pa.array([_trust(name, sources) for name in names.to_pylist()], pa.int64())
            return pc.negate(trust.take(pc.index_in(table["source"], names)))
        case _:
            return evaluate(criterion, table)


def _trust(source: str, patterns: Sequence[str]) -> int | None:
    return next((number for number, pattern in enumerate(patterns) if fnmatchcase(source, pattern)), None)


# ---- expressions over columns ----------------------------------------------------------------------------


#: Characters of an expression at most: a longer one could be nested more deeply than Python's parser allows.
LONGEST = 1_000

BINARY: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: pc.add, ast.Sub: pc.subtract, ast.Mult: pc.multiply, ast.Div: pc.divide, ast.Pow: pc.power,
    ast.Lt: pc.less, ast.LtE: pc.less_equal, ast.Gt: pc.greater, ast.GtE: pc.greater_equal, ast.Eq: pc.equal, ast.NotEq: pc.not_equal,
}  # fmt: skip
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": pc.abs, "log": pc.ln, "sqrt": pc.sqrt,
    "min": partial(pc.min_element_wise, skip_nulls=False), "max": partial(pc.max_element_wise, skip_nulls=False),
}  # fmt: skip
#: Functions that take any number of values; all other functions take one.
OF_MANY = ("min", "max")


def columns_of(expression: str) -> list[str]:
    """Returns the names of the columns in an expression, sorted. Raises ValueError if the text is not a valid expression."""
    names: set[str] = set()
    _walk(_parse(expression), lambda name: names.add(name))
    return sorted(names)


def evaluate(expression: str, table: pa.Table) -> pa.Array | pa.ChunkedArray:
    """Returns the expression's value for each row, float64; null if a column is null or the value is NaN.

    Raises InputError if the type of a column does not fit the expression.
    """
    try:
        values = {name: _number(table[name]) for name in columns_of(expression)}
        result = _compute(_parse(expression).body, values)
        result = result if isinstance(result, pa.Array | pa.ChunkedArray) else pa.repeat(result, table.num_rows)
        if _is_text(result.type):
            raise InputError(f"{expression!r}: the value is a text, not a number.")
        result = result.cast(pa.float64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(f"{expression!r} can't be computed from columns of these types ({str(error).splitlines()[0]}).") from error
    return _numbers(result)


def _numbers(values: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    return pc.if_else(pc.is_nan(values), None, values)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _number(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column if _is_text(column.type) else _numbers(column.cast(pa.float64()))


def _parse(expression: str) -> ast.Expression:
    if len(expression) > LONGEST:
        raise ValueError(f"{expression[:40]!r}... is longer than {LONGEST:,} characters")
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{expression!r} is no expression ({getattr(error, 'msg', error)})") from error
    _walk(tree, lambda name: None)
    return tree


def _walk(tree: ast.Expression, column: Callable[[str], None]) -> None:
    """Calls `column` with the name of each column; raises ValueError for everything that is not arithmetic."""
    functions = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    compared = {id(side) for node in ast.walk(tree) if isinstance(node, ast.Compare) for side in (node.left, *node.comparators)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and id(node) not in functions:
            column(node.id)
        elif isinstance(node, ast.Call) and not (isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS and not node.keywords):
            raise ValueError(f"{ast.unparse(node)!r} calls a function other than {', '.join(FUNCTIONS)}")
        elif isinstance(node, ast.Call) and not (node.args if node.func.id in OF_MANY else len(node.args) == 1):  # type: ignore[attr-defined]
            raise ValueError(f"{ast.unparse(node)!r} has {len(node.args)} values ({', '.join(OF_MANY)} take some, other functions one)")
        elif isinstance(node, ast.Compare) and len(node.ops) != 1:
            raise ValueError(f"{ast.unparse(node)!r} compares more than two values")
        elif isinstance(node, ast.Constant) and type(node.value) not in (int, float, str):
            raise ValueError(f"{ast.unparse(node)!r} is neither a number nor a text")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in compared:
            raise ValueError(f"{ast.unparse(node)!r} is a text, which can only be compared")
        elif isinstance(node, ast.Constant) and isinstance(node.value, int) and abs(node.value) > 2**1023:
            raise ValueError(f"{ast.unparse(node)[:20]}... is too large")
        elif not isinstance(node, ALLOWED):
            raise ValueError(f"{ast.unparse(node)!r} is not arithmetic")


ALLOWED = (
    ast.Expression, ast.Name, ast.Load, ast.Constant, ast.BinOp, ast.UnaryOp, ast.USub, ast.UAdd, ast.Compare, ast.Call, *BINARY,
)  # fmt: skip


def _compute(node: ast.expr, values: dict[str, Any]) -> Any:
    match node:
        case ast.Constant(value=value):
            return pa.scalar(float(value) if isinstance(value, int | float) else value)
        case ast.Name(id=name):
            return values[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return pc.negate(_compute(operand, values))
        case ast.UnaryOp(operand=operand):
            return _compute(operand, values)
        case ast.BinOp(left=left, op=op, right=right):
            return BINARY[type(op)](_compute(left, values), _compute(right, values))
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            return BINARY[type(op)](_compute(left, values), _compute(right, values)).cast(pa.float64())
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return FUNCTIONS[name](*(_compute(argument, values) for argument in arguments))
    raise ValueError(f"{ast.unparse(node)!r} is not arithmetic")
