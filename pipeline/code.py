"""Finds the code of a task, which can change the bytes that it writes: modules, data files, and the versions of libraries.

The code of a task is the import closure of the module that defines its worker or function, within the rooms that this module may import:
`pipeline` and its own (of `ablate`, all but `report`). Imports in functions count; those of a class of `pipeline` that only annotates
arguments (`run: StageRun`) do not, since a worker does not make it. A string that names a module (`"corpusmill.filters.c4:C4"`) counts as
an import; in a table (`{"c4": "corpusmill.filters.c4:C4"}`) it counts only where the configuration has its key. A data file counts where a
module of its folder names it. Comments, blank lines and docstrings do not count.
"""

import ast
import contextlib
import hashlib
import json
import os
import platform
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from typing import Any

import corpusmill
from corpusmill.pipeline.cache import cache_folder
from corpusmill.pipeline.config import digest, parse_json
from corpusmill.pipeline.errors import InputError

PACKAGE = "corpusmill"
#: Libraries that carry values and bytes, and compute none: their versions do not count.
CARRYING_LIBRARIES = (
    "aiohttp", "boto3", "botocore", "fsspec", "ipywidgets", "obstore", "pip", "prometheus_client", "pydantic", "pydantic_core", "ray",
    "rich", "typer", "wandb", "yaml",
)  # fmt: skip
#: The distribution of each imported package whose name differs from it.
DISTRIBUTIONS = {
    "fasttext": "fasttext-community", "phonenumbers": "phonenumberslite", "sklearn": "scikit-learn", "stdnum": "python-stdnum"
}  # fmt: skip
#: Libraries that a distribution uses to compute, and whose versions count, too.
BEHIND = {
    "numba": ("llvmlite",),
    "scikit-learn": ("scipy",),
    "trafilatura": ("courlan", "htmldate", "justext", "lxml"),
}
#: Functions that load a module by its name.
LOADERS = ("import_module", "find_spec")
#: The most changes that a message names. The most characters of a string that may name a module or a file.
SHOWN, LONGEST = 3, 100


# ---- the code of a task ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Code:
    """The code of a task. `module`: the module of its worker or function. `names`: the keys of tables that its configuration has.

    `files`: paths in the package with their digests. `libraries`: distributions with their versions, None if one is not installed.
    """

    module: str
    names: tuple[str, ...]
    files: Mapping[str, str]
    libraries: Mapping[str, str | None]
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", digest([dict(self.files), dict(self.libraries)])[:16])

    @classmethod
    def from_json(cls, parts: Mapping[str, Any]) -> "Code":
        return cls(parts["module"], tuple(parts["names"]), parts["files"], parts["libraries"])

    def as_json(self) -> dict[str, Any]:
        return {"module": self.module, "names": list(self.names), "files": dict(self.files), "libraries": dict(self.libraries)}

    def now(self) -> "Code":
        """Returns the code of the same task as it is in this process."""
        return code_of(self.module, frozenset(self.names))

    def changes(self, now: "Code") -> list[str]:
        """Returns the differences in words: `selectolax 1.0.2 → 1.0.3`, `filters/c4.py changed`."""
        versions = [
            f"{name} {self.libraries.get(name) or 'not installed'} → {now.libraries.get(name) or 'not installed'}"
            for name in sorted({**self.libraries, **now.libraries}, key=str.lower)
            if self.libraries.get(name) != now.libraries.get(name)
        ]
        files = [path for path in sorted({**self.files, **now.files}) if self.files.get(path) != now.files.get(path)]
        what = {path: "added" if path not in self.files else "removed" if path not in now.files else "changed" for path in files}
        return versions + [f"{path} {what[path]}" for path in sorted(files, key=lambda path: what[path] != "changed")]


def check_here(driver: Code) -> None:
    """Raises InputError if the code of a task on this machine differs from the driver's."""
    if different := driver.changes(driver.now()):
        raise InputError(
            f"the node {platform.node()} would compute with other code than this machine ({shortened(different)}): "
            "install the same there, or run it as a job (ray job submit --working-dir), which brings its code."
        )


def shortened(changes: Sequence[str]) -> str:
    """Returns the first changes as text, and the number of the others."""
    return ", ".join(changes if len(changes) <= SHOWN else [*changes[:SHOWN], f"and {len(changes) - SHOWN} more"])


