"""Declares compiled kernels, and caches their machine code by content: an entry is used only while it and all of its sources are unchanged.

numba's own cache checks only the file that defines a function. But a function that it calls, or a table that it reads, may be in another
file. Here an entry is named by the digest of everything that numba compiles into it: the bytecode of the kernel and of all functions that
it calls, the values of the constants and tables that they use, and the versions of the compiler. Comments, docstrings, line numbers and
paths do not count, so clones and environments share entries. numba itself separates the entries of different targets.
"""

import fcntl
import hashlib
import inspect
import pickle
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import EnumType
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np
from numba import config
from numba.core.caching import UserWideCacheLocator
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import CPUDispatcher
from xxhash import xxh3_64_hexdigest

from corpusmill.pipeline.cache import kernels_folder
from corpusmill.pipeline.config import canonical_json, parse_json
from corpusmill.pipeline.errors import CorpusmillError
from corpusmill.pipeline.shipped_kernels import choose_target, unpack, versions
from corpusmill.pipeline.storage import Storage

choose_target()
config.reload_config()  # numba may have read the environment already

#: Packages that are identified by their version. Everything else that a kernel uses is part of its digest.
VERSIONED = {"builtins", "math", "llvmlite", "numba", "numpy"}
VERSIONS = " ".join(versions())
#: Seconds after which an entry that no process has read is removed. (Most file systems record at least the day of the last read.)
UNUSED_SECONDS = 30 * 24 * 3600
#: The locators of cache entries, as in NUMBA_CACHE_LOCATOR_CLASSES: ours, then numba's own, for functions of other packages.
LOCATORS = f"{__name__}.ByContent," + (
    config.CACHE_LOCATOR_CLASSES or "UserProvidedCacheLocator,InTreeCacheLocator,UserWideCacheLocator,IPythonCacheLocator,ZipCacheLocator"
)
#: Errors of numba for an entry that a power loss has cut, and for one that names a class (of an argument) which has moved.
UNREADABLE = (EOFError, pickle.UnpicklingError, ImportError, AttributeError)


def kernel(function: Any = None, /, **options: Any) -> Any:
    """Declares a kernel, as `numba.njit` does. It releases the GIL, and its machine code is cached by content. It has no entry for callers
    in C, which would take an eighth of the time to compile. Options are numba's."""
    if function is None:
        return lambda function: kernel(function, **options)
    if config.DISABLE_JIT:
        return function
    return Kernel(function, targetoptions={"nopython": True, "nogil": True, "boundscheck": None, "no_cfunc_wrapper": True, **options})


class Kernel(CPUDispatcher):
    """A function that numba compiles for each signature. One process of a machine compiles; the others wait, and load the entry."""

    def compile(self, signature: Any) -> Any:
        if isinstance(signature, tuple) and signature in self.overloads:
            return super().compile(signature)
        # numba's own lock comes first: a thread that holds it may wait for a kernel's lock, so none may wait the other way round
        with global_compiler_lock:
            unpack()
            self.enable_caching()
            with _locked(self.py_func.content):
                if not self._whole():
                    self._remove_entries()
                misses = sum(self.stats.cache_misses.values())
                try:
                    entry = super().compile(signature)
                except UNREADABLE:
                    self._remove_entries()
                    entry = super().compile(signature)
                except OSError:
                    entry = super().compile(signature)  # a full disk: it is compiled already, and in memory
                if sum(self.stats.cache_misses.values()) > misses:
                    self._write_hashes()
                    _remove_unused()
            return entry

    def enable_caching(self) -> None:
        """Computes the kernel's digest. This is done at compilation, since only then are all names bound that the kernel uses."""
        self.py_func.content = content(self)
        config.CACHE_LOCATOR_CLASSES = LOCATORS  # set here, since numba resets it when its environment variables have changed
        super().enable_caching()

    def _remove_entries(self) -> None:
        for path in kernels_folder().glob(f"*-{self.py_func.content}.*.nb[ics]"):
            path.unlink(missing_ok=True)

    @property
    def _hashes(self) -> Path:
        """A JSON file with the XXH3-64 of the files of the kernel's entries, by name."""
        return kernels_folder() / f"kernel-{self.py_func.content}.hashes.nbs"

    def _write_hashes(self) -> None:
        files = self._hashes.parent.glob(f"*-{self.py_func.content}.*.nb[ic]")
        with suppress(OSError, CorpusmillError):  # a full disk
            found = {path.name: xxh3_64_hexdigest(path.read_bytes()) for path in files}
            Storage(str(self._hashes.parent)).write_bytes(self._hashes.name, canonical_json(found).encode())

    def _whole(self) -> bool:
        """Whether the files of the entries are those that were written: numba would run a flipped bit."""
        if not self._hashes.exists():
            return True  # nothing is compiled yet
        try:
            hashes = parse_json(self._hashes.read_bytes())
            return all(xxh3_64_hexdigest(self._hashes.with_name(name).read_bytes()) == found for name, found in hashes.items())
        except (OSError, ValueError, AttributeError):
            return False


