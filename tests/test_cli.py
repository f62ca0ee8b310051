"""Tests the command line: help everywhere, and every fault in one sentence with its exit code."""

import subprocess
import sys

import pytest

COMMANDS = [
    "run", "ingest", "filter", "dedup", "tokenizer", "tokens", "pretrain", "sft", "align", "evaluate",
    "report", "inspect", "why", "sample", "diff", "trace", "raw", "generate", "chat", "score", "export", "warm",
]  # fmt: skip
RECIPE = "ingest: {}\n"


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def test_help_says_what_a_command_is_for_with_an_example(corpusmill):
    for command in COMMANDS:
        code, out, _ = corpusmill(command, "--help")
        assert code == 0 and f"Example: corpusmill {command} " in out.decode() and f"Usage: corpusmill {command}" in out.decode()


def test_help_imports_no_heavy_library():
    heavy = ["torch", "ray", "numba", "pyarrow", "fasttext", "tokenizers", "datatrove", "plotly", "transformers", "numpy"]
    script = f"import corpusmill.cli, sys; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def one_sentence(err: str) -> bool:
    return err.startswith("corpusmill: ") and err.count("\n") == 1 and "Traceback" not in err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--min", "words"], "--min 'words': expected COLUMN=NUMBER"),
        (["--max", "words=nan"], "--max 'words=nan': expected COLUMN=NUMBER"),
        (["--json", "--csv"], "--json and --csv exclude each other"),
        ([], "not a run, as it has no run.json"),
    ],
)
def test_choices_of_rows_that_have_no_meaning(corpusmill, tmp_path, options, sentence):
    code, out, err = corpusmill("inspect", tmp_path, *options)
    assert code == 2 and one_sentence(err) and sentence in err and not out


def test_an_input_that_is_not_there(corpusmill, recipe, tmp_path):
    code, _, err = corpusmill("run", recipe, tmp_path / "none.warc.gz", "--output", tmp_path / "run", "--engine", "inline")
    assert code == 2 and one_sentence(err) and "none.warc.gz" in err


def test_an_output_that_can_not_be_written(corpusmill, recipe, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"text": "some text"}\n')
    (tmp_path / "file").write_text("")
    code, _, err = corpusmill("run", recipe, tmp_path / "in.jsonl", "--output", tmp_path / "file" / "run", "--engine", "inline")
    assert code == 2 and one_sentence(err) and "can't be written" in err


def test_a_stage_on_what_is_no_run(corpusmill, tmp_path):
    code, _, err = corpusmill("filter", tmp_path)
    assert code == 2 and one_sentence(err) and "not a run" in err


def test_stages_in_the_wrong_order_or_not_in_the_recipe(corpusmill, tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("ingest: {}\ndedup: {}\n")
    code, _, err = corpusmill("run", path, tmp_path, "--output", tmp_path / "run", "--from", "dedup", "--to", "ingest")
    assert code == 2 and one_sentence(err) and "comes after" in err
    code, _, err = corpusmill("run", path, tmp_path, "--output", tmp_path / "run", "--to", "align")
    assert code == 2 and one_sentence(err) and "align: the recipe has no such stage (it has ingest, dedup)" in err


def test_a_stage_before_its_input_is_there(corpusmill, tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("ingest: {}\ndedup: {}\n")
    code, _, err = corpusmill("run", path, "--output", tmp_path / "run", "--from", "dedup", "--engine", "inline")
    assert code == 2 and one_sentence(err) and "ingest is not finished" in err


def test_an_internal_error_is_one_sentence_too(corpusmill, monkeypatch, tmp_path):
    monkeypatch.setattr("corpusmill.pipeline.run.plan_of_existing", lambda *a: 1 / 0)
    code, _, err = corpusmill("filter", tmp_path)
    assert code == 1 and one_sentence(err) and "ZeroDivisionError" in err and "CORPUSMILL_DEBUG" in err


@pytest.mark.parametrize("arguments", [["{command}", "{run}"], ["--workers", "1", "{run}"]])
@pytest.mark.parametrize(("group", "command"), [("tokens", "encode"), ("sft", "tune")])
def test_a_stage_that_is_a_group_takes_a_run(corpusmill, tmp_path, group, command, arguments):
    """`tokens` and `sft` are groups of commands, too: any argument that is no subcommand goes to the stage."""
    code, _, err = corpusmill(group, *(argument.format(run=tmp_path, command=command) for argument in arguments))
    assert code == 2 and one_sentence(err) and "not a run" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a run, or --model and --files"),
        (["{run}", "--row", "1", "--dropped"], "--row and --dropped exclude each other"),
        (["--model", "{run}", "--files", "x.jsonl"], "config.json: no such file"),
    ],
)
def test_sft_inspect_says_what_it_needs(corpusmill, tmp_path, arguments, message):
    code, _, err = corpusmill("sft", "inspect", *(argument.format(run=tmp_path) for argument in arguments))
    assert code == 2 and one_sentence(err) and message in err
