"""Finds the files of the package that execute functions, to compare them with the code that a task's identity contains.

As `sitecustomize` (a link of that name in a folder on PYTHONPATH) it watches a whole process and appends to the file EXECUTED.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


def watcher(root: str, carriers: tuple[str, ...], found: Callable[[str], None]) -> Callable[[FrameType, str, Any], None]:
    """Returns a profile function that reports each file below `root` (which ends with `/`) in which a function starts, by relative path.

    `carriers`: path prefixes of files that are not reported, nor are the functions that they call.
    """
    seen: set[str] = set()
    inside: dict[str, str] = {}  # file names, and their paths below the root

    def path_of(name: str) -> str:
        if name not in inside:
            file = os.path.realpath(name)
            inside[name] = file.removeprefix(root) if file.startswith(root) else ""
        return inside[name]

    def profile(frame: FrameType, event: str, _: Any) -> None:
        name = frame.f_code.co_filename
        if event != "call" or name in seen:
            return
        if not (path := path_of(name)) or not path.endswith(".py"):
            seen.add(name)
            return
        above: FrameType | None = frame
        while above is not None and above.f_code is not STOP:
            if path_of(above.f_code.co_filename).startswith(carriers):
                return
            above = above.f_back
        seen.add(name)
        found(path)

    return profile


@contextmanager
def watched(root: str, carriers: tuple[str, ...]) -> Iterator[set[str]]:
    """Yields the files that execute in the block, in this thread and in threads that it starts."""
    found: set[str] = set()
    before, profile = sys.getprofile(), watcher(root, carriers, found.add)
    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        yield found
    finally:
        sys.setprofile(before)
        threading.setprofile(None)


def inner(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Calls a function, and marks the frame at which the watcher stops: it ignores this function's callers."""
    return function(*arguments, **options)


STOP = inner.__code__

if __name__ == "sitecustomize" and "EXECUTED" in os.environ:

    def tell(path: str) -> None:
        with open(os.environ["EXECUTED"], "a") as file:
            file.write(path + "\n")

    sys.setprofile(watcher(os.environ["EXECUTED_ROOT"], tuple(os.environ["EXECUTED_CARRIERS"].split(":")), tell))
