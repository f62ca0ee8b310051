"""Tests the installed package: the wheel holds every room, and the room `tokenize` never hides the standard library's module."""

import shutil
import subprocess
import sys
import tokenize
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("pipeline", "ingest", "filters", "dedup", "tokenize", "train", "report")


def python(code: str, folder: Path, **environment: str) -> list[str]:
    """Returns the output of a fresh Python started in `folder`."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env={"PATH": "/usr/bin:/bin", **environment}, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


@pytest.mark.parametrize("folder", [ROOT, ROOT / "src" / "corpusmill"])
def test_tokenize_is_the_standard_librarys_wherever_python_starts(folder: Path) -> None:
    code = "import tokenize, inspect, linecache, corpusmill.tokenize; print(tokenize.__file__, *corpusmill.tokenize.__path__)"
    standard, *ours = python(code, folder)
    assert standard == tokenize.__file__
    assert [Path(path).resolve() for path in ours] == [ROOT / "tokenize"]


def test_no_room_but_tokenize_lacks_an_init() -> None:
    assert [room for room in ROOMS if not (ROOT / room / "__init__.py").exists()] == ["tokenize"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Builds a wheel from a copy of the checkout, so that the build leaves nothing here; needs the build backend."""
    folder = tmp_path_factory.mktemp("build")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    command = ["-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", str(folder / "dist"), str(folder)]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=120, check=False)
    if done.returncode and "Cannot import 'setuptools" in done.stderr:
        pytest.skip("the build backend (setuptools) is not installed here")
    assert done.returncode == 0, done.stderr
    return next((folder / "dist").glob("corpusmill-*.whl"))


def test_the_wheel_holds_every_source_and_data_file(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = {
        f"corpusmill/{path.relative_to(ROOT).as_posix()}"
        for room in (*ROOMS, "recipes")
        for path in (ROOT / room).rglob("*")
        if path.is_file() and path.suffix in {".py", ".json", ".html", ".jinja", ".css", ".js", ".yaml"}
    }
    assert sources - names == set()
    assert "corpusmill/tokenize/__init__.py" not in names
    assert not [name for name in names if name.split("/")[0] != "corpusmill" and ".dist-info/" not in name]


def test_the_wheel_works_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    stages = "from corpusmill.pipeline.recipe import STAGES, stage_class; [stage_class(name) for name in STAGES]"
    code = f"import corpusmill, tokenize; {stages}; print(corpusmill.__file__, tokenize.__file__)"
    package, standard = python(code, tmp_path, PYTHONPATH=str(tmp_path / "site"))
    assert package == str(tmp_path / "site" / "corpusmill" / "__init__.py")
    assert standard == tokenize.__file__
