"""Finds the code of a task, which can change the bytes that it writes: modules, data files, and the versions of libraries.

The code of a task is the import closure of the module that defines its worker or function: all modules of this package that it imports,
directly or not. Imports in functions count, those for type checkers do not. A string that names a module (`"corpusmill.filters.c4:C4"`)
counts as an import; in a table (`{"c4": "corpusmill.filters.c4:C4"}`) it counts only where the configuration has its key. A data file in
a module's folder counts where the module's source has its name, or builds a name with its ending. Comments, blank lines and docstrings
do not count.
"""

import hashlib
import os
import platform
import re
import sys
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from typing import Any

import corpusmill
from corpusmill.pipeline.config import digest
from corpusmill.pipeline.errors import InputError

PACKAGE = "corpusmill"
#: Modules of this package on which no output of a task depends: they carry bytes unchanged, hand out work, start processes, or report.
#: They do not count, nor do their imports.
CARRIERS = tuple(
    f"{PACKAGE}.{name}" for name in (
        "pipeline.cache", "pipeline.cluster", "pipeline.code", "pipeline.compiling", "pipeline.engine", "pipeline.extras",
        "pipeline.failures", "pipeline.interrupts", "pipeline.lease", "pipeline.manifest", "pipeline.memory", "pipeline.names",
        "pipeline.on_ray", "pipeline.recipe", "pipeline.redact", "pipeline.redirects", "pipeline.run", "pipeline.runner", "pipeline.safe",
        "pipeline.storage", "pipeline.store_requests", "pipeline.store_streams", "pipeline.watch", "pipeline.web", "report",
        "train.launch", "train.watch",
    )
)  # fmt: skip
#: Libraries of the same kind.
CARRYING_LIBRARIES = (
    "aiohttp", "datatrove.io", "fsspec", "pydantic", "pydantic_core", "ray", "rich", "s3fs", "typer", "wandb", "yaml",
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
#: The most changes that a message names.
SHOWN = 3
#: Bytes before a string in which the key of a table is searched.
KEY_BYTES = 100


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
            "install the same there, or run it as a job (make submit), which brings its code."
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
        if name in found or name == PACKAGE or _is_among(name, CARRIERS):
            continue
        source = found[name] = _read(name)
        chosen = source.tables.keys() & configured
        names |= chosen
        todo += [*source.modules, *(each for key in chosen for each in source.tables[key])]
    files = {path: sha256 for source in found.values() for path, sha256 in source.files.items()}
    libraries = frozenset(library for source in found.values() for library in source.libraries)
    return Code(module, tuple(sorted(names)), dict(sorted(files.items())), _versions(libraries))


def words(value: Any) -> Iterator[str]:
    """Yields the strings in a JSON value, and the keys that hold an object or a list (`{"c4": {}}`). Keys of other values, such as
    thresholds, are left out."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if isinstance(inner, Mapping | list | tuple):
                yield str(key)
            yield from words(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from words(inner)


# ---- a module ----------------------------------------------------------------------------------------

_TRIPLE_DOUBLE = rb'"""[^"\\]*+(?:(?:\\.|"(?!""))[^"\\]*+)*+"""'
_TRIPLE_SINGLE = rb"'''[^'\\]*+(?:(?:\\.|'(?!''))[^'\\]*+)*+'''"
_PLAIN = rb'"[^"\\\n]*+(?:\\.[^"\\\n]*+)*+"' + rb"|'[^'\\\n]*+(?:\\.[^'\\\n]*+)*+'"
_COMMENTS = re.compile(rb"(" + b"|".join([_TRIPLE_DOUBLE, _TRIPLE_SINGLE, _PLAIN]) + rb")|(?<!\s)(?:\s*+#[^\n]*|\s+(?=\n))", re.DOTALL)
_DOCSTRING = re.compile(rb"(\A|:\n[ \t]*+)" + _TRIPLE_DOUBLE + rb"(?=\n)", re.DOTALL)
_TYPING = re.compile(rb"^([ \t]*)if TYPE_CHECKING:\n(?:\1[ \t]+[^\n]*(?:\n|\Z))+", re.MULTILINE)
_IMPORT = re.compile(rb"^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+import[ \t]+(\([^)]*\)|[^\n]+)|import[ \t]+([^\n]+))", re.MULTILINE)
_LOADED = re.compile(rb"""(?:import_module|find_spec)\(\s*f?["']([\w.]+)""")
_NAMED = re.compile(rb"""["'](corpusmill(?:\.\w+)+)(\.\{)?""")
_KEY = re.compile(rb"""["']([^"'\n]+)["']:\s*f?\Z""")
_MADE = rb"""(?:[}*]|with_suffix\(["'])%s\b"""


@dataclass(frozen=True)
class Source:
    """A module: its source and data files with their digests, the modules and libraries that it imports, and the modules that its tables
    name, by key."""

    files: Mapping[str, str] = field(default_factory=dict)
    modules: frozenset[str] = frozenset()
    libraries: frozenset[str] = frozenset()
    tables: Mapping[str, frozenset[str]] = field(default_factory=dict)


@cache
def _read(module: str) -> Source:
    above = module.rpartition(".")[0]
    modules, libraries, tables = {above} if _is_ours(above) else set[str](), set[str](), dict[str, set[str]]()
    place = _place(module)
    if place is None:
        return Source(modules=frozenset(modules))
    path, shown = place
    text = plain(path.read_bytes())
    for name in imports(text):
        if _is_ours(name):
            if _exists(name):
                modules.add(name)
        elif name != PACKAGE and name.partition(".")[0] not in sys.stdlib_module_names and not _is_among(name, CARRYING_LIBRARIES):
            libraries.add(name.partition(".")[0])
    for key, name in _named(text):
        (tables.setdefault(key, set()) if key else modules).add(name)
    files = {shown: _sha256(text), **_data(path, shown, text)}
    return Source(files, frozenset(modules), frozenset(libraries), {key: frozenset(names) for key, names in tables.items()})


def plain(source: bytes) -> bytes:
    """Returns a module's source without comments, blank lines, spaces at line ends, and docstrings (which become `""`)."""
    text = b"".join(filter(None, _COMMENTS.split(source))).lstrip()
    return text if b"'''" in text else _DOCSTRING.sub(_undocumented, text)  # such a string may hold a text that looks like a docstring


def _undocumented(found: re.Match[bytes]) -> bytes:
    """Returns the match with `""` in place of a docstring: a string at the top of a module, or after the head of a class or function."""
    head = found.string[found.string.rfind(b"\n", 0, found.start()) + 1 : found.start()].lstrip()
    documents = not found[1] or head.startswith((b"def ", b"class ", b"async def ", b")"))
    return found[1] + b'""' if documents else found[0]


def imports(text: bytes) -> Iterator[str]:
    """Yields the dotted names that a source (from `plain`) imports when it runs; for `from a import b` both `a` and `a.b`."""
    for origin, names, modules in _IMPORT.findall(_TYPING.sub(b"", text) if b"TYPE_CHECKING" in text else text):
        each = [name.split()[0].decode() for name in (names or modules).strip(b"()\n\t ").split(b",") if name.strip()]
        yield from each if not origin else [origin.decode(), *(f"{origin.decode()}.{name}" for name in each)]
    if b"import_module(" in text or b"find_spec(" in text:
        yield from (name.decode().rstrip(".") for name in _LOADED.findall(text))


def _named(text: bytes) -> Iterator[tuple[str, str]]:
    """Yields the modules of this package that strings name. Each comes with its key in a table, empty where it is in none. The beginning of
    a name (`f"corpusmill.filters.compat.{kind}"`) stands for all modules of that package."""
    if PACKAGE.encode() + b"." not in text:
        return
    for found in _NAMED.finditer(text):
        if _exists(name := found[1].decode()):
            key = _KEY.search(text, max(found.start() - KEY_BYTES, 0), found.start())
            inside = _folders().get(_inside(name), []) if found[2] else []
            for each in [name, *(f"{name}.{file[:-3]}" for file in inside if file.endswith(".py"))]:
                yield key[1].decode() if key else "", each


def _data(path: Path, shown: str, text: bytes) -> dict[str, str]:
    """Returns the digests of the data files that a module reads, by their paths in the package. These are the files of `_data_files` whose
    name is in its source (`scorer.json`), or for whose ending the source builds a name (`f"{name}.yaml"`)."""
    folder = shown.rpartition("/")[0]
    found = {}
    for file in _data_files(folder):
        name = file.rpartition("/")[2]
        endings = {name[place:].encode() for place in (name.find("."), name.rfind(".")) if place >= 0}
        if name.encode() in text or any(end in text and re.search(_MADE % re.escape(end), text) for end in endings):
            found[file] = _sha256((path.parent / file.removeprefix(folder + "/")).read_bytes())
    return found


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


# ---- modules and files of the package ----------------------------------------------------------------


def _is_among(name: str, places: tuple[str, ...]) -> bool:
    return any(name == place or name.startswith(place + ".") for place in places)


def _is_ours(module: str) -> bool:
    return module.startswith(PACKAGE + ".")


def _inside(module: str) -> str:
    """Returns the path in the package that a module's name stands for."""
    return "/".join(module.split(".")[1:])


@cache
def _folders() -> dict[str, list[str]]:
    """Returns the names of the files in each folder of the package, whose folders may be links."""
    root = Path(corpusmill.__file__).parent
    found = {}
    for folder, folders, files in os.walk(root, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        found[Path(folder).relative_to(root).as_posix()] = sorted(name for name in files if not name.startswith("."))
    return found


def _place(module: str) -> tuple[Path, str] | None:
    """Returns a module's file and its path in the package (outside of the package: a path made from its name). None: there is no file."""
    if not _is_ours(module):
        file = getattr(sys.modules.get(module), "__file__", None)  # never imported here: a run's folder may name any module
        return (Path(file), module.replace(".", "/") + ".py") if file else None
    folder, _, name = _inside(module).rpartition("/")
    for path in (folder, f"{name}.py"), (_inside(module), "__init__.py"):
        if path[1] in _folders().get(path[0] or ".", ()):
            shown = "/".join(filter(None, path))
            return Path(corpusmill.__file__).parent / shown, shown
    return None


def _exists(module: str) -> bool:
    return _inside(module) in _folders() or _place(module) is not None


@cache
def _data_files(folder: str) -> tuple[str, ...]:
    """Returns the paths of the data files in a folder of the package, and in those of its subfolders that hold no modules."""
    with_modules = {place for place, files in _folders().items() if any(name.endswith(".py") for name in files)}
    data = [
        place
        for place in _folders()
        if place.startswith(folder + "/") and not any(other == place or other.startswith(place + "/") for other in with_modules)
    ]
    return tuple(f"{place}/{name}" for place in [folder, *data] for name in _folders().get(place, ()) if not name.endswith((".py", ".pyc")))


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
