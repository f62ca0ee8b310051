"""What rows of a manifest have to be like: a run's folder may come from a stranger, or from a broken disk.

All functions take what JSON gave, and raise ValueError, KeyError or TypeError where it can't be such a row.
"""

from collections.abc import Sequence
from typing import Any

from corpusmill.pipeline.storage import stays_inside

#: The types of what rows hold.
_TASK = [
    *((name, str) for name in ("task", "identity", "config", "code")),
    *((name, int) for name in ("rows_in", "kept", "dropped", "bytes_in")),
    ("counts", dict),
    ("warnings", list),
]
_REF, _OUTPUT = [("path", str), ("fingerprint", str), ("bytes", int)], [("path", str), ("bytes", int), ("sha256", str)]
_QUARANTINED = [*((name, str) for name in ("task", "identity", "message")), ("tries", int)]


def check_task(row: dict[str, Any]) -> None:
    """A finished task; its files lie in its stage."""
    _check(row, _TASK)
    for ref in row["inputs"]:
        _check(ref, _REF)
    for output in row["outputs"]:
        _check(output, _OUTPUT)
        if not stays_inside(output["path"]):
            raise ValueError(f"the output {output['path']!r} lies outside of the stage's folder")


def check_quarantined(row: dict[str, Any]) -> None:
    """A task that was given up."""
    _check(row, _QUARANTINED)
    for ref in row["inputs"]:
        _check(ref, _REF)


def check_code(row: dict[str, Any]) -> None:
    """What stands behind a code's digest. A module's name becomes a path, so it has to be one."""
    _check(row, [("code", str), ("module", str), ("files", dict), ("libraries", dict)])
    check_names(row["names"])
    if not all(part.isidentifier() for part in row["module"].split(".")):
        raise ValueError(f"{row['module']!r} is no module")
    if not all(type(sha256) is str for sha256 in row["files"].values()):
        raise ValueError("a digest of a file is no string")
    if not all(version is None or type(version) is str for version in row["libraries"].values()):
        raise ValueError("a version of a library is no string")


def check_names(names: Any) -> list[str]:
    """The names of tasks, as they are."""
    if type(names) is not list or not all(type(name) is str for name in names):
        raise ValueError("tasks are no list of names")
    return names


def _check(row: dict[str, Any], kinds: Sequence[tuple[str, type]]) -> None:
    for name, kind in kinds:
        if type(row[name]) is not kind:
            raise ValueError(f"{name} is no {kind.__name__}")