def code_for(computed: Any, *configured: Any) -> Code:
    """Returns the code of a worker class or a function. `configured`: JSON values, such as a configuration, in which the keys of tables of
    modules are looked for."""
    while isinstance(computed, partial):
        computed = computed.func
    place = type(computed.__self__) if hasattr(computed, "__self__") else computed
    return code_of(place.__module__, frozenset(name for value in configured for name in words(value)))


@cache
def code_of(module: str, configured: frozenset[str] = frozenset()) -> Code:
    """Returns the code of a module's workers and functions. `configured`: the strings and keys in the configuration (`words`)."""
    found: dict[str, Source] = {}
    names: set[str] = set()
    todo = [module]
    while todo:
        name = todo.pop()
        if name in found or not _may_import(module, name):
            continue
        source = found[name] = _read(name)
        chosen = source.tables.keys() & configured
        names |= chosen
        todo += [*source.modules, *(source.tables[key] for key in chosen)]
    files = {path: sha256 for source in found.values() for path, sha256 in source.files.items()}
    libraries = frozenset(library for source in found.values() for library in source.libraries)
    return Code(module, tuple(sorted(names)), dict(sorted(files.items())), _versions(libraries))


def _may_import(module: str, other: str) -> bool:
    """Whether a module of a room may import another one of this package, and its bytes depend on it: `report` and `cli` only show."""
    own, room = (name.split(".")[1] if _is_ours(name) else "" for name in (module, other))
    return other != PACKAGE and room not in ("report", "cli") and (own in ("ablate", "") or room in ("pipeline", "text", own, ""))


