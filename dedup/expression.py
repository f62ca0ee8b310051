"""Arithmetic over columns, as a recipe writes it: `quality * log(chars) - 2 * (language_score < 0.5)`.

Parsed by Python's own parser into a tree of which few nodes are allowed, and computed by Arrow on whole columns.
"""

import ast
from collections.abc import Callable
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.pipeline.errors import InputError

#: Characters of an expression: what is longer could nest deeper than Python can follow.
LONGEST = 1_000

BINARY: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: pc.add, ast.Sub: pc.subtract, ast.Mult: pc.multiply, ast.Div: pc.divide, ast.Pow: pc.power,
    ast.Lt: pc.less, ast.LtE: pc.less_equal, ast.Gt: pc.greater, ast.GtE: pc.greater_equal, ast.Eq: pc.equal, ast.NotEq: pc.not_equal,
}  # fmt: skip
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": pc.abs, "log": pc.ln, "sqrt": pc.sqrt,
    "min": partial(pc.min_element_wise, skip_nulls=False), "max": partial(pc.max_element_wise, skip_nulls=False),
}  # fmt: skip
#: Functions of any number of values; the others take one.
OF_MANY = ("min", "max")


def columns_of(expression: str) -> list[str]:
    """The names of the columns in an expression, sorted. Raises ValueError with one sentence where it is none."""
    names: set[str] = set()
    _walk(_parse(expression), lambda name: names.add(name))
    return sorted(names)


def evaluate(expression: str, table: pa.Table) -> pa.Array | pa.ChunkedArray:
    """The expression's value for each row as float64; null where a column is null or the value is not a number.

    Raises InputError with one sentence where a column's type does not fit.
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
    """Gives the names of columns to `column`; refuses everything that is not arithmetic."""
    functions = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    compared = {id(side) for node in ast.walk(tree) if isinstance(node, ast.Compare) for side in (node.left, *node.comparators)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and id(node) not in functions:
            column(node.id)
        elif isinstance(node, ast.Call) and not (isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS and not node.keywords):
            raise ValueError(f"{ast.unparse(node)!r} calls something else than {', '.join(FUNCTIONS)}")
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
