"""The name under which a recipe holds a Python function: that of its module or file; for a function of a script or notebook, that of a new
file with its source.

A recipe has to say the same to another process, to a worker and to a later command. So a function is never pickled: its source, and that of
what it uses, is written to a file of the cache, whose name has the hash of its content. Where that can't be done, one sentence says why.
"""

import ast
import hashlib
import inspect
import re
import symtable
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

from corpusmill.pipeline.cache import cache_folder
from corpusmill.pipeline.storage import Storage

FOLDER = "functions"


def name_of(function: Callable[..., Any]) -> str:
    """Returns `package.module:name` or `/path/file.py:name`. Raises ValueError for a callable that can't be named or written."""
    name = getattr(function, "__name__", "")
    if not inspect.isfunction(function) or not name.isidentifier():
        what = "a lambda" if inspect.isfunction(function) else f"a {type(function).__name__}"
        raise ValueError(f"{what} has no source of its own; write a function (def) with @measures")
    module = sys.modules.get(function.__module__)
    if function.__module__ != "__main__" and getattr(module, name, None) is function:
        file = getattr(module, "__file__", None) or ""
        return f"{function.__module__}:{name}" if getattr(module, "__package__", None) or not file.endswith(".py") else f"{file}:{name}"
    if function.__closure__:
        kept = ", ".join(function.__code__.co_freevars)
        raise ValueError(f"{name}: keeps {kept} of the function around it; make it an argument, and give it as an option of the step")
    content = _source(function).encode()
    path = f"{name}-{hashlib.sha256(content).hexdigest()[:12]}.py"
    storage = Storage(str(cache_folder() / FOLDER))
    if not storage.exists(path) or storage.read_bytes(path) != content:
        storage.write_bytes(path, content)
    return f"{storage.path(path)}:{name}"


def _source(function: Callable[..., Any]) -> str:
    """Returns the source of a function as a module, with all that it uses: imports, plain values, and functions and classes beside it."""
    written: dict[str, str] = {}
    in_a_file = f"put it in a file, and name that: {{'python': 'file.py:{function.__name__}'}}"

    def define(name: str, value: Any) -> None:
        if name in written:
            return
        written[name] = ""  # it may use itself
        text = _imported(name, value) or _literal(name, value)
        if text is None and (inspect.isfunction(value) or inspect.isclass(value)):
            try:
                text = textwrap.dedent(inspect.getsource(value))
            except (OSError, TypeError) as error:
                raise ValueError(
                    f"{name}: its source can't be read here; put it in a file: {{python: file.py:{function.__name__}}}"
                ) from error
            scope = getattr(value, "__globals__", None) or vars(sys.modules[value.__module__])
            for used in _used(text):
                if used in scope:
                    define(used, scope[used])
        if text is None:
            what = f"uses {name}, a {type(value).__name__}, and a recipe holds functions, modules and plain values"
            raise ValueError(f"{function.__name__}: {what}; {in_a_file}")
        del written[name]  # behind what it uses
        written[name] = text

    define(function.__name__, function)
    return "\n".join(text.rstrip("\n") + "\n" for text in written.values())


def _used(source: str) -> Iterator[str]:
    """Yields the global names that a definition uses, also in decorators and defaults."""
    tables = [symtable.symtable(source, "function", "exec")]
    for table in tables:
        tables += table.get_children()
        yield from (each.get_name() for each in table.get_symbols() if each.is_referenced() and (each.is_global() or table is tables[0]))


def _imported(name: str, value: Any) -> str | None:
    """Returns the import of a module, or of an object of a module other than the script or notebook."""
    if inspect.ismodule(value):
        return f"import {value.__name__} as {name}"
    module, own = getattr(value, "__module__", None), getattr(value, "__qualname__", "")
    if module not in (None, "__main__") and own.isidentifier() and getattr(sys.modules.get(module), own, None) is value:
        return f"from {module} import {own} as {name}"
    return None


def _literal(name: str, value: Any) -> str | None:
    """Returns the definition of a plain value, or of a compiled expression."""
    if isinstance(value, re.Pattern):
        return f"import re\n{name} = re.compile({value.pattern!r}, {value.flags})"
    try:
        text = f"{type(value).__name__}({sorted(value)!r})" if isinstance(value, set | frozenset) else repr(value)
        return f"{name} = {text}" if isinstance(value, set | frozenset) or ast.literal_eval(text) == value else None
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
