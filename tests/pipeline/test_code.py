"""Tests which tasks are redone after a change of code, data or a library, which are not, and the reason in words."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import forking_command
import pyarrow as pa
import pytest

import corpusmill
from corpusmill.pipeline import code
from corpusmill.pipeline.code import code_of
from corpusmill.pipeline.config import Config
from corpusmill.pipeline.engine import Job
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.failures import Attempt, Failed
from corpusmill.pipeline.on_ray.dispatch import Share, TaskActor
from corpusmill.pipeline.stage import Task
from corpusmill.train.launch import GroupJob, take_part

PACKAGE = Path(corpusmill.__file__).parent
RECIPE = """
ingest: {}
filter:
  steps: [{compression: {}}]
"""
ARGUMENTS = ["run", "mill.yaml", "in.jsonl", "--output", "run", "--engine", "inline"]


class Copy:
    """A copy of the package in another place, and a process that runs its command in a folder."""

    def __init__(self, place: Path, folder: Path):
        self.folder, self.package = folder, place / "corpusmill"
        shutil.copytree(PACKAGE, self.package, ignore=shutil.ignore_patterns("__pycache__"))
        path = os.pathsep.join([str(place), *filter(None, sys.path)])
        self.process = subprocess.Popen(
            [sys.executable, forking_command.__file__], env={**os.environ, "PYTHONPATH": path}, cwd=folder, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def run(self) -> str:
        """Returns the run's message on what it redoes; empty where there is none."""
        assert self.process.stdin is not None and self.process.stdout is not None
        print(json.dumps([ARGUMENTS, str(self.folder / "said")]), file=self.process.stdin, flush=True)
        ended, said = self.process.stdout.readline().strip(), " ".join((self.folder / "said").read_text().split())
        assert ended == "0", said
        start = said.find("This run already exists, and something has changed. ")
        return said[start:].partition(". ")[2].partition(". ")[0].rstrip(".") if start >= 0 else ""

    def append(self, path: str, text: str) -> None:
        with open(self.package / path, "a") as file:
            file.write(text)


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[Copy]:
    (tmp_path / "mill.yaml").write_text(RECIPE)
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": f"Some words of document {n}, and some more."}) + "\n" for n in (1, 2)))
    made = Copy(tmp_path / "site", tmp_path)
    with made.process:
        yield made


@pytest.mark.long
def test_a_run_does_again_what_a_change_can_reach_wherever_the_code_lies_and_says_why(
    copy: Copy, corpusmill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copy.folder)
    assert corpusmill(*ARGUMENTS)[0] == 0
    manifest = copy.folder / "run" / "filter" / "manifest.jsonl"
    before = manifest.read_bytes()

    for path in ("pipeline/run.py", "ingest/demo_crawl.py", "report/read.py", "filters/c4.py", "filters/whatif.py"):
        copy.append(path, "\nCHANGED = 1\n")  # these play no part in the results, or are not in the recipe
    copy.append("ingest/warc.py", "\n# a comment\n")
    rules = copy.package / "filters" / "rules.py"
    rules.write_text(rules.read_text().replace('"""', '"""Another docstring. ', 1))
    assert copy.run() == "" and manifest.read_bytes() == before  # nor does the place of the code

    for path in ("filters/ratios.py", "filters/statistics.py"):  # the step's own module, and one that every filter imports
        copy.append(path, "\nCHANGED = 1\n")
    scorer = copy.package / "ingest" / "html" / "scorer.npz"
    scorer.write_bytes(scorer.read_bytes() + b"\n")
    library = copy.package.parent / "selectolax-99.1.dist-info"
    library.mkdir()
    (library / "METADATA").write_text("Metadata-Version: 2.1\nName: selectolax\nVersion: 99.1\n")
    said, _, filters = copy.run().partition("; ")
    assert re.fullmatch(r"ingest: redone, selectolax 1\.\S+ → 99\.1, ingest/html/scorer\.npz changed", said)
    assert filters == "filter: redone, filters/ratios.py changed, filters/statistics.py changed"
    assert manifest.read_bytes() != before


def test_a_node_with_another_library_refuses_its_work_and_names_it(tmp_path: Path) -> None:
    worker = "corpusmill.filters.worker"
    here = code_of(worker)
    there = replace(here, libraries={**here.libraries, "pyarrow": "1.2.3"})
    job = Job("filter", f"{worker}:FilterWorker", Config(), str(tmp_path), code=there)
    answer = TaskActor(job, str(tmp_path), Share(1)).perform(Attempt(Task("part-00000", ())))
    assert isinstance(answer, Failed) and answer.fatal
    assert f"with other code than this machine (pyarrow 1.2.3 → {pa.__version__}): install the same there" in answer.message


def test_a_process_of_a_training_on_a_machine_with_another_library_refuses_to_take_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    here = code_of("corpusmill.train.sft")
    there = replace(here, libraries={**here.libraries, "torch": "1.2.3"})
    task: GroupJob = {
        "job": "corpusmill.train.sft:train",
        "arguments": {},
        "parallel": {},
        "device": "cpu",
        "code": there.as_json(),
    }
    with pytest.raises(InputError, match=r"with other code than this machine \(torch 1\.2\.3 → "):
        take_part(task, None)


def test_a_step_counts_where_the_recipe_names_it_and_a_library_where_it_computes() -> None:
    worker = "corpusmill.filters.worker"
    plain, c4 = code_of(worker, frozenset({"gopher_quality"})), code_of(worker, frozenset({"gopher_quality", "c4"}))
    assert "filters/gopher.py" in plain.files and "filters/c4.py" not in plain.files and "scipy" not in plain.libraries
    assert {"filters/c4.py", "text/spacy_english.json"} <= c4.files.keys()
    assert {"numba", "llvmlite", "regex"} <= c4.libraries.keys()
    assert "fsspec" not in c4.libraries and "pydantic" not in c4.libraries
    pii = code_of(worker, frozenset({"pii"}))
    assert {"filters/pii.py", "filters/pii_scan.py"} <= pii.files.keys() and pii.libraries["python-stdnum"]
    ours, other = (code_of("corpusmill.ingest.stage", frozenset({name})) for name in ("lexbor", "trafilatura"))
    assert "lxml" not in ours.libraries and "selectolax" in ours.libraries and {"lxml", "trafilatura"} <= other.libraries.keys()


def test_only_comments_layout_and_docstrings_are_left_out() -> None:
    """Python's own printer gives the same program without comments, in other lines; any other change of it counts."""
    sources = [
        path
        for room in ("pipeline", "text", "filters", "dedup", "tokenize", "train")
        for path in sorted((PACKAGE / room).rglob("*.py"))[::10]
    ]
    assert len(sources) > 20
    for path in sources:
        source, tree = path.read_bytes(), ast.parse(path.read_bytes())
        other = ast.unparse(ast.Module(tree.body[1:], []))
        first, *others = [code.parse(text) for text in (source, f'"""Another docstring."""\n{other}'.encode(), source + b"\nCHANGED = 1\n")]
        assert first["digest"] == others[0]["digest"] != others[1]["digest"] and first["imports"] == others[0]["imports"], path
