"""Tests the command line: help everywhere, and every fault in one sentence with its exit code."""

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from corpusmill.cli import app

RECIPE = "ingest: {}\n"


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def commands(group: Any = None, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yields the words of each visible command."""
    for name, command in (group or get_command(app)).commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*before, name))
        elif not command.hidden:
            yield (*before, name)


def test_help_says_what_a_command_is_for_with_an_example(corpusmill):
    for words in commands():
        name = " ".join(words)
        code, out, _ = corpusmill(*words, "--help")
        assert code == 0 and f"Example: corpusmill {name} " in out.decode() and f"Usage: corpusmill {name}" in out.decode()


def test_help_has_a_line_for_each_command(corpusmill):
    code, out, _ = corpusmill("--help")
    shown = out.decode()
    assert code == 0 and max(map(len, shown.splitlines())) < 80 and "..." not in shown.partition("\nRun:")[2]
    listed = re.findall(r"^  ([a-z]+(?: [a-z]+)?) {2,}[A-Z].*\.$", shown, re.MULTILINE)
    assert sorted(listed) == sorted(" ".join(words) for words in commands())
    assert re.findall(r"^(\w+):$", shown, re.MULTILINE) == ["Options", "Run", "Look", "Decide", "Data", "Model", "Classifier", "Tokens"]
    assert "Example: corpusmill run fineweb" in shown  # what it runs is in the core


def test_help_imports_no_heavy_library():
    heavy = ["torch", "ray", "numba", "pyarrow", "fasttext", "tokenizers", "datatrove", "transformers", "numpy"]
    script = f"import corpusmill.cli, sys; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def one_sentence(err: str) -> bool:
    return err.startswith("corpusmill: ") and err.count("\n") == 1 and "Traceback" not in err


def test_an_output_that_can_not_be_written(corpusmill, recipe, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"text": "some text"}\n')
    (tmp_path / "file").write_text("")
    code, _, err = corpusmill("run", recipe, tmp_path / "in.jsonl", "--output", tmp_path / "file" / "run", "--engine", "inline")
    assert code == 2 and one_sentence(err) and "can't be written" in err


def test_names_that_are_not_there_get_those_that_are_near(corpusmill, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/demo/ingest").mkdir(parents=True)
    (tmp_path / "runs/demo/ingest/manifest.jsonl").touch()
    (tmp_path / "runs/demo/run.json").write_text(json.dumps({"inputs": ["in"], "recipe": {"ingest": {}}}))
    (tmp_path / "texts.jsonl").write_text('{"text": "some text"}\n')
    for arguments, message in {
        (
            "run",
            "dmo",
            "in",
        ): "dmo: no such recipe or run (did you mean demo? expected one of corpus, dedup, demo, edu, fineweb, rephrase, shakespeare-char",
        ("run", "recipes/finweb.yaml", "in"): "finweb.yaml: no such recipe or run (did you mean fineweb?",
        ("run", "runs/dmo"): "runs/dmo: no such recipe or run (did you mean runs/demo?",
        ("run", "runs"): "runs: not a run, as it has no run.json (there are runs/demo).",
        ("run", "runs/demo", "in"): "runs/demo: this run has a folder and inputs of its own",
        ("report", "demo"): "demo: no such run (did you mean runs/demo? there are runs/demo).",
        ("chat", "runs/demos"): "runs/demos: no such model or run (did you mean runs/demo?",
        ("run", "fineweb", "nowhere"): "nowhere: no such file or folder.",
        ("run", "fineweb", "nowhere", "--output", "runs/new"): "nowhere: no such file or folder.",
        ("run", "fineweb", "texs.jsonl"): "texs.jsonl: no such file or folder (did you mean texts.jsonl?).",
        ("report", "."): ".: not a run, as it has no run.json (there are runs/demo).",
        ("run", "fineweb", "texts.jsonl", "--set", "dedup.treshold=1"): "corpusmill: fineweb: dedup.treshold: unknown key (did you mean ",
        (
            "run",
            "fineweb",
            "texts.jsonl",
            "--set",
            "filter.thresholds.list_ratio=high",
        ): "fineweb: filter.thresholds.list_ratio: a threshold is a number, off or on, not 'high'.",
        ("run", "texts.jsonl"): "texts.jsonl is an input; begin with a recipe: corpusmill run fineweb texts.jsonl",
        ("run", "fineweb", "texts.jsonl", "--set", "filter.list_ratio=1"): "of this rule is filter.thresholds.list_ratio",
        ("run", "runs/demo", "--to", "ingst"): "ingst: the recipe has no such stage (did you mean ingest? expected one of ingest).",
        ("run", "runs/demo", "--set", "ingest.task_bm=1"): "ingest.task_bm: unknown key (did you mean task_mb?",
        ("run", "runs/demo", "--set", "ingest.format=text"): "ingest.format: unknown key (did you mean ingest.extraction.format?",
        ("run", "runs/demo", "--set", "fliter.steps=1"): "fliter: no such stage (did you mean filter? expected one of ingest, ",
        ("run", "runs/demo", "--set", "gopher_short_doc=30"): "the threshold of a filter's rule is filter.thresholds.gopher_short_doc",
    }.items():
        code, _, err = corpusmill(*arguments)
        assert code == 2 and one_sentence(err) and message in err, err
    for arguments, message in {
        ("rnu",): "Did you mean 'run'?",
        ("run", "demo", "--ouput", "x"): "--output",
        ("tokens", "exprt"): "'export'",
        ("card", "runs/demo", "cards"): "--output names the file or folder that it writes",
        ("retune", "runs/demo", "list_ratio=1"): "a value is given by --set KEY=VALUE",
    }.items():
        code, _, err = corpusmill(*arguments)
        assert code == 2 and message in err, err
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["demo"]  # none of these has begun a run


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_the_result_in_json_is_for_programs(tmp_path, options):
    """It is shown only if it is asked for, in a terminal as in a pipe, and an error is said once."""
    shown = in_a_terminal(tmp_path, "run", "fineweb", *options)
    assert shown.count("needs at least one input path") == 1
    told = subprocess.run([sys.executable, "-m", "corpusmill", "run", "fineweb", *options], cwd=tmp_path, capture_output=True, text=True)
    assert told.returncode == 2 and (told.stdout + told.stderr).count("needs at least one input path") == 1
    assert json.loads(told.stdout)["exit_code"] == 2 if options else told.stdout == ""


def test_a_command_that_works_goes_on_where_nobody_reads_on(tmp_path):
    """As in `corpusmill run ... 2>&1 | head -1`."""
    (tmp_path / "in.jsonl").write_text('{"text": "some text"}\n')
    read, write = os.pipe()
    os.close(read)
    for command in ("run", "dedup", "in.jsonl", "--output", "run", "--engine", "inline"), ("card", "run", "--output", "cards"):
        done = subprocess.run([sys.executable, "-m", "corpusmill", *command], cwd=tmp_path, stdout=write, stderr=write)
        assert done.returncode == 0, command
    os.close(write)
    assert (
        json.loads(subprocess.check_output([sys.executable, "-m", "corpusmill", "status", "run", "--json"], cwd=tmp_path))["state"]
        == "complete"
    )
    assert "1 document" in (tmp_path / "cards/README.md").read_text()


def in_a_terminal(folder: Path, *arguments: str) -> str:
    """Returns what a command shows in a pseudo-terminal."""
    mine, its = pty.openpty()
    process = subprocess.Popen([sys.executable, "-m", "corpusmill", *arguments], cwd=folder, stdin=its, stdout=its, stderr=its)
    os.close(its)
    shown = b""
    try:
        while piece := os.read(mine, 4096):
            shown += piece
    except OSError:  # its end
        pass
    process.wait()
    os.close(mine)
    return shown.decode()


def test_stages_in_the_wrong_order_or_not_in_the_recipe(corpusmill, tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("ingest: {}\ndedup: {}\n")
    code, _, err = corpusmill("run", path, tmp_path, "--output", tmp_path / "run", "--from", "dedup", "--to", "ingest")
    assert code == 2 and one_sentence(err) and "comes after" in err
    code, _, err = corpusmill("run", path, tmp_path, "--output", tmp_path / "run", "--to", "align")
    assert code == 2 and one_sentence(err) and "align: the recipe has no such stage (expected one of ingest, dedup)" in err
    code, _, err = corpusmill("run", "fineweb", tmp_path, "--output", tmp_path / "run", "--to", "tokens")
    assert code == 2 and one_sentence(err) and "corpus has it: corpusmill run corpus ... --to tokens." in err


def test_a_stage_before_its_input_is_there(corpusmill, tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("ingest: {}\ndedup: {}\n")
    code, _, err = corpusmill("run", path, "--output", tmp_path / "run", "--from", "dedup", "--engine", "inline")
    assert code == 2 and one_sentence(err) and "ingest is not finished" in err


def test_an_internal_error_is_one_sentence_too(corpusmill, monkeypatch, tmp_path):
    monkeypatch.setattr("corpusmill.pipeline.run.plan_of_existing", lambda *a: 1 / 0)
    (tmp_path / "run.json").write_text("{}")
    code, _, err = corpusmill("run", tmp_path)
    assert code == 1 and one_sentence(err) and "ZeroDivisionError" in err and "CORPUSMILL_DEBUG" in err
