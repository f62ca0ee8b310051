"""Compares the arithmetic of policies with Python's own."""

import ast
import math
from fnmatch import fnmatchcase

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.dedup.policy import LONGEST, check_policy, columns_of, evaluate, microseconds, ranks

SCHEMA = pa.schema(
    {"id": pa.string(), "source": pa.string(), "offset": pa.int64(), "timestamp": pa.string(), "quality": pa.float64(),
     "chars": pa.int64(), "exact": pa.binary(16), "language": pa.string()}
)  # fmt: skip
TIMES = ["2024-01-01T00:00:00Z", "2024-01-01T01:30:00+02:00", "2024-01-01", "2023-12-31T23:59:59.5Z", "no time", None]
ROW = st.fixed_dictionaries(
    {
        "id": st.sampled_from("abc"),
        "source": st.sampled_from(["x.warc", "y.warc", "y.jsonl", "z"]),
        "offset": st.sampled_from([0, 9, 10, None]),
        "timestamp": st.sampled_from(TIMES),
        "quality": st.sampled_from([0.0, -1.0, 2.5, float("nan"), None]),
        "chars": st.integers(0, 3),
        "exact": st.sampled_from([b"\0" * 16, b"\xff" * 16]),
        "language": st.sampled_from(["en", "de", None]),
    }
)
PATTERNS = ["y.*", "*.warc"]


def present(value, sign: int = 1):  # type: ignore[no-untyped-def]
    """Returns a sort key that puts None last."""
    nothing = value is None or value != value
    return (nothing, 0 if nothing else sign * value if isinstance(value, int | float) else value)


def times(a, b):  # type: ignore[no-untyped-def]
    return None if a is None or b is None else a * b


KEYS = {
    "longest": lambda row: -row["chars"],
    "quality": lambda row: present(row["quality"], -1),
    "newest": lambda row: present(microseconds(row["timestamp"]), -1),
    "oldest": lambda row: present(microseconds(row["timestamp"])),
    "first": lambda row: (row["source"], present(row["offset"])),
    "sources": lambda row: present(next((i for i, p in enumerate(PATTERNS) if fnmatchcase(row["source"], p)), None)),
    "quality * chars": lambda row: present(times(row["quality"], row["chars"]), -1),
    "language == 'en'": lambda row: present(None if row["language"] is None else int(row["language"] == "en"), -1),
    "-offset": lambda row: present(row["offset"]),
}


@settings(deadline=None)
@given(keep=st.lists(st.sampled_from(list(KEYS)), min_size=1, max_size=4), rows=st.lists(ROW, max_size=8))
def test_each_criterion_of_a_list_decides_the_ties_of_those_before(keep, rows) -> None:  # type: ignore[no-untyped-def]
    def slow_key(row):  # type: ignore[no-untyped-def]
        return [KEYS[name](row) for name in keep], row["id"], row["source"], present(row["offset"]), row["exact"]

    order = sorted(range(len(rows)), key=lambda i: slow_key(rows[i]))
    assert np.argsort(ranks(pa.Table.from_pylist(rows, schema=SCHEMA), keep, PATTERNS)).tolist() == order


def test_times_are_compared_as_moments() -> None:
    assert microseconds(TIMES[1]) == microseconds("2023-12-31T23:30:00Z") == microseconds("2023-12-31T23:30:00")
    assert microseconds("no time") is None and microseconds(None) is None
    assert microseconds("1969-12-31T23:59:59Z") == -1_000_000


@pytest.mark.parametrize(
    ("keep", "sentence"),
    [
        ([], "keep names no criterion"),
        ("sources", "keep: sources needs the list `sources`"),
        ("longest newest", "'longest newest' is no expression"),
        (["longest", "os.remove('x')"], "calls a function other than abs, log"),
        ("url == 'http://a/'", "keep can't use the column 'url'"),
    ],
)
def test_a_policy_that_makes_no_sense_is_one_sentence(keep, sentence: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=sentence.replace("(", r"\(")) as error:
        check_policy(keep, [])
    assert "\n" not in str(error.value)


