"""What travels to a cluster with a job: the package (or a wheel of it), the recipe, and the files that the recipe names.

A recipe's relative paths mean its own folder or the one in which the command is given. On the cluster there is only the job's folder, so
the recipe lies at its top and every file that it names lies where it names it; one that lies outside (`../models/quality`) gets a place
there, and the recipe's copy says so. The same content gives the same folder, which Ray uploads once.
"""

import glob
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

import corpusmill
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.recipe import read_raw
from corpusmill.pipeline.storage import is_remote

#: The recipe's name in the job's folder, and where files lie that are neither beside the recipe nor below the caller's folder.
RECIPE, OUTSIDE = "recipe.yaml", "outside"
#: What a recipe names and a run writes: not sent, but found again where the caller has it.
WRITTEN = ("dedup", "index", "path")
#: The most that the files of a recipe may have together, bytes: Ray takes 500 MiB and copies them to every node.
LARGEST = 200 * 10**6
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.egg-info", ".git*")
Say = Callable[[str], None]


def stage_package(folder: Path) -> Path:
    """Copies the package into `folder`, its links followed, and returns where it is. A Python that has `folder` in its path imports it."""
    package = Path(corpusmill.__file__).parent
    return Path(shutil.copytree(package, folder / package.name, ignore=LEFT_OUT))


def stage_wheel(folder: Path) -> str:
    """Builds a wheel of this checkout in `folder`; returns its name. The same sources give the same bytes."""
    root = Path(corpusmill.__file__).resolve().parents[2]
    if not (root / "pyproject.toml").is_file():
        raise InputError(f"{root}: no checkout of corpusmill, so there is nothing to build a wheel of; install the package on the nodes.")
    with tempfile.TemporaryDirectory(prefix="corpusmill-wheel-") as copy:
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(root / name, copy)
        shutil.copytree(root / "src", Path(copy, "src"), ignore=LEFT_OUT)
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps", "-w", str(folder), copy]
        command += ["--no-build-isolation"] if _has_builder() else []
        environment = os.environ | {"SOURCE_DATE_EPOCH": "315532800"}  # 1980, where the dates of a zip archive begin
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CorpusmillError(f"{root}: no wheel can be built ({(done.stderr.strip().splitlines() or ['pip said nothing'])[-1]}).")
    return next(folder.glob("corpusmill-*.whl")).name


def _has_builder() -> bool:
    """Whether this Python has what pyproject.toml wants for building, so that pip need not fetch it."""
    try:
        return int(metadata.version("setuptools").partition(".")[0]) >= 77
    except (metadata.PackageNotFoundError, ValueError):
        return False


def stage_recipe(folder: Path, recipe: str, overrides: Sequence[str], say: Say) -> None:
    """Writes the recipe, overrides applied, and copies what it names into `folder`. `say` gets a sentence about what is too large."""
    raw = read_raw(recipe, overrides)
    _keep_written(raw)
    staged = _Files(folder, Path(recipe).parent, say)
    content = yaml.safe_dump(staged.take(raw), sort_keys=False, allow_unicode=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECIPE).write_text(content, encoding="utf-8")


def _keep_written(raw: dict[str, Any]) -> None:
    """Makes the path of what the run writes one that means the same in the job's folder."""
    *sections, key = WRITTEN
    place: Any = raw
    for section in sections:
        place = place.get(section) if isinstance(place, dict) else None
    if isinstance(place, dict) and isinstance(place.get(key), str) and not is_remote(place[key]):
        place[key] = str(Path(place[key].removeprefix("file://")).absolute())


class _Files:
    """Copies the files that a recipe's values name; `beside` is the recipe's own folder."""

    def __init__(self, folder: Path, beside: Path, say: Say):
        self.folder, self.beside, self.say = folder, beside, say
        self.left = LARGEST
        self.outside = 0

    def take(self, value: Any, place: str = "") -> Any:
        """The value as the job's recipe has it; `place` is where it stands (`filter.steps.2.python`)."""
        if isinstance(value, dict):
            return {key: self.take(item, f"{place}.{key}" if place else str(key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self.take(item, f"{place}.{number}") for number, item in enumerate(value)]
        return self._text(value, place) if isinstance(value, str) else value

    def _text(self, text: str, place: str) -> str:
        for path, rest in _readings(text):
            found = [base for base in (self.beside, Path()) if _matches(base, path)]
            if len({tuple(os.path.realpath(match) for match in _matches(base, path)) for base in found}) > 1:
                raise InputError(f"{place}: {path} is there beside the recipe and in this folder, and they differ; give its whole path.")
            if found:
                return self._copy(found[0], path, place) + rest
        return text

    def _copy(self, base: Path, path: str, place: str) -> str:
        """Copies what `path` names; returns how the job's recipe names it."""
        matches = _matches(base, path)
        size = sum(_size(match) for match in matches)
        if size > self.left:
            self.say(f"{place}: {path} has {size / 1e6:,.0f} MB and does not travel; put it where all nodes reach it, by its whole path.")
            return path
        self.left -= size
        base, path, above = _from_above(base, path)
        if above:
            self.outside += 1
            path = f"{OUTSIDE}/{self.outside}/{path}"
        target = self.folder / OUTSIDE / str(self.outside) if above else self.folder
        for match in matches:
            _copy(match, target / match.relative_to(base))
        return path


def _readings(text: str) -> list[tuple[str, str]]:
    """The paths below a folder that a text can be, each with what follows it: `file.py:name` is a file and a function's name."""
    head, colon, tail = text.partition(":")
    readings = [(text, ""), (head, colon + tail)] if colon else [(text, "")]
    return [(path, rest) for path, rest in readings if path and "\n" not in path and not Path(path).is_absolute() and not is_remote(path)]


def _from_above(base: Path, path: str) -> tuple[Path, str, bool]:
    """The folder in which the last `..` of a path ends, the path from there, and whether there is one."""
    parts = Path(path).parts
    if ".." not in parts:
        return base, path, False
    last = len(parts) - parts[::-1].index("..")
    return base.joinpath(*parts[:last]), str(Path(*parts[last:])), True


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=LEFT_OUT, dirs_exist_ok=True)
    else:
        shutil.copyfile(source, target)


def _matches(base: Path, path: str) -> list[Path]:
    """What lies at a path or glob below `base`, in order. Neither the folder itself nor one that holds it is what a recipe names."""
    try:
        if (base / path).exists():
            return [base / path] if (base / path).resolve() not in [base.resolve(), *base.resolve().parents] else []
        return sorted(Path(match) for match in glob.glob(str(base / path))) if glob.has_magic(path) else []
    except OSError:  # a text too long for a path
        return []


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
