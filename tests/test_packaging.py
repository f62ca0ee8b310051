"""Tests the installed package: the wheel holds every room, the room `tokenize` never hides the standard library's module, and the core
works without the libraries of the extras."""

import json
import re
import shutil
import subprocess
import sys
import tokenize
import zipfile
from pathlib import Path
from pydoc_data.topics import topics

import pytest

from corpusmill.pipeline.extras import EXTRAS

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("pipeline", "text", "ingest", "filters", "dedup", "tokenize", "train", "report", "ablate")


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
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "LICENSE.spacy"):
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
        if path.is_file() and path.suffix in {".py", ".json", ".html", ".jinja", ".css", ".js", ".npz", ".yaml"}
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


# ---- the core, without the libraries that extras bring -----------------------------------------------

#: Further libraries that come with an extra or with the tests.
OTHERS = ("lxml", "opencensus", "pandas", "spacy", "tensorboardX")
RECIPE = """
ingest: {}
filter: {steps: [language, gopher_quality, c4, stop_words, pii], thresholds: {gopher_below_alpha_threshold: 0}}
dedup: {}
tokenizer: {vocab_size: 512}
tokens: {validation_share: 0.1}
"""


WITHOUT = """
import sys
from importlib.machinery import PathFinder

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {names} else super().find_spec(name, path, target)

sys.meta_path = [Without if finder is PathFinder else finder for finder in sys.meta_path]
from corpusmill.cli import main

main()
"""


def core(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs a command in a process in which the libraries of the extras are not found, as where they are not installed."""
    names = {*EXTRAS, *OTHERS}
    command = [sys.executable, "-c", WITHOUT.format(names=names), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with `documents.jsonl`, the topics of Python's `help`, and a folder `model`."""
    folder = tmp_path_factory.mktemp("core")
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{}")
    (folder / "documents.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in topics.values() if len(text) > 1500))
    return folder


@pytest.mark.long
def test_the_core_goes_from_documents_to_tokens_and_the_report_without_any_extra(documents: Path) -> None:
    (documents / "recipe.yaml").write_text(RECIPE)
    done = core(["run", "recipe.yaml", "documents.jsonl", "--output", "run", "--engine", "inline"], documents)
    assert done.returncode == 0, done.stderr
    shards = json.loads((documents / "run/tokens/train/shards.json").read_text())
    assert shards["tokens"] > 10_000
    assert "gopher" in (documents / "run/report.html").read_text()
    for command in (["verify", "run"], ["card", "run"], ["query", "run", "SELECT 1"]):
        done = core(command, documents)
        assert done.returncode == 0, (command, done.stderr)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["run", "demo", "documents.jsonl", "--set", "filter={steps: [{quality: {}}]}"],
            r"filter: sklearn is not installed here; pip install 'corpusmill\[classifiers\]'\.",
        ),
        (["run", "demo", "documents.jsonl"], r"pretrain: torch .*'corpusmill\[train\]'\."),
        (["run", "fineweb", "documents.jsonl", "--set", "ingest.extraction.extractor=trafilatura"], r"ingest: .*\[trafilatura\]'\."),
        (["run", "fineweb", "s3://bucket/documents.jsonl"], r"s3://bucket/documents\.jsonl: .*\[stores\]'\."),
        pytest.param(["warm", "demo"], r"pretrain: torch .*'corpusmill\[train\]'\.", marks=pytest.mark.long),
        (["generate", "model", "--prompt", "Once"], r"torch is not installed here; pip install 'corpusmill\[train\]'\."),
        pytest.param(["classifier", "evaluate", "quality", "documents.jsonl"], r"quality: .*\[classifiers\]'\.", marks=pytest.mark.long),
        (["run", "fineweb", "documents.jsonl", "--metrics-file", "metrics"], r"metrics: .*\[cluster\]'\."),
    ],
)
def test_what_lacks_its_extra_ends_in_one_sentence_before_any_work(documents: Path, arguments: list[str], message: str) -> None:
    output = ["--output", "refused"] if arguments[0] == "run" else []
    done = core([*arguments, *output], documents)
    assert done.returncode == 2, done.stderr
    assert re.fullmatch(f"corpusmill: {message}\n", done.stderr)
    assert not (documents / "refused" / "ingest").exists()


# ---- the version -------------------------------------------------------------------------------------


def test_the_version_names_the_commit_of_the_checkout() -> None:
    head = subprocess.run(["git", "rev-parse", "--short=7", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    done = subprocess.run([sys.executable, "-m", "corpusmill", "--version"], capture_output=True, text=True, check=True)
    commit = rf" \(commit {head.stdout.strip()}(-dirty)?\)" if head.returncode == 0 else ""
    assert re.fullmatch(rf"corpusmill \d+\.\d+\.\d+{commit}\n", done.stdout)