class ByContent(UserWideCacheLocator):
    """Gives numba the folder of a kernel's entries, and the digest as their name. Does not apply to other functions."""

    def __init__(self, py_func: Any, py_file: str):
        super().__init__(py_func, py_file)
        self.content: str = py_func.content

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> "ByContent | None":
        return cls(py_func, py_file) if hasattr(py_func, "content") else None

    def get_cache_path(self) -> str:
        return str(kernels_folder())

    def get_source_stamp(self) -> str:
        return self.content

    def get_disambiguator(self) -> str:
        return self.content


# The digest of a kernel


def content(kernel: Kernel) -> str:
    """Returns the digest of everything that is compiled into a kernel.

    Raises TypeError if the kernel uses a global of a type that has no digest."""
    places: dict[FunctionType, int] = {kernel.py_func: 0}
    digest = hashlib.blake2b(f"{VERSIONS} {_options(kernel)}".encode(), digest_size=16)
    functions = [kernel.py_func]
    for function in functions:  # the list grows meanwhile
        for part in _parts(function):
            if isinstance(part, FunctionType):
                if part not in places:
                    places[part] = len(functions)
                    functions.append(part)
                part = b"call %d" % places[part]
            digest.update(b"%d " % len(part))
            digest.update(part)
    return digest.hexdigest()


def depth(function: FunctionType) -> int:
    """Returns how many functions are called inside one another from this one down: 0 for one that calls none."""
    return max((1 + depth(part) for part in _parts(function) if isinstance(part, FunctionType) and part is not function), default=0)


def _options(kernel: CPUDispatcher) -> str:
    return repr(sorted({**kernel.targetoptions, **kernel.locals}.items()))


def _parts(function: FunctionType) -> Iterator[bytes | FunctionType]:
    """Yields a function's module, its bytecode and all values that it uses, as bytes. Functions among the values are yielded themselves."""
    yield function.__module__.encode()  # an entry names classes of arguments by their modules
    code, names = _bytecode(function.__code__, function.__doc__)
    yield code
    scope, given = function.__globals__, dict(zip(function.__code__.co_freevars, function.__closure__ or ()))
    for name in names:
        if name in scope:
            yield from _value(scope[name], names, f"{function.__module__}: {name}", name)
    for name, cell in given.items():
        with suppress(ValueError):  # an empty cell
            if isinstance(cell.cell_contents, CPUDispatcher):
                raise TypeError(
                    f"{function.__qualname__}: {name}: numba can't cache a kernel that has another as a closure; give it as a global."
                )
            yield from _value(cell.cell_contents, names, f"{function.__qualname__}: {name}", name)
    for defaults in (function.__defaults__, function.__kwdefaults__):
        if defaults:
            yield from _value(defaults, names, f"{function.__qualname__}: its defaults", "defaults")


_bytecodes: dict[CodeType, tuple[bytes, tuple[str, ...]]] = {}


