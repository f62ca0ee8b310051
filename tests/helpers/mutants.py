"""Counts the mutants of some functions that tests kill: `mutants.py --tree FOLDER --out kills.tsv --seed 1 --count 6 TARGET...`.

A TARGET is `dedup/policy.py:ranks,Class.method=tests/dedup/test_policy.py,tests/...`: functions of a file, and the tests that see them.
Mutants are written into FOLDER, a copy of the repository (`git archive HEAD | tar -x -C FOLDER`) beside `shared`; PYTHONPATH is its `src`,
and NUMBA_CACHE_DIR keeps mutated kernels out of the user's cache. The same sources, targets and seed give the same mutants.
"""

import argparse
import ast
import os
import random
import signal
from collections.abc import Iterator
from copy import deepcopy
from itertools import accumulate
from pathlib import Path
from typing import Any, cast

import numba  # noqa: F401 - this and torch only once, in the process that is forked
import pytest
import torch  # noqa: F401

SWAPPED: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot,
    ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And, ast.Add: ast.Sub, ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip


def changes(node: Any) -> Iterator[ast.AST]:
    """Yields the mutants of one node of a function's body."""
    new: Any = deepcopy(node)
    match node:
        case ast.Compare(ops=[op, *_]):
            new.ops[0] = SWAPPED[type(op)]()
            yield new
        case ast.BoolOp(op=op) | ast.BinOp(op=op) if type(op) in SWAPPED:
            new.op = SWAPPED[type(op)]()
            yield new
        case ast.UnaryOp(op=ast.Not() | ast.Invert(), operand=operand):
            yield operand
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value)):
            yield from (ast.Constant(value + 1), ast.Constant(value - 1))
        case ast.Return(value=ast.expr()):
            yield ast.Return(ast.Constant(None))
        case ast.AugAssign() | ast.Continue() | ast.Break() | ast.Raise() | ast.Expr(value=ast.Call()):
            yield ast.Pass()


def mutants(path: Path, names: list[str]) -> Iterator[tuple[str, str]]:
    """Yields each mutant of a file's functions: what was changed, and the file's new text."""
    text, functions = path.read_bytes(), {}
    starts = list(accumulate(map(len, text.splitlines(keepends=True)), initial=0))
    for node in ast.parse(text).body:
        for inner in node.body if isinstance(node, ast.ClassDef) else [node]:
            if isinstance(inner, ast.FunctionDef):
                functions[f"{node.name}.{inner.name}" if isinstance(node, ast.ClassDef) else inner.name] = inner
    for name in names:
        for statement in functions[name].body:
            for part in cast(Iterator[Any], ast.walk(statement)):
                for new in changes(part):
                    begin, end = starts[part.lineno - 1] + part.col_offset, starts[part.end_lineno - 1] + part.end_col_offset
                    old, made = text[begin:end].decode(), f"({ast.unparse(new)})" if isinstance(new, ast.expr) else ast.unparse(new)
                    changed = text[:begin].decode() + made + text[end:].decode()
                    yield f"{path.name}:{part.lineno} {name}\t{' '.join(old.split())[:80]}\t{' '.join(made.split())[:80]}", changed


def killed(tree: Path, tests: list[str]) -> bool:
    """Whether one of the tests fails, or they hang."""
    pid = os.fork()
    if not pid:
        signal.alarm(900)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.chdir(tree)
        os._exit(pytest.main(["-x", "-q", "-m", "not long", "-p", "no:cacheprovider", *tests]))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("targets", nargs="+", metavar="TARGET")
    for name, kind in {"--tree": Path, "--out": Path, "--seed": int, "--count": int}.items():
        parser.add_argument(name, type=kind, required=True)
    options = parser.parse_args()
    with options.out.open("a") as out:
        for target in options.targets:
            functions, tests = target.split("=")
            source, names = functions.split(":")
            path, files = options.tree / source, tests.split(",")
            if killed(options.tree, files):
                raise SystemExit(f"{tests}: a test fails without a mutant")
            original, found = path.read_text(), sorted(mutants(path, names.split(",")))
            for said, text in random.Random(f"{options.seed} {functions}").sample(found, min(options.count, len(found))):
                path.write_text(text)
                print("killed" if killed(options.tree, files) else "survived", said, sep="\t", file=out, flush=True)
            path.write_text(original)


if __name__ == "__main__":
    main()
