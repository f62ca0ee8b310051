"""Compiles the kernels of a recipe before its stages need them: once for a machine, on all of its cores, in processes of their own.

`kernels.json` lists kernels and the types of their arguments: first those that call no other, then those that call them, and so on, so that
few processes wait for a kernel that another compiles (`benchmarks/list_kernels.py` writes it). A kernel that is called with other types is
compiled then.
"""

import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from threading import Condition, Thread
from typing import Any

from corpusmill.pipeline.cache import kernels_folder
from corpusmill.pipeline.code import PACKAGE, code_for, code_of, words
from corpusmill.pipeline.config import Config, digest, parse_json
from corpusmill.pipeline.recipe import stage_class
from corpusmill.pipeline.shipped_kernels import made_for, unpack
from corpusmill.pipeline.stage import load_object
from corpusmill.pipeline.watch.progress import Progress

LIST = Path(__file__).with_name("kernels.json")
#: The most processes: each takes up to 400 MB.
MOST = 8
#: Modules, by the beginnings of their names, that a stage imports for these keys and steps of its section alone.
FOR = {
    "dedup.contamination.": ("contamination",),
    "dedup.inside.": ("lines", "substrings"),
    "filters.classifier.": ("classifier", "quality", "spam", "toxicity"),
}


@cache
def listed() -> Mapping[str, list[tuple[int, str]]]:
    """Returns what `kernels.json` lists by module: positions in the list, and lines `[module, kernel, types of the arguments]`."""
    lines: dict[str, list[tuple[int, str]]] = {}
    for position, row in enumerate(parse_json(LIST.read_text())):
        lines.setdefault(row[0], []).append((position, json.dumps(row)))
    return lines


def modules_of(stage: str, section: Config) -> list[str]:
    """Returns the modules with kernels that a stage uses with this section of a recipe."""
    given = section.model_dump(mode="json", exclude_none=True)
    files = code_for(stage_class(stage), given).files
    others = tuple(beginning for beginning, needs in FOR.items() if set(words(given)).isdisjoint(needs))
    return [module for module in listed() if module.replace(".", "/") + ".py" in files and not module.startswith(others)]


class Compilation:
    """Compiles the kernels of these modules by stage, in this order, from `start` on. A module that was compiled on this machine before, as
    it is now, has a mark among the compiled kernels, and is left out."""

    def __init__(self, stages: Mapping[str, Iterable[str]], on_message: Callable[[str], None]):
        unpack()
        self.stages = {stage: list(modules) for stage, modules in stages.items()}
        self.marks = {module: _mark(module) for module in dict.fromkeys(each for modules in self.stages.values() for each in modules)}
        left = {module for module, mark in self.marks.items() if not mark.exists()}
        self.todo: deque[tuple[str, str]] = deque()
        for modules in self.stages.values():
            self.todo += [
                (module, line) for _, line, module in sorted((*each, module) for module in left & set(modules) for each in listed()[module])
            ]
            left -= set(modules)
        if os.environ.get("NUMBA_DISABLE_JIT", "0") != "0":
            self.todo.clear()
        self.left = Counter(module for module, _ in self.todo)
        self.total = len(self.todo)
        self.on_message = on_message
        self.processes: list[subprocess.Popen[str]] = []
        self.changed = Condition()

    def start(self) -> None:
        """Starts to compile, and says so; does nothing the second time, and where nothing is left."""
        if self.processes or not self.todo:
            return
        self.working, self.started = min(os.cpu_count() or 1, MOST, self.total), time.monotonic()
        self.on_message(f"compiling {self.total} kernels, once for this machine")
        command = [sys.executable, "-P", "-m", __name__]
        for _ in range(self.working):
            self.processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        for process in self.processes:
            Thread(target=self._feed, args=(process,), daemon=True).start()

    def _feed(self, process: subprocess.Popen[str]) -> None:
        """Gives a process one kernel after another. If it dies, its kernel is compiled at its first use."""
        assert process.stdin and process.stdout
        with suppress(IndexError, OSError), process.stdin:  # all are given out; the process has died, or the disk is full
            while True:
                module, line = self.todo.popleft()
                print(line, file=process.stdin, flush=True)
                if not (answer := process.stdout.readline()):
                    break
                if not answer.isspace():
                    self.on_message(f"{module}: a kernel is left for its first use: {answer.strip()}")
                    self.marks.pop(module, None)
                with self.changed:
                    self.left[module] -= 1
                    if not self.left[module] and module in self.marks:
                        self.marks[module].touch()
                    self.changed.notify_all()
        with self.changed:
            self.working -= 1
            if not self.working and not self.left.total():
                self.on_message(f"kernels are compiled ({time.monotonic() - self.started:.0f} seconds)")
            self.changed.notify_all()

    def wait(self, stage: str, progress: Progress) -> None:
        """Returns when the kernels of this stage are compiled."""
        left = self._left(stage)
        if not left:
            return
        self.start()
        with self.changed, progress.steps("compiling kernels, once for this machine", left) as advance:
            while left and self.working:
                self.changed.wait()
                advance(left - self._left(stage))
                left = self._left(stage)

    def _left(self, stage: str) -> int:
        return sum(self.left[module] for module in self.stages.get(stage, ()))

    def close(self) -> None:
        """Ends the processes, also before they are done."""
        self.todo.clear()
        for process in self.processes:
            process.terminate()
            process.wait()


def _mark(module: str) -> Path:
    """Returns the file that says that the kernels of a module are compiled, for this target, with its code and that of the modules with
    kernels that it imports. (Where another module changes a constant of them, they are compiled at their first use.)"""
    code = code_of(f"{PACKAGE}.{module}")
    files = {path: found for path, found in code.files.items() if path.removesuffix(".py").replace("/", ".") in listed()}
    content = digest([files, [line for _, line in listed()[module]], made_for()])
    return kernels_folder() / f"{module}-{content[:32]}.nbs"


# ---- the process that compiles


def main() -> None:
    """Compiles the kernels whose lines come on standard input. Answers each with an empty line, or with what went wrong."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C goes to all processes of a terminal
    os.nice(5)  # tasks of an earlier stage come first
    gc.set_threshold(10_000, 10, 10)  # numba makes many objects that stay
    for line in sys.stdin:
        module, name, arguments = parse_json(line)
        try:
            getattr(import_module(f"{PACKAGE}.{module}"), name).compile(tuple(map(numba_type, arguments)))
            answer = ""
        except Exception as error:  # noqa: BLE001 - its first call reports it
            answer = f"{type(error).__name__}: {error}".replace("\n", " ")
        try:
            print(answer, flush=True)
        except BrokenPipeError:
            os._exit(0)  # the run was killed; Python's own exit would write once more, and report that


def numba_type(given: Any) -> Any:
    """Returns the type that stands so in the list: `int64` a number, `uint8 1 C` an array (item, dimensions, layout; `uint8 1 C const` a
    read-only one), `{"": [...]}` a tuple, `{"module:Class": [...]}` a named one."""
    import numba
    import numpy as np

    if isinstance(given, dict):
        ((name, items),) = given.items()
        return numba.types.BaseTuple.from_types([numba_type(item) for item in items], load_object(name) if name else None)
    item, *shape = given.split()
    scalar = numba.from_dtype(np.dtype(item))
    return numba.types.Array(scalar, int(shape[0]), shape[1], readonly=len(shape) > 2) if shape else scalar


if __name__ == "__main__":
    main()
