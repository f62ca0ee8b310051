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


class Installed:
    """A copy of the package in its own folder, and the command that runs it on two documents."""

    def __init__(self, folder: Path):
        self.folder, self.package = folder, folder / "site" / "corpusmill"
        shutil.copytree(PACKAGE, self.package, ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "mill.yaml").write_text(RECIPE)
        (folder / "in.jsonl").write_text(
            "".join(json.dumps({"text": f"Some words of document {n}, and some more."}) + "\n" for n in (1, 2))
        )
        self.start()

    def start(self) -> None:
        path = os.pathsep.join([str(self.package.parent), *filter(None, sys.path)])
        self.process = subprocess.Popen(
            [sys.executable, forking_command.__file__], env={**os.environ, "PYTHONPATH": path}, cwd=self.folder, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(60)

    def run(self) -> str:
        """Returns the run's message on what it redoes; empty where there is none."""
        assert self.process.stdin is not None and self.process.stdout is not None
        arguments = ["run", "mill.yaml", "in.jsonl", "--output", "run", "--engine", "inline"]
        print(json.dumps([arguments, str(self.folder / "said")]), file=self.process.stdin, flush=True)
        ended, said = self.process.stdout.readline().strip(), " ".join((self.folder / "said").read_text().split())
        assert ended == "0", said
        start = said.find("This run already exists, and something has changed. ")
        return said[start:].partition(". ")[2].partition(". ")[0].rstrip(".") if start >= 0 else ""

    def append(self, path: str, text: str) -> None:
        with open(self.package / path, "a") as file:
            file.write(text)


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[Installed]:
    made = Installed(tmp_path)
    yield made
    made.close()


def test_a_run_does_again_what_a_change_can_reach_wherever_the_code_lies_and_says_why(installed: Installed) -> None:
    assert installed.run() == ""  # it is new

    for path in ("pipeline/lease.py", "pipeline/crawl.py", "report/read.py", "filters/c4.py", "filters/whatif.py"):
        installed.append(path, "\nCHANGED = 1\n")  # these play no part in the results, or are not in the recipe
    installed.append("ingest/warc.py", "\n# a comment\n")
    rules = installed.package / "filters" / "rules.py"
    rules.write_text(rules.read_text().replace('"""', '"""Another docstring. ', 1))
    assert installed.run() == ""

    installed.append("filters/statistics.py", "\nCHANGED = 1\n")  # imported in a function of a module that others import
    assert installed.run() == "ingest: taken over (1 task); filter: redone, filters/statistics.py changed"

    scorer = installed.package / "ingest" / "html" / "scorer.json"
    scorer.write_bytes(scorer.read_bytes() + b"\n")
    library = installed.package.parent / "selectolax-99.1.dist-info"
    library.mkdir()
    (library / "METADATA").write_text("Metadata-Version: 2.1\nName: selectolax\nVersion: 99.1\n")
    said = installed.run()
    assert re.fullmatch(
        r"ingest: redone, selectolax 1\.\S+ → 99\.1, ingest/html/scorer\.json changed; filter: redone where the output of ingest changes",
        said,
    )

    installed.close()  # the same code in another place changes nothing
    elsewhere = installed.folder / "elsewhere" / "corpusmill"
    elsewhere.parent.mkdir()
    for library in installed.package.parent.glob("*.dist-info"):
        shutil.move(library, elsewhere.parent / library.name)
    shutil.move(installed.package, elsewhere)
    installed.package = elsewhere
    installed.start()
    assert installed.run() == ""
    before = (installed.folder / "run" / "filter" / "manifest.jsonl").read_text()
    installed.append("filters/ratios.py", "\nCHANGED = 1\n")
    assert installed.run() == "ingest: taken over (1 task); filter: redone, filters/ratios.py changed"
    assert (installed.folder / "run" / "filter" / "manifest.jsonl").read_text() != before


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
    here = code_of("corpusmill.train.sft_job")
    there = replace(here, libraries={**here.libraries, "torch": "1.2.3"})
    task: GroupJob = {
        "job": "corpusmill.train.sft_job:train",
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
    assert "filters/gopher.py" in plain.files and "filters/c4.py" not in plain.files and "spacy" not in plain.libraries
    assert {"filters/c4.py"} <= c4.files.keys() and {"spacy", "numba", "llvmlite", "regex"} <= c4.libraries.keys()
    assert "fsspec" not in c4.libraries and "pydantic" not in c4.libraries
    pii = code_of(worker, frozenset({"pii"}))
    assert {"filters/pii.py", "filters/pii_scan.py"} <= pii.files.keys() and pii.libraries["python-stdnum"]
    ours, other = (code_of("corpusmill.ingest.stage", frozenset({name})) for name in ("lexbor", "trafilatura"))
    assert "lxml" not in ours.libraries and "selectolax" in ours.libraries and {"lxml", "trafilatura"} <= other.libraries.keys()


def test_only_comments_and_docstrings_are_left_out_and_no_import_is_missed() -> None:
    """Python's own parser sees the same program, and the same imports, in each third module of the package."""
    sources = [
        path for room in ("pipeline", "filters", "dedup", "tokenize", "train") for path in sorted((PACKAGE / room).rglob("*.py"))[::3]
    ]
    assert len(sources) > 50
    for path in sources:
        source = path.read_bytes()
        tree, plain = ast.parse(source), code.plain(source)
        assert _program(ast.parse(plain)) == _program(tree), path
        assert _imported(tree.body) <= set(code.imports(plain)), path


def _program(tree: ast.Module) -> str:
    """Returns a module without its docstrings."""
    for node in ast.walk(tree):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and ast.get_docstring(node, clean=False) is not None:
            node.body[0] = ast.Pass()
    return ast.dump(tree)


def _imported(body: list[ast.stmt]) -> set[str]:
    """Returns the names that import statements bind when they run."""
    found = set()
    for statement in body:
        if isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING":
            found |= _imported(statement.orelse)
            continue
        if isinstance(statement, ast.Import):
            found |= {alias.name for alias in statement.names}
        if isinstance(statement, ast.ImportFrom):
            assert statement.level == 0 and statement.module
            found |= {statement.module, *(f"{statement.module}.{alias.name}" for alias in statement.names)}
        for inner in ("body", "orelse", "finalbody"):
            found |= _imported(getattr(statement, inner, []))
        for handler in [*getattr(statement, "handlers", []), *getattr(statement, "cases", [])]:
            found |= _imported(handler.body)
    return found