def _bytecode(code: CodeType, docstring: str | None = None) -> tuple[bytes, tuple[str, ...]]:
    """Returns a code object as bytes, without its file and lines, and the names of globals and attributes in it, sorted."""
    if code in _bytecodes:
        return _bytecodes[code]
    names, constants = set(code.co_names), []
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            inner, inner_names = _bytecode(constant)
            names.update(inner_names)
            constants.append(inner.hex())
        elif constant is not docstring or constant is None:
            constants.append(repr(sorted(constant, key=repr) if isinstance(constant, frozenset) else constant))
    shape = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags, code.co_exceptiontable)
    variables = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    made = repr((code.co_name, code.co_code, shape, variables, constants)).encode(), tuple(sorted(names))
    _bytecodes[code] = made
    return made


def _value(value: Any, names: tuple[str, ...], place: str, name: str) -> Iterator[bytes | FunctionType]:
    """Yields the name and the content of a value that is compiled in. For a module outside of VERSIONED, also yields its attributes that
    are in `names`."""
    yield name.encode()
    if isinstance(value, (FunctionType, BuiltinFunctionType, type, np.ufunc)) or hasattr(value, "__wrapped__"):
        yield from _callable(value, names, place)
    elif isinstance(value, ModuleType):
        yield value.__name__.encode()
        if value.__name__.partition(".")[0] not in VERSIONED:
            for each in names:
                if each in vars(value):
                    yield from _value(vars(value)[each], names, f"{value.__name__}: {each}", each)
    elif isinstance(value, np.ndarray):
        yield f"{value.dtype.descr} {value.shape} {value.flags.c_contiguous} {value.flags.f_contiguous}".encode()
        yield value.tobytes()
    elif isinstance(value, (tuple, list)):
        yield f"{type(value).__name__} {len(value)}".encode()
        for item in value:
            yield from _value(item, names, place, "")
    elif isinstance(value, dict):
        yield from _value(sorted(value.items()), names, place, "dict")
    elif value is None or isinstance(value, (bool, int, float, complex, str, bytes, np.generic, np.dtype)):
        yield f"{type(value).__name__} {value!r}".encode()
    elif type(value).__module__.partition(".")[0] in VERSIONED:
        yield f"{type(value).__name__} {value}".encode()
    else:
        raise TypeError(f"{place}: a kernel uses it, and whether a {type(value).__name__} has changed can't be told.")


def _callable(value: Any, names: tuple[str, ...], place: str) -> Iterator[bytes | FunctionType]:
    """Yields the parts of a function, kernel, intrinsic or class, as `_value` does."""
    if isinstance(value, CPUDispatcher):
        yield _options(value).encode()
    value = inspect.unwrap(value)
    yield f"{value.__name__} {getattr(value, '__module__', '')}".encode()
    if str(getattr(value, "__module__", "")).partition(".")[0] in VERSIONED:
        return
    if isinstance(value, FunctionType):
        yield value
    elif isinstance(value, EnumType):
        members: Any = value
        yield from _value([(member.name, member.value) for member in members], names, place, "members")
    elif hasattr(value, "_fields"):
        yield from _value(value._fields, names, place, "fields")


# Locks, so that one process compiles

_lock: Any = None
_held: set[int] = set()


@contextmanager
def _locked(content: str) -> Iterator[None]:
    """Locks a kernel's byte of the cache's lock file during the block. The lock ends with the process. On a file system without locks,
    several processes compile.

    There is no deadlock: a kernel waits only for kernels that it calls, and they do not call it back.
    """
    global _lock
    byte = int(content[:15], 16)
    if byte in _held:
        yield
        return
    path = kernels_folder() / "lock"
    if _lock is None or _lock.name != str(path):
        _lock = open(str(path), "ab")
    with suppress(OSError):
        fcntl.lockf(_lock, fcntl.LOCK_EX, 1, byte)
    _held.add(byte)
    try:
        yield
    finally:
        _held.discard(byte)
        with suppress(OSError):
            fcntl.lockf(_lock, fcntl.LOCK_UN, 1, byte)


_looked_at: set[Path] = set()


def _remove_unused() -> None:
    """Removes unused entries, once in a process that compiles. A process that needs an entry just then compiles it again."""
    folder = kernels_folder()
    if folder in _looked_at:
        return
    _looked_at.add(folder)
    for path in folder.glob("*.nb[ics]*"):
        with suppress(OSError):
            status = path.lstat()
            if max(status.st_atime, status.st_mtime) < time.time() - UNUSED_SECONDS:
                path.unlink()
