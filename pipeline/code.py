"""What can change the bytes that a task writes: the code it runs, the data files it reads, and the libraries it computes with.

The code of a task is the import closure of the module in which its worker or function stands: all modules of this package that it imports,
directly or not. Imports in functions count, those for type checkers do not. A string that names a module (`"corpusmill.filters.c4:C4"`)
counts as an import; in a table (`{"c4": "corpusmill.filters.c4:C4"}`) it counts where the configuration has its key. A data file beside a
module counts where the module has its name, or makes one with its ending. Comments, blank lines and docstrings do not count.
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
#: Modules of this package that carry bytes as they are, hand out work, start processes, or report what happens: no output of a task
#: depends on them, and their imports do not count.
CARRIERS = tuple(
    f"{PACKAGE}.{name}" for name in (
        "pipeline.cache", "pipeline.cluster", "pipeline.code", "pipeline.engine", "pipeline.failures", "pipeline.interrupts",
        "pipeline.lease", "pipeline.manifest", "pipeline.memory", "pipeline.on_ray", "pipeline.recipe", "pipeline.redact",
        "pipeline.redirects", "pipeline.run", "pipeline.runner", "pipeline.safe", "pipeline.storage", "pipeline.store_requests",
        "pipeline.store_streams", "pipeline.watch", "pipeline.web", "report", "train.launch_ray", "train.watch",
    )
)  # fmt: skip
#: Libraries of the same kind.
CARRYING_LIBRARIES = (
    "aiohttp", "datatrove.io", "fsspec", "pydantic", "pydantic_core", "ray", "rich", "s3fs", "typer", "wandb", "yaml",
)  # fmt: skip
#: Distributions that have another name than what is imported.
DISTRIBUTIONS = {"fasttext": "fasttext-community", "sklearn": "scikit-learn", "stdnum": "python-stdnum"}
#: Libraries that a distribution computes with, and that have versions of their own.
BEHIND = {
    "datasketch": ("scipy",),
    "numba": ("llvmlite",),
    "scikit-learn": ("scipy",),
    "trafilatura": ("courlan", "htmldate", "justext", "lxml"),
}
#: Changes that a sentence names.
SHOWN = 3
#: Bytes before a string in which the key of a table is looked for.
KEY_BYTES = 100


# ---- the code of a task ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Code:
    """The code of a task. `module`: where its worker or function stands; `names`: the keys of tables that its configuration has.

    `files`: paths in the package, with a digest of each; `libraries`: distributions with their versions, None where one is not installed.
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
        """The code of the same task as this process has it."""
        return code_of(self.module, frozenset(self.names))

    def changes(self, now: "Code") -> list[str]:
        """What differs, in words: `selectolax 1.0.2 → 1.0.3`, `filters/c4.py changed`."""
        versions = [
            f"{name} {self.libraries.get(name) or 'not installed'} → {now.libraries.get(name) or 'not installed'}"
            for name in sorted({**self.libraries, **now.libraries}, key=str.lower)
            if self.libraries.get(name) != now.libraries.get(name)
        ]
        files = [path for path in sorted({**self.files, **now.files}) if self.files.get(path) != now.files.get(path)]
        what = {path: "added" if path not in self.files else "removed" if path not in now.files else "changed" for path in files}
        return versions + [f"{path} {what[path]}" for path in sorted(files, key=lambda path: what[path] != "changed")]


def check_here(driver: Code) -> None:
    """Raises InputError where this machine has other code for a task than the driver of its run."""
    if different := driver.changes(driver.now()):
        raise InputError(
            f"the node {platform.node()} would compute with other code than this machine ({shortened(different)}): "
            "install the same there, or run it as a job (make submit), which brings its code."
        )


def shortened(changes: Sequence[str]) -> str:
    """The first of some changes, and how many more there are."""
    return ", ".join(changes if len(changes) <= SHOWN else [*changes[:SHOWN], f"and {len(changes) - SHOWN} more"])


def code_for(computed: Any, *configured: Any) -> Code:
    """The code of a worker's class, or of a function. `configured`: JSON that may have keys of tables."""
    while isinstance(computed, partial):
        computed = computed.func
    place = type(computed.__self__) if hasattr(computed, "__self__") else computed
    return code_of(place.__module__, frozenset(name for value in configured for name in _words(value)))


@cache
def code_of(module: str, configured: frozenset[str] = frozenset()) -> Code:
    """The code of what stands in a module. `configured`: the words of the configuration."""
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


