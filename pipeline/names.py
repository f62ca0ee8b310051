"""What a message says about an unknown name: the one that may be meant, and those that would do. And about arguments of a call."""

import os
from collections.abc import Callable, Iterable
from difflib import SequenceMatcher
from functools import wraps
from glob import glob
from inspect import signature
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.safe import safe_line

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

#: The most names that a message lists, and the least similarity (`SequenceMatcher.ratio`) of the one that may be meant.
LISTED, NEAR = 12, 0.6


def instead_of(name: str, names: Iterable[str], what: str = "expected one of") -> str:
    """Returns the end of a message that refuses `name`: ` (did you mean filter? expected one of ingest, filter)`.

    If a name may be meant, a long list is left out. If none is, it has only the most similar names.
    """
    known = list(dict.fromkeys(names))
    if not known:
        return " (there are none)"
    near = sorted(known, key=lambda other: (-_similarity(name, other), other))
    meant = f"did you mean {safe_line(near[0], 60)}?" if _similarity(name, near[0]) >= NEAR else ""
    if len(known) <= LISTED:
        listed = f"{what} {_listed(known)}"
    else:
        listed = "" if meant else f"{what} {_listed(near[:LISTED])}, and {len(known) - LISTED:,} more"
    return f" ({' '.join(filter(None, (meant, listed)))})"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(safe_line(name, 60) for name in names)


def _similarity(name: str, other: str) -> float:
    """Returns 0 to 1. Of two paths in one folder, the names alone count."""
    if "/" in name and Path(name).parent == Path(other).parent:
        name, other = Path(name).name, Path(other).name
    return SequenceMatcher(None, name.lower(), other.lower()).ratio()


def not_a_run(folder: str, kind: str = "run") -> str:
    """Returns a message about a folder that is not a run. It names the runs that are near. `kind`: what else could be given, and a run."""
    there = "://" in folder or os.path.exists(folder)
    what, meant = ("not a run, as it has no run.json", "") if there else (f"no such {kind}", folder)
    runs = runs_near(folder)
    return f"{folder}: {what}{instead_of(meant, runs, 'there are') if runs else ''}."


def runs_near(folder: str) -> list[str]:
    """Returns the runs in a folder and in its `runs/`, or, if it does not exist, those beside it and in `runs/`; in a store, none. A run
    whose first stage refused its input has done nothing, and is left out."""
    if "://" in folder:
        return []
    path = Path(folder)
    places = [path, path / "runs"] if os.path.exists(folder) else dict.fromkeys((path.parent, Path("runs")))
    runs = [place / Path(found).parent for place in places for found in sorted(glob("*/run.json", root_dir=place))]
    return [str(run) for run in runs if glob("*/manifest.jsonl", root_dir=run)]


def in_sentences(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Makes a call with missing or unknown arguments, or with something else than text for one, raise an InputError."""
    known, called = signature(function), function.__qualname__.removesuffix(".__init__").rpartition(".")[2]

    @wraps(function)
    def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        try:
            given = known.bind(*args, **kwargs).arguments
        except TypeError as error:
            names = ", ".join(name for name in known.parameters if name not in ("self", "cls"))
            raise InputError(f"{called}: {error}; the arguments are {names}.") from None
        for name, value in given.items():
            if known.parameters[name].annotation in (str, str | None) and not isinstance(value, str | None):
                raise InputError(f"{called}: {name} is a text, not {safe_line(repr(value), 100)}.")
        return function(*args, **kwargs)

    return call


def path_of(given: Any, what: str) -> str:
    """Returns a path as text. Raises InputError for anything that is no path. `what`: what the path should name."""
    try:
        return os.fsdecode(given)
    except TypeError:
        raise InputError(f"{what}: expected a path, not {safe_line(repr(given), 100)}.") from None


def counted(count: int, noun: str) -> str:
    """Returns a count with its noun in the right number: `1 record`, `2,097 records`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