EXPRESSION_SCHEMA = pa.schema({"a": pa.float64(), "b": pa.int64(), "flag": pa.bool_(), "language": pa.string(), "site": pa.large_string()})
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "a": st.none() | st.floats(-100, 100),
            "b": st.none() | st.integers(-100, 100),
            "flag": st.none() | st.booleans(),
            "language": st.none() | st.sampled_from(["en", "de", ""]),
            "site": st.none() | st.sampled_from(["en", "x"]),
        }
    ),
    max_size=6,
)
LEAF = st.sampled_from(["a", "b", "flag", "1", "0.5", "-2", "3e2", "0"]) | st.sampled_from(
    ["(language == 'en')", '(language != "de")', "(language == site)", "(site < 'f')"]
)
OPERATORS = st.sampled_from(["+", "-", "*", "/", "**", "<", "<=", ">", ">=", "==", "!="])
EXPRESSION = st.recursive(
    LEAF,
    lambda inner: st.one_of(
        st.tuples(inner, OPERATORS, inner).map(lambda p: f"({p[0]} {p[1]} {p[2]})"),
        st.tuples(st.sampled_from(["-", "+"]), inner).map(lambda p: f"({p[0]}{p[1]})"),
        st.tuples(st.sampled_from(["abs", "log", "sqrt"]), inner).map(lambda p: f"{p[0]}({p[1]})"),
        st.tuples(st.sampled_from(["min", "max"]), inner, inner).map(lambda p: f"{p[0]}({p[1]}, {p[2]})"),
    ),
    max_leaves=6,
)
PYTHON = {"abs": abs, "log": math.log, "sqrt": math.sqrt, "min": min, "max": max, "power": math.pow}


class RealPowers(ast.NodeTransformer):
    """Rewrites `a ** b` as `power(a, b)`: for a negative `a`, Python's own operator returns complex numbers, and `math.pow` fails."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        self.generic_visit(node)
        if not isinstance(node.op, ast.Pow):
            return node
        return ast.Call(ast.Name("power", ast.Load()), [node.left, node.right], [])


def by_python(expression: str, row: dict) -> float | None:  # type: ignore[type-arg]
    """Computes a value in Python; None where the row lacks a value; raises where Python can't compute it."""
    used = columns_of(expression)
    if any(row[name] is None for name in used):
        return None
    values = {name: row[name] if isinstance(row[name], str) else float(row[name]) for name in used}
    tree = ast.fix_missing_locations(RealPowers().visit(ast.parse(expression, mode="eval")))
    return float(eval(compile(tree, "expression", "eval"), {"__builtins__": {}}, PYTHON | values))  # noqa: S307 - of this test


@given(EXPRESSION, ROWS)
def test_values_are_those_of_python(expression: str, rows: list[dict]) -> None:  # type: ignore[type-arg]
    found = evaluate(expression, pa.Table.from_pylist(rows, schema=EXPRESSION_SCHEMA)).to_pylist()
    assert len(found) == len(rows)
    for value, row in zip(found, rows, strict=True):
        try:
            expected = by_python(expression, row)
        except (ArithmeticError, ValueError):  # log of 0, 1 / 0, roots of negative numbers
            continue
        if expected is None or math.isnan(expected):
            assert value is None, expression
        elif math.isinf(expected):
            assert value == expected, expression
        elif value != pytest.approx(expected, rel=1e-9, abs=1e-9):
            # an intermediate overflow is infinite in Arrow and an error in Python
            assert value is None or math.isinf(value) or abs(expected) > 1e100, expression


def test_what_has_no_value_comes_last() -> None:
    table = pa.table({"a": [1.0, None, float("nan"), 0.0, -1.0]})
    assert evaluate("a", table).to_pylist() == [1.0, None, None, 0.0, -1.0]
    assert evaluate("log(a)", table).to_pylist() == [0.0, None, None, -math.inf, None]
    assert evaluate("1 / a", table).to_pylist() == [1.0, None, None, math.inf, -1.0]
    assert evaluate("2", table).to_pylist() == [2.0] * 5
    assert evaluate("a", table.slice(0, 0)).to_pylist() == []


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("a +", "is no expression"),
        ("-" * 5000 + "a", f"is longer than {LONGEST:,} characters"),
        ("open('x')", "calls a function other than"),
        ("().__class__", "is not arithmetic"),
        ("a and b", "is not arithmetic"),
        ("0 < a < 1", "compares more than two values"),
        ("None", "is neither a number nor a text"),
        ("a * 'x'", "is a text, which can only be compared"),
        ("1" + "0" * 400, "is too large"),
        ("log(a, b)", "has 2 values"),
    ],
)
def test_what_is_no_arithmetic_is_refused_in_one_sentence(expression: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as error:
        columns_of(expression)
    assert "\n" not in str(error.value)