def _words(value: Any) -> Iterator[str]:
    """The strings in JSON, and the keys of what has options (`{"c4": {}}`); not those of numbers, which name thresholds."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if isinstance(inner, Mapping | list | tuple):
                yield str(key)
            yield from _words(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _words(inner)


# ---- a module ----------------------------------------------------------------------------------------

_TRIPLE_DOUBLE = rb'"""[^"\\]*+(?:(?:\\.|"(?!""))[^"\\]*+)*+"""'
_TRIPLE_SINGLE = rb"'''[^'\\]*+(?:(?:\\.|'(?!''))[^'\\]*+)*+'''"
_PLAIN = rb'"[^"\\\n]*+(?:\\.[^"\\\n]*+)*+"' + rb"|'[^'\\\n]*+(?:\\.[^'\\\n]*+)*+'"
_ASIDE = re.compile(rb"(" + b"|".join([_TRIPLE_DOUBLE, _TRIPLE_SINGLE, _PLAIN]) + rb")|(?<!\s)(?:\s*+#[^\n]*|\s+(?=\n))", re.DOTALL)
_DOCSTRING = re.compile(rb"(\A|:\n[ \t]*+)" + _TRIPLE_DOUBLE + rb"(?=\n)", re.DOTALL)
_TYPING = re.compile(rb"^([ \t]*)if TYPE_CHECKING:\n(?:\1[ \t]+[^\n]*(?:\n|\Z))+", re.MULTILINE)
_IMPORT = re.compile(rb"^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+import[ \t]+(\([^)]*\)|[^\n]+)|import[ \t]+([^\n]+))", re.MULTILINE)
_LOADED = re.compile(rb"""(?:import_module|find_spec)\(\s*f?["']([\w.]+)""")
_NAMED = re.compile(rb"""["'](corpusmill(?:\.\w+)+)(\.\{)?""")
_KEY = re.compile(rb"""["']([^"'\n]+)["']:\s*f?\Z""")
_MADE = rb"""(?:[}*]|with_suffix\(["'])%s\b"""


@dataclass(frozen=True)
class Source:
    """A module: its file and its data files with their digests, the modules and libraries it imports, and the modules in its tables."""

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
    """A module's source without comments, blank lines, blanks at ends of lines, and docstrings (which become `""`)."""
    text = b"".join(filter(None, _ASIDE.split(source))).lstrip()
    return text if b"'''" in text else _DOCSTRING.sub(_undocumented, text)  # what looks like a docstring may stand in such a string


def _undocumented(found: re.Match[bytes]) -> bytes:
    """A docstring without its words: a string on top of a module, or behind the head of a class or function."""
    head = found.string[found.string.rfind(b"\n", 0, found.start()) + 1 : found.start()].lstrip()
    documents = not found[1] or head.startswith((b"def ", b"class ", b"async def ", b")"))
    return found[1] + b'""' if documents else found[0]


def imports(text: bytes) -> Iterator[str]:
    """The dotted names that a plain source imports when it runs; of `from a import b` both `a` and `a.b`."""
    for origin, names, modules in _IMPORT.findall(_TYPING.sub(b"", text) if b"TYPE_CHECKING" in text else text):
        each = [name.split()[0].decode() for name in (names or modules).strip(b"()\n\t ").split(b",") if name.strip()]
        yield from each if not origin else [origin.decode(), *(f"{origin.decode()}.{name}" for name in each)]
    if b"import_module(" in text or b"find_spec(" in text:
        yield from (name.decode().rstrip(".") for name in _LOADED.findall(text))


def _named(text: bytes) -> Iterator[tuple[str, str]]:
    """The modules of this package that strings name, with the key where a string stands in a table. The beginning of a name
    (`f"corpusmill.filters.compat.{kind}"`) means all modules of that package."""
    if PACKAGE.encode() + b"." not in text:
        return
    for found in _NAMED.finditer(text):
        if _exists(name := found[1].decode()):
            key = _KEY.search(text, max(found.start() - KEY_BYTES, 0), found.start())
            inside = _folders().get(_inside(name), []) if found[2] else []
            for each in [name, *(f"{name}.{file[:-3]}" for file in inside if file.endswith(".py"))]:
                yield key[1].decode() if key else "", each


def _data(path: Path, shown: str, text: bytes) -> dict[str, str]:
    """The data files that a module reads, by their paths in the package: those beside it, or in folders there that hold no modules, of
    which it has the name (`scorer.json`), or makes one with the ending (`f"{name}.yaml"`)."""
    folder = shown.rpartition("/")[0]
    found = {}
    for file in _beside(folder):
        name = file.rpartition("/")[2]
        endings = {name[place:].encode() for place in (name.find("."), name.rfind(".")) if place >= 0}
        if name.encode() in text or any(end in text and re.search(_MADE % re.escape(end), text) for end in endings):
            found[file] = _sha256((path.parent / file.removeprefix(folder + "/")).read_bytes())
    return found


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


# ---- what is where -----------------------------------------------------------------------------------


def _is_among(name: str, places: tuple[str, ...]) -> bool:
    return any(name == place or name.startswith(place + ".") for place in places)


def _is_ours(module: str) -> bool:
    return module.startswith(PACKAGE + ".")


def _inside(module: str) -> str:
    """The path in the package that a module's name stands for."""
    return "/".join(module.split(".")[1:])


@cache
def _folders() -> dict[str, list[str]]:
    """The names of the files in each folder of the package; rooms may be links."""
    root = Path(corpusmill.__file__).parent
    found = {}
    for folder, folders, files in os.walk(root, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        found[Path(folder).relative_to(root).as_posix()] = sorted(name for name in files if not name.startswith("."))
    return found


def _place(module: str) -> tuple[Path, str] | None:
    """A module's file, and its path in the package, or for a module of others a path made of its name; None where there is no file."""
    if not _is_ours(module):
        file = getattr(sys.modules.get(module), "__file__", None)  # not imported for this: a run's folder may name anything
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
def _beside(folder: str) -> tuple[str, ...]:
    """The paths of all that is no module in a folder of the package, and in folders there that hold no modules."""
    with_modules = {place for place, files in _folders().items() if any(name.endswith(".py") for name in files)}
    data = [
        place
        for place in _folders()
        if place.startswith(folder + "/") and not any(other == place or other.startswith(place + "/") for other in with_modules)
    ]
    return tuple(f"{place}/{name}" for place in [folder, *data] for name in _folders().get(place, ()) if not name.endswith((".py", ".pyc")))


@cache
def _versions(imported: frozenset[str]) -> dict[str, str | None]:
    """Of the distributions that hold what is imported, of what decides behind them, and of Python."""
    names = {DISTRIBUTIONS.get(name, name) for name in imported}
    names |= {behind for name in names for behind in BEHIND.get(name, ())}
    versions = {name: version_of(name) for name in sorted(names)}
    return {**versions, "Python": platform.python_version(), "Unicode": unicodedata.unidata_version}


@cache
def version_of(distribution: str) -> str | None:
    """None where it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
