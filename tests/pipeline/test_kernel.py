"""Tests that compiled kernels follow their sources: a cached kernel is never used after its source has changed."""

import importlib
import os
import random
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from corpusmill.pipeline import cache

#: A package of two modules: kernels of one call those of the other, and read its tables.
SOURCES = {
    "words.py": """
        import numpy as np
        from corpusmill.pipeline.kernel import kernel
        from numba import types
        from numba.extending import intrinsic

        START = 0
        TABLE = np.arange(5)
        LIMITS = (3, 2.5)
        SHIFT = 1

        @kernel
        def begin(number):
            return number + START

        @kernel(inline="always")
        def inlined(number):
            return number * 10

        @intrinsic
        def shifted(typing_context, number):
            def generate(context, builder, signature, arguments):
                return builder.add(arguments[0], context.get_constant(types.int64, SHIFT))
            return types.int64(types.int64), generate
        """,
    "callers.py": """
        from mill_sample import words
        from mill_sample.words import LIMITS, TABLE, begin, inlined, shifted
        from corpusmill.pipeline.kernel import kernel

        @kernel
        def plain(number):
            return later(number)

        @kernel
        def table(number):
            return TABLE[number]

        @kernel
        def limits(number):
            return number + LIMITS[0]

        @kernel
        def by_module(number):
            return number + words.START

        @kernel
        def inline(number):
            return inlined(number)

        @kernel
        def intrinsic(number):
            return shifted(number)

        def closed(factor):
            @kernel
            def multiplied(number):
                return number * factor
            return multiplied

        closure = closed(2)

        def closed_over(other):
            @kernel
            def calls(number):
                return other(number)
            return calls

        @kernel
        def alone(number):
            return -number

        @kernel
        def later(number):
            return begin(number)
        """,
}
KERNELS = ["plain", "table", "limits", "by_module", "inline", "intrinsic", "closure", "alone"]


