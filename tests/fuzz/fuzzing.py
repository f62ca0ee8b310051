"""Defines fuzz targets, for `fuzz_all.py` under atheris and for `test_cases.py` without.

A target is a module in `targets/` with two functions:

    seeds() -> list[bytes]     sound, small inputs, made by code
    fuzz(data: bytes) -> None  reads `data`; asserts its properties, and catches the reader's documented exceptions

A found case is a file in `cases/NAME/`: the input that broke the target NAME, as short as possible, kept for ever.
"""

import atexit
import importlib
import json
import random
import resource
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

HERE = Path(__file__).resolve().parent
CASES = HERE / "cases"
#: Limits for one input: seconds, and MiB of memory on top of what the process already holds.
SECONDS, MEGABYTES = 10, 1024
#: Bytes of the longest input that is tried.
LONGEST = 1 << 14
#: Values that reach more branches than others.
TELLING = [
    b"\0",
    b"\xff",
    b"\n",
    b"\r\n",
    b" ",
    b"{",
    b"}",
    b"[",
    b"]",
    b'"',
    b"null",
    b"-1",
    b"0",
    b"1e999",
    b"NaN",
    b"../",
    b"/",
    b"\xff" * 4,
    b"\x7f" + b"\xff" * 7,
]

Option = TypeVar("Option")


@dataclass(frozen=True)
class Target:
    name: str
    fuzz: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]

    def cases(self) -> list[Path]:
        return sorted((CASES / self.name).glob("*"))


def names() -> list[str]:
    """Returns all targets, sorted."""
    return sorted(path.stem for path in (HERE / "targets").glob("*.py"))


def load(name: str) -> Target:
    for folder in (HERE, HERE.parent / "helpers"):
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
    module: Any = importlib.import_module(f"targets.{name}")
    return Target(name, module.fuzz, module.seeds)


@cache
def scratch() -> Path:
    """Returns a folder of this process for the files of its inputs. A process ended by libFuzzer leaves it; its parent removes $TMPDIR."""
    folder = Path(tempfile.mkdtemp(prefix="corpusmill-fuzz-"))
    atexit.register(shutil.rmtree, folder, True)
    return folder


@contextmanager
def changed(sound: Path, name: str, content: bytes) -> Iterator[Path]:
    """Yields a copy of the folder `sound` whose file `name` has this content, and removes it."""
    folder = scratch() / f"changed-{sound.name}"
    shutil.copytree(sound, folder, dirs_exist_ok=True)
    (folder / name).write_bytes(content)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def choose(data: bytes, options: list[Option]) -> tuple[Option, bytes]:
    """Returns the option chosen by the first byte, and the rest."""
    return options[(data[0] if data else 0) % len(options)], data[1:]


def choosing(place: int, data: bytes) -> bytes:
    """Returns the input by which `choose` chooses the option at `place`."""
    return bytes([place]) + data


def mutants(seeds: list[bytes], seed: str, count: int) -> Iterator[bytes]:
    """Yields `count` inputs near the seeds, reproducible by `seed`: a few places flipped, cut, doubled, or joined with another's end."""
    random_ = random.Random(seed)
    for _ in range(count):
        data = bytearray(random_.choice(seeds))
        for _ in range(random_.choice((1, 1, 2, 4))):
            _mutate(data, seeds, random_)
        yield bytes(data[:LONGEST])


def _mutate(data: bytearray, seeds: list[bytes], random_: random.Random) -> None:
    place = random_.randrange(len(data) + 1)
    end = min(len(data), place + random_.choice((1, 2, 4, 8, 64)))
    kind = random_.randrange(7)
    if kind == 0 and place < len(data):
        data[place] ^= 1 << random_.randrange(8)
    elif kind == 1:
        data[place:end] = random_.choice(TELLING)
    elif kind == 2:
        del data[place:end]
    elif kind == 3:
        data[place:place] = data[place:end] * random_.choice((1, 3))
    elif kind == 4:
        del data[place:]
    elif kind == 5:
        other = random_.choice(seeds)
        data[place:] = other[random_.randrange(len(other) + 1) :]
    else:
        data[place:end] = random_.randbytes(end - place)


def json_mutants(seed: str, value: Any, count: int) -> Iterator[bytes]:
    """Yields `count` JSON texts, each with one place of `value` replaced by another kind of value, left out, or moved out of its folder."""
    random_ = random.Random(seed)
    odd = [None, True, -1, 0, 1 << 70, 1.5, float("nan"), "", "x", "../../x", "/etc/passwd", "\ud800", [], {}, [None], {"a": 1}]
    for _ in range(count):
        copy = json.loads(json.dumps(value))
        inner = [node for node in _containers(copy) if node]
        node = random_.choice(inner)
        key = random_.choice(list(node) if isinstance(node, dict) else range(len(node)))
        if random_.randrange(4):
            node[key] = random_.choice(odd)
        else:
            del node[key]
        yield json.dumps(copy).encode()


def _containers(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        yield value
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _containers(inner)


@contextmanager
def limits(seconds: float = SECONDS, megabytes: int = MEGABYTES) -> Iterator[None]:
    """Raises TimeoutError in a block that takes more seconds of CPU, and AssertionError after one that took more memory. For the
    main thread alone.
    """

    def late(*_: object) -> None:
        raise TimeoutError(f"more than {seconds} seconds")

    before, held = signal.signal(signal.SIGPROF, late), _peak()
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    assert _peak() - held < megabytes, f"more than {megabytes} MiB"


def _peak() -> int:
    """Returns the peak memory of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


@contextmanager
def offline() -> Iterator[None]:
    """Blocks all connections, so that nothing named by a file is fetched."""

    def refuse(*_: object) -> None:
        raise AssertionError("a connection was asked for")

    kept = socket.socket.connect
    socket.socket.connect = refuse  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        socket.socket.connect = kept  # type: ignore[method-assign]
