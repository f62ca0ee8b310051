"""Tests that the project's files, modules and functions named by docstrings and comments exist."""

import ast
import io
import re
import subprocess
import tokenize
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("pipeline", "ingest", "filters", "dedup", "tokenize", "train", "report")
#: Stages with a room's name: after a dot there may be an option.
STAGES = ("ingest", "dedup")


def test_what_is_named_is_there() -> None:
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    paths = [path for name in listed if not (path := ROOT / name).is_symlink() and path.exists()]
    read = {str(path.relative_to(ROOT)): _names_and_prose(path) for path in paths}
    names = {here: found for here, (found, _) in read.items()}
    wrong = []
    for here, (_, prose) in read.items():
        for line, text in prose:
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


def _names_and_prose(path: Path) -> tuple[set[str], list[tuple[int, str]]]:
    """Returns all names that a module gives to anything, with those of its attributes, and its docstrings and comments with their lines."""
    text, names, prose = path.read_text(), set(), []
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                names.add(name)
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name):
                names.add(name)
            case ast.alias(name=name, asname=other):
                names.add(other or name)
            case ast.Expr(value=ast.Constant(value=str() as found)):
                prose.append((node.lineno, found))
    if re.search("#.*`", text):  # reading the tokens of all files takes long
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        prose += [(token.start[0], token.string) for token in tokens if token.type == tokenize.COMMENT]
    return names, prose
