"""Tests that the project's files, modules and functions named by docstrings and comments exist."""

import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("pipeline", "ingest", "filters", "dedup", "tokenize", "train", "report")
#: Stages with a room's name: after a dot there may be an option.
STAGES = ("ingest", "dedup")


def test_what_is_named_is_there() -> None:
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    paths = [path for name in listed if not (path := ROOT / name).is_symlink() and path.exists()]
    names = {str(path.relative_to(ROOT)): set(_names(path)) for path in paths}
    wrong = []
    for path in paths:
        here = str(path.relative_to(ROOT))
        for line, text in _prose(path):
            wrong += [f"{here}:{line}: {quoted}" for quoted in re.findall(r"`([^`\s]+)`", text) if _is_missing(quoted, names)]
    assert not wrong, "\n".join(wrong)


def _is_missing(quoted: str, names: dict[str, set[str]]) -> bool:
    """Whether a text names a file, a module, or a member of a module, of this project that does not exist."""
    if match := re.fullmatch(r"((?:\w+/)*)\w+\.py", quoted):
        ours = match[1].partition("/")[0] in ("", *ROOMS)
        return ours and not any(name == quoted or name.endswith(f"/{quoted}") for name in names)
    match = re.fullmatch(r"(?:corpusmill\.)?(\w+)\.([\w.]+?)(?:\(.*\))?", quoted)
    if match is None or match[1] not in ROOMS or quoted.endswith((".html", ".bin")):
        return False
    path = f"{match[1]}/{match[2].replace('.', '/')}"
    folder, _, name = path.rpartition("/")
    if f"{path}.py" in names or any(each.startswith(f"{path}/") for each in names):
        return False
    return match[1] not in STAGES and name not in names.get(f"{folder}.py", ())


def _names(path: Path) -> Iterator[str]:
    """Yields all names that a module gives to anything, and those of its attributes."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name):
                yield name
            case ast.alias(name=name, asname=other):
                yield other or name


def _prose(path: Path) -> Iterator[tuple[int, str]]:
    """Yields docstrings and comments with their lines."""
    text = path.read_text()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and (found := ast.get_docstring(node)):
            yield node.body[0].lineno, found
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