def words(value: Any) -> Iterator[str]:
    """Yields the strings in a JSON value, and the keys that hold an object or a list (`{"c4": {}}`). Keys of other values, such as
    thresholds, are left out."""
    if isinstance(value, str):
        yield value
        yield value[: value.find(":") + 1]  # a word rule with a language (`text.word_rules.FINDERS`)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if isinstance(inner, Mapping | list | tuple):
                yield str(key)
            yield from words(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from words(inner)


# ---- a module ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """A module: its source and data files with their digests, the modules and libraries that it imports, and the modules that its tables
    name, by key."""

    files: Mapping[str, str] = field(default_factory=dict)
    modules: frozenset[str] = frozenset()
    libraries: frozenset[str] = frozenset()
    tables: Mapping[str, str] = field(default_factory=dict)


@cache
def _read(module: str) -> Source:
    path = _path(module)
    if path is None:
        return Source()
    program = _parsed(path.read_bytes())
    named = {name.partition(":")[0] for name in program["strings"]} - set(program["tables"].values())
    modules = {name for name in (*program["imports"], *named) if _is_ours(name) and _path(name)}
    others = {name.partition(".")[0] for name in program["imports"]} - {PACKAGE, *CARRYING_LIBRARIES, *sys.stdlib_module_names}
    files = {_shown(path) if _is_ours(module) else module.replace(".", "/") + ".py": program["digest"]}
    if _is_ours(module):
        modules.add(module.rpartition(".")[0])
        data = (file for file in path.parent.iterdir() if file.name in program["strings"] and file.suffix != ".py" and file.is_file())
        files |= {_shown(file): _sha256(file.read_bytes()) for file in data}
    return Source(files, frozenset(modules), frozenset(others), program["tables"])


def _parsed(source: bytes) -> dict[str, Any]:
    """Returns what `parse` finds in a source. It is kept in the user's cache, since parsing a hundred takes a second: by the hash of the
    source and of this module, after a line with its own hash."""
    with contextlib.suppress(OSError, RuntimeError):  # no cache can be written, or there is no home folder
        kept = cache_folder() / "sources" / f"{_sha256(source + _parser())}.json"
        with contextlib.suppress(FileNotFoundError):
            checksum, _, content = kept.read_bytes().partition(b"\n")
            if checksum.decode("latin-1") == _sha256(content):
                return dict(parse_json(content))
        found = parse(source)
        content = json.dumps(found).encode()
        kept.parent.mkdir(parents=True, exist_ok=True)
        temporary = kept.with_suffix(f".{os.getpid()}")
        temporary.write_bytes(_sha256(content).encode() + b"\n" + content)
        temporary.replace(kept)
        return found
    return parse(source)


@cache
def _parser() -> bytes:
    return Path(__file__).read_bytes() + platform.python_version().encode()


def parse(source: bytes) -> dict[str, Any]:
    """Parses a source. `digest`: of the program without docstrings (comments and layout are no part of it). `imports`: dotted names, for
    `from a import b` both `a` and `a.b`, and those given to `import_module` and `find_spec`. `strings`: those that may name a module or a
    file. `tables`: modules of this package by key."""
    tree = ast.parse(source)
    used: Counter[str] = Counter()  # how often a name stands elsewhere than in annotations of functions
    imported: list[tuple[str, str]] = []  # the name that an import binds, and what it imports
    imports, strings, tables = set[str](), set[str](), dict[str, str]()
    for node in ast.walk(tree):
        match node:
            case ast.Module(body=[ast.Expr(value=ast.Constant(value=str())), *_]):
                node.body[0] = ast.Pass()
            case ast.ClassDef(body=[ast.Expr(value=ast.Constant(value=str())), *_]):
                node.body[0] = ast.Pass()
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                if ast.get_docstring(node, clean=False) is not None:
                    node.body[0] = ast.Pass()
                used.subtract(_names(node.returns))
            case ast.arg(annotation=annotation):
                used.subtract(_names(annotation))
            case ast.Name(id=name):
                used[name] += 1
            case ast.Import(names=names):
                imported += [(alias.asname or alias.name.partition(".")[0], alias.name) for alias in names]
            case ast.ImportFrom(module=str(origin), names=names):
                imported += [(alias.asname or alias.name, name) for alias in names for name in (origin, f"{origin}.{alias.name}")]
            case ast.Call(func=ast.Name(id=called) | ast.Attribute(attr=called), args=[given, *_]) if called in LOADERS:
                first = given.values[0] if isinstance(given, ast.JoinedStr) else given
                imports |= {str(first.value).rstrip(".")} if isinstance(first, ast.Constant) else set()
            case ast.Constant(value=str(text)) if "." in text and len(text) < LONGEST and " " not in text:
                strings.add(text)
            case ast.Dict(keys=keys, values=values):
                pairs = [(key.value, value.value) for key, value in zip(keys, values, strict=True)
                         if isinstance(key, ast.Constant) and isinstance(value, ast.Constant)]  # fmt: skip
                tables |= {str(key): str(value).partition(":")[0] for key, value in pairs if _is_ours(str(value))}
    imports |= {name for bound, name in imported if used[bound] > 0 or not name.startswith(f"{PACKAGE}.pipeline.")}
    return {"digest": _sha256(ast.dump(tree).encode()), "imports": sorted(imports), "strings": sorted(strings), "tables": tables}


def _names(annotation: ast.expr | None) -> list[str]:
    return [each.id for each in ast.walk(annotation) if isinstance(each, ast.Name)] if annotation else []


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


# ---- modules and files of the package ----------------------------------------------------------------


def _is_ours(module: str) -> bool:
    return module.startswith(PACKAGE + ".")


@cache
def _path(module: str) -> Path | None:
    """Returns the file of a module; None if there is none. Modules of others are never imported here: a run's folder may name any."""
    if not _is_ours(module):
        file = getattr(sys.modules.get(module), "__file__", None)
        return Path(file) if file else None
    place = Path(corpusmill.__file__).parent.joinpath(*module.split(".")[1:])
    return next((path for path in (place.with_name(f"{place.name}.py"), place / "__init__.py") if path.is_file()), None)


def _shown(path: Path) -> str:
    """Returns the path of a file in the package."""
    return path.relative_to(Path(corpusmill.__file__).parent).as_posix()


@cache
def _versions(imported: frozenset[str]) -> dict[str, str | None]:
    """Returns the versions of the distributions of the imported packages, of the libraries in BEHIND, of Python and of Unicode."""
    names = {DISTRIBUTIONS.get(name, name) for name in imported}
    names |= {behind for name in names for behind in BEHIND.get(name, ())}
    versions = {name: version_of(name) for name in sorted(names)}
    return {**versions, "Python": platform.python_version(), "Unicode": unicodedata.unidata_version}


@cache
def version_of(distribution: str) -> str | None:
    """Returns the version of a distribution; None if it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
