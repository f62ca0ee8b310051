"""Imports go upwards only: `pipeline` < `text` < `ingest`, `filters`, `dedup`, `tokenize`, `train` (never each other) < `report` <
others."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FLOOR = {"pipeline": 0, "text": 1, "ingest": 2, "filters": 2, "dedup": 2, "tokenize": 2, "train": 2, "report": 3, "ablate": 4, "cli": 5}
#: The folders of each room's sources.
FOLDERS = {room: ROOT / ("src/corpusmill/cli" if room == "cli" else room) for room in FLOOR}
#: Names the classes of stages, and a module of another room that a stage uses, as strings that are imported on use.
TABLE = "pipeline/recipe.py"


def room_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "corpusmill" and len(parts) > 1 and parts[1] in FLOOR else None


def named(tree: ast.AST) -> Iterator[ast.AST]:
    """Yields a node and all below it, without code that only type checkers read."""
    left = [tree]
    while left:
        match left.pop():
            case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING"), orelse=orelse):
                left += reversed(orelse)
            case node:
                yield node
                left += reversed(list(ast.iter_child_nodes(node)))


def modules(tree: ast.AST, strings: bool) -> Iterator[tuple[int, str]]:
    """Yields lines and modules that a source imports anywhere, or names in a string (`corpusmill.dedup.stage:DedupStage`)."""
    for node in named(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif strings and isinstance(node, ast.Constant) and isinstance(node.value, str) and " " not in node.value:
            yield node.lineno, node.value.partition(":")[0]


def downward(room: str) -> Iterator[str]:
    """Yields the imports of a room that do not go upwards, with their places."""
    for path in sorted(FOLDERS[room].rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        for line, module in modules(ast.parse(path.read_text()), strings=name != TABLE):
            other = room_of(module)
            if other is not None and other != room and FLOOR[other] >= FLOOR[room]:
                yield f"{name}:{line} imports {module}"


def test_imports_go_upwards_only() -> None:
    assert [where for room in FLOOR for where in downward(room)] == []


def test_what_counts_as_an_import() -> None:
    source = """
import corpusmill.report.read
if TYPE_CHECKING:
    from corpusmill.report.page import Page
def lazy():
    from corpusmill import dedup
    return "corpusmill.train.sft:SftStage"
"""
    found = [module for _, module in modules(ast.parse(source), strings=True)]
    assert [module for module in found if room_of(module)] == ["corpusmill.report.read", "corpusmill.dedup", "corpusmill.train.sft"]
