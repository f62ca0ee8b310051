"""Tests that the project's files, modules and functions named by docstrings and comments exist."""

import ast
import re
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("pipeline", "text", "ingest", "filters", "dedup", "tokenize", "train", "report", "ablate")
#: Rooms that have the name of a stage or of a string in examples: after a dot there may be an option or a method.
AMBIGUOUS = ("ingest", "dedup", "text")


def test_what_is_named_is_there() -> None:
    """Any text in backticks counts, since reading the syntax of all files takes long."""
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    files = {name for name in listed if not (ROOT / name).is_symlink() and (ROOT / name).exists()}
    wrong, found = [], 0
    for here in sorted(files):
        for number, line in enumerate((ROOT / here).read_text().splitlines(), 1):
            for quoted in re.findall(r"`([^`\s]+)`", line):
                found += 1
                wrong += [f"{here}:{number}: {quoted}"] if _is_missing(quoted, files) else []
    assert found > 1000 and not wrong, "\n".join(wrong)


def _is_missing(quoted: str, files: set[str]) -> bool:
    """Whether a text names a file, a module, or a member of a module, of this project that does not exist."""
    if match := re.fullmatch(r"((?:\w+/)*)\w+\.py", quoted):
        ours = match[1].partition("/")[0] in ("", *ROOMS)
        return ours and not any(name == quoted or name.endswith(f"/{quoted}") for name in files)
    match = re.fullmatch(r"(?:corpusmill\.)?(\w+)\.([\w.]+?)(?:\(.*\))?", quoted)
    if match is None or match[1] not in ROOMS or quoted.endswith((".html", ".bin")):
        return False
    path = f"{match[1]}/{match[2].replace('.', '/')}"
    folder, _, name = path.rpartition("/")
    if f"{path}.py" in files or any(each.startswith(f"{path}/") for each in files):
        return False
    return match[1] not in AMBIGUOUS and (f"{folder}.py" not in files or name not in _names(f"{folder}.py"))


@cache
def _names(file: str) -> set[str]:
    """Returns all names that a module gives to anything, with those of its attributes."""
    names = set()
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                names.add(name)
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name):
                names.add(name)
            case ast.alias(name=name, asname=other):
                names.add(other or name)
    return names