def write_package(folder: Path, **changes: tuple[str, str]) -> None:
    """Writes the package; `module=(old, new)` changes the source of a module."""
    (folder / "mill_sample").mkdir(parents=True)
    for name, source in SOURCES.items():
        old, new = changes.get(name.removesuffix(".py"), ("", ""))
        assert old in source
        (folder / "mill_sample" / name).write_text(textwrap.dedent(source.replace(old, new) if old else source))


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ModuleType]]:
    """Writes a changed copy of the package into its own folder, and imports it; all copies share a cache."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "kernels"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def forget() -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] == "mill_sample"]:
            del sys.modules[name]

    def load(clone: str, **changes: tuple[str, str]) -> ModuleType:
        forget()
        write_package(tmp_path / clone, **changes)
        with monkeypatch.context() as patch:
            patch.syspath_prepend(str(tmp_path / clone))
            return importlib.import_module("mill_sample.callers")

    yield load
    forget()


def results(module: ModuleType) -> dict[str, float]:
    return {name: getattr(module, name)(4) for name in KERNELS}


def compiled(module: ModuleType) -> list[str]:
    """Returns the kernels that this process has compiled, not loaded."""
    return [name for name in KERNELS if sum(getattr(module, name).stats.cache_misses.values())]


def test_a_clone_elsewhere_finds_everything_compiled(load, tmp_path: Path) -> None:
    first = load("one")
    expected = {"plain": 4, "table": 4, "limits": 7, "by_module": 4, "inline": 40, "intrinsic": 5, "closure": 8, "alone": -4}
    assert results(first) == expected and compiled(first) == KERNELS
    files = {path: path.read_bytes() for path in (tmp_path / "kernels").iterdir()}
    second = load("two", callers=("@kernel\n        def plain", "# A comment.\n\n\n        @kernel\n        def plain"))
    assert results(second) == expected and compiled(second) == []
    assert {path: path.read_bytes() for path in (tmp_path / "kernels").iterdir()} == files
    assert not [path for path in tmp_path.rglob("*.nbi") if path.parent.name != "kernels"]


#: What is changed: the module, the text before and now, and the kernels that have other results then.
CHANGES: dict[str, tuple[str, str, str, dict[str, int]]] = {
    "callee": ("words", "number + START", "number + START + 7", {"plain": 11}),
    "constant": ("words", "START = 0", "START = 7", {"plain": 11, "by_module": 11}),
    "array": ("words", "np.arange(5)", "np.arange(5)[::-1].copy()", {"table": 0}),
    "tuple": ("words", "(3, 2.5)", "(5, 2.5)", {"limits": 9}),
    "inlined callee": ("words", "number * 10", "number * 11", {"inline": 44}),
    "constant of an intrinsic": ("words", "SHIFT = 1", "SHIFT = 3", {"intrinsic": 7}),
    "intrinsic": ("words", "builder.add", "builder.mul", {"intrinsic": 4}),
    "closure": ("callers", "closed(2)", "closed(3)", {"closure": 12}),
    "itself": ("callers", "-number", "-number - 1", {"alone": -5}),
}


def test_what_has_changed_is_compiled_again_and_nothing_else(load) -> None:
    before = results(load("one"))
    for what, (module, old, new, changed) in CHANGES.items():
        after = load(what, **{module: (old, new)})
        assert (results(after), compiled(after)) == (before | changed, list(changed)), what
    again = load("again")  # the first version is in the cache as before
    assert results(again) == before and compiled(again) == []


def test_a_damaged_entry_is_compiled_again(load, tmp_path: Path) -> None:
    """An entry that was cut, one of whose bits was flipped (in its machine code, too), and hashes that are no JSON."""
    before, chance = results(load("one")), random.Random(1)
    for number, damage in enumerate(("cut", "flip", "hashes")):
        for path in (tmp_path / "kernels").glob("*.nbs" if damage == "hashes" else "*.nb[ic]"):
            content = bytearray(path.read_bytes())
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
            path.write_bytes(content if damage == "flip" else content[:20] if path.suffix == ".nbc" else b"")
        again = load(f"{number} again")
        assert results(again) == before and compiled(again) == KERNELS
        after = load(f"{number} after")
        assert results(after) == before and compiled(after) == []


def python(clone: Path, code: str, environment: dict[str, str], wrapper: tuple[str, ...] = (), **changes: tuple[str, str]) -> str:
    """Returns the output of a new process that has the package's `callers`."""
    if not clone.exists():
        write_package(clone, **changes)
    environment = {**os.environ, "PYTHONPATH": str(clone), "PYTHONDONTWRITEBYTECODE": "1", **environment}
    command = [*wrapper, sys.executable, "-c", f"from mill_sample import callers\n{code}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


SLOW = """
import time
from numba.core import event
class Slow(event.Listener):
    def on_start(self, occurrence): time.sleep(0.5)
    def on_end(self, occurrence): pass
event.register("numba:compile", Slow())
print(callers.plain(4), sum(callers.plain.stats.cache_misses.values()))
"""


def test_one_process_compiles_while_others_wait_and_a_killed_one_leaves_the_lock_to_the_next(tmp_path: Path) -> None:
    write_package(tmp_path / "clone")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "clone"), "NUMBA_CACHE_DIR": str(tmp_path / "kernels")}
    hanging = SLOW.replace("time.sleep(0.5)", "print('compiling', flush=True); time.sleep(600)")

    def start(code: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", f"from mill_sample import callers\n{code}"]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)

    with start(hanging) as first:
        assert first.stdout is not None and first.stdout.readline() == "compiling\n"
        others = [start(SLOW) for _ in range(2)]
        first.kill()
    assert sorted(process.communicate()[0].strip() for process in others) == ["4 0", "4 1"]


NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups") if os.getuid() == 0 else ()


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    """Cached kernels are read, missing ones are compiled into a temporary folder."""
    home = Path(cache.tempfile.mkdtemp(prefix="home-"))  # other users may pass its parents, which is not so for pytest's own folders
    try:
        kernels, temporary = home / ".cache/corpusmill/kernels", home / "tmp"
        write_package(home / "clone")
        variables = {"HOME": str(home), "TMPDIR": str(temporary)}
        for name in ("NUMBA_CACHE_DIR", "CORPUSMILL_CACHE"):
            variables[name] = ""
        assert python(home / "clone", "print(callers.alone(4))", variables).strip() == "-4"
        temporary.mkdir()
        temporary.chmod(0o1777)
        for path in (home, kernels.parent, kernels.parent.parent, kernels, *kernels.iterdir()):
            path.chmod(0o555 if path.is_dir() else 0o444)
        report = """
import os
misses = lambda *kernels: [sum(kernel.stats.cache_misses.values()) for kernel in kernels]
print(callers.alone(4), callers.table(3), misses(callers.alone, callers.table), os.environ["NUMBA_CACHE_DIR"])
"""
        result, sentence = python(home / "clone", report, variables, NOBODY).splitlines()
        folder = result.rpartition(" ")[2]
        assert result == f"-4 3 [0, 1] {folder}" and folder.startswith(f"{temporary}/")
        assert sentence.startswith(
            f"corpusmill: {kernels}: can't be written (Permission denied), so compiled kernels are kept in {folder};"
        )
    finally:
        for path in (home, *home.rglob("*")):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o755)
        subprocess.run(["rm", "-rf", str(home)], check=True)


def test_a_temporary_folder_of_somebody_else_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(cache.tempfile, "tempdir", str(tmp_path))
    theirs = tmp_path / f"corpusmill-kernels-{os.getuid()}"
    theirs.mkdir()
    theirs.chmod(0o777)
    (tmp_path / "file").touch()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file" / "kernels"))
    folder = cache.kernels_folder()
    assert folder.parent == tmp_path and folder != theirs and folder.stat().st_mode & 0o777 == 0o700
    assert capsys.readouterr().err.count("\n") == 1 and cache.kernels_folder() == folder


def test_every_kernel_is_declared_by_the_decorator_that_caches_by_content() -> None:
    root = Path(cache.__file__).resolve().parents[1]
    sources = [path for room in ("pipeline", "text", "filters", "dedup", "tokenize", "train") for path in (root / room).rglob("*.py")]
    assert len(sources) > 100
    assert [str(path) for path in sources if "@numba." in (text := path.read_text()) or "@njit" in text] == []
