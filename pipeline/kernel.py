"""How a compiled kernel is declared, and where its machine code is kept: by content, so that no entry outlives the sources it came from.

numba's own cache asks only whether the file that defines a function has changed. A function that it calls, or a table that it reads, may
stand in another file. Here an entry has the digest of all that numba compiles into it: the bytecode of the kernel and of all functions that
it calls, the values of the constants and tables that they use, and the versions of the compiler. Comments, docstrings, line numbers and
paths are not part of it, so clones and environments share entries. numba itself keeps entries of different processors apart.
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

import llvmlite
import numba
import numpy as np
from numba import config
from numba.core.caching import UserWideCacheLocator
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import CPUDispatcher

from corpusmill.pipeline.cache import kernels_folder

#: Packages of which the version says what they are. Everything else that a kernel uses is looked into.
VERSIONED = {"builtins", "math", "llvmlite", "numba", "numpy"}
VERSIONS = f"{numba.__version__} {llvmlite.__version__} {np.__version__}"
#: Entries that no process has read for so long are removed. (Most file systems note the day at least on which a file was read.)
UNUSED_SECONDS = 30 * 24 * 3600
#: As in NUMBA_CACHE_LOCATOR_CLASSES. Those behind ours are numba's own, for functions of other packages.
LOCATORS = f"{__name__}.ByContent," + (
    config.CACHE_LOCATOR_CLASSES or "UserProvidedCacheLocator,InTreeCacheLocator,UserWideCacheLocator,IPythonCacheLocator,ZipCacheLocator"
)
#: What numba raises where a power loss has cut an entry, and where a class that one names (of an argument) stands elsewhere now.
UNREADABLE = (EOFError, pickle.UnpicklingError, ImportError, AttributeError)


def kernel(function: Any = None, /, **options: Any) -> Any:
    """Declares a kernel, as `numba.njit` does: without the GIL, and with its machine code cached by content. Options are numba's."""
    if function is None:
        return lambda function: kernel(function, **options)
    if config.DISABLE_JIT:
        return function
    return Kernel(function, targetoptions={"nopython": True, "nogil": True, "boundscheck": None, **options})


class Kernel(CPUDispatcher):
    """A function that numba compiles for each signature. One process of a machine compiles, the others wait and load what it made."""

    def compile(self, signature: Any) -> Any:
        if isinstance(signature, tuple) and signature in self.overloads:
            return super().compile(signature)
        # numba's own lock first: a thread that has it may wait for a kernel, and one that has a kernel must not wait for it
        with global_compiler_lock:
            self.enable_caching()
            with _alone(self.py_func.content):
                misses = sum(self.stats.cache_misses.values())
                try:
                    entry = super().compile(signature)
                except UNREADABLE:
                    self._remove_entries()
                    entry = super().compile(signature)
                except OSError:
                    entry = super().compile(signature)  # compiled, but the disk is full: numba has it now and gives it
            if sum(self.stats.cache_misses.values()) > misses:
                _remove_unused()
            return entry

    def enable_caching(self) -> None:
        """Looks at what the kernel is made of now. Only then are all names bound that it uses."""
        self.py_func.content = content(self)
        config.CACHE_LOCATOR_CLASSES = LOCATORS  # here, since numba resets it wherever it sees that its environment has changed
        super().enable_caching()

    def is_cached(self) -> bool:
        """Whether machine code of this kernel as it is now lies in the cache, for whatever signature and processor."""
        return any(kernels_folder().glob(f"*-{content(self)}.*.nbi"))

    def _remove_entries(self) -> None:
        for path in kernels_folder().glob(f"*-{self.py_func.content}.*.nb[ic]"):
            path.unlink(missing_ok=True)


class ByContent(UserWideCacheLocator):
    """Tells numba where the entries of a kernel are, and gives them the digest as their name; of other functions it knows nothing."""

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


# What a kernel is made of


def content(kernel: Kernel) -> str:
    """The digest of all that is compiled into a kernel.

    Raises TypeError where it uses a global of a type that is not known here."""
    places: dict[FunctionType, int] = {kernel.py_func: 0}
    digest = hashlib.blake2b(f"{VERSIONS} {_options(kernel)}".encode(), digest_size=16)
    functions = [kernel.py_func]
    for function in functions:  # grows
        for part in _parts(function):
            if isinstance(part, FunctionType):
                if part not in places:
                    places[part] = len(functions)
                    functions.append(part)
                part = b"call %d" % places[part]
            digest.update(b"%d " % len(part))
            digest.update(part)
    return digest.hexdigest()


def _options(kernel: CPUDispatcher) -> str:
    return repr(sorted({**kernel.targetoptions, **kernel.locals}.items()))


def _parts(function: FunctionType) -> Iterator[bytes | FunctionType]:
    """A function's module, its bytecode and all values that it uses; the functions among them as they are."""
    yield function.__module__.encode()  # an entry names classes of arguments by their modules
    code, names = _bytecode(function.__code__, function.__doc__)
    yield code
    scope, given = function.__globals__, dict(zip(function.__code__.co_freevars, function.__closure__ or ()))
    for name in names:
        if name in scope:
            yield from _value(scope[name], names, f"{function.__module__}: {name}", name)
    for name, cell in given.items():
        with suppress(ValueError):  # an empty cell
            yield from _value(cell.cell_contents, names, f"{function.__qualname__}: {name}", name)
    for defaults in (function.__defaults__, function.__kwdefaults__):
        if defaults:
            yield from _value(defaults, names, f"{function.__qualname__}: its defaults", "defaults")


_bytecodes: dict[CodeType, tuple[bytes, tuple[str, ...]]] = {}


def _bytecode(code: CodeType, docstring: str | None = None) -> tuple[bytes, tuple[str, ...]]:
    """What a code object does, whatever file and line it stands at, and the names of globals and attributes in it, sorted."""
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
    """A value that is compiled in. Of a module, or of an enumeration, what is named of it counts."""
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
    """A function, kernel, intrinsic or class."""
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


# One process compiles

_lock: Any = None
_held: set[int] = set()


@contextmanager
def _alone(content: str) -> Iterator[None]:
    """Locks a kernel's byte of the cache's lock file; a process that dies lets go of it. Where a folder knows no locks, several compile.

    A kernel waits for those that it calls, which do not call it back.
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
    """Once in a process that compiles. Another that needs what is removed right now compiles it again."""
    folder = kernels_folder()
    if folder in _looked_at:
        return
    _looked_at.add(folder)
    for path in folder.glob("*.nb[ic]*"):
        with suppress(OSError):
            status = path.lstat()
            if max(status.st_atime, status.st_mtime) < time.time() - UNUSED_SECONDS:
                path.unlink()
