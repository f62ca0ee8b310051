"""Tests the command line: help everywhere, and every fault in one sentence with its exit code."""

import json
import subprocess
import sys

import pytest

from corpusmill import cli

COMMANDS = [
    "run", "ingest", "filter", "dedup", "tokenizer", "tokens", "pretrain", "sft", "align", "evaluate",
    "report", "inspect", "why", "sample", "diff", "trace", "raw", "generate", "chat", "score", "export", "warm",
]  # fmt: skip
RECIPE = "ingest: {}\n"


@pytest.fixture
def corpusmill(monkeypatch, capsys):
    """Runs the command in this process; returns its exit code, standard output and standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["corpusmill", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_what_a_command_is_for_with_an_example(corpusmill, command):
    code, out, _ = corpusmill(command, "--help")
    assert code == 0 and f"Example: corpusmill {command} " in out and f"Usage: corpusmill {command}" in out


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
        (["--max", "=3"], "--max '=3': expected COLUMN=NUMBER"),
        (["--max", "words=nan"], "--max 'words=nan': expected COLUMN=NUMBER"),
        (["--json", "--csv"], "--json and --csv exclude each other"),
        ([], "not a run's folder"),
    ],
)
def test_choices_of_rows_that_have_no_meaning(corpusmill, tmp_path, options, sentence):
    code, out, err = corpusmill("inspect", tmp_path, *options)
    assert code == 2 and one_sentence(err) and sentence in err and not out


def test_an_input_that_is_not_there(corpusmill, recipe, tmp_path):
    code, _, err = corpusmill("run", recipe, tmp_path / "none.warc.gz", "--output", tmp_path / "run", "--engine", "inline")
    assert code == 2 and one_sentence(err) and "none.warc.gz" in err


def test_an_input_folder_with_nothing_in_it(corpusmill, recipe, tmp_path):
    (tmp_path / "empty").mkdir()
    code, _, err = corpusmill("run", recipe, tmp_path / "empty", "--output", tmp_path / "run", "--engine", "inline")
    assert code == 2 and one_sentence(err) and "empty" in err


def test_a_recipe_that_needs_input_without_one(corpusmill, recipe, tmp_path):
    code, _, err = corpusmill("run", recipe, "--output", tmp_path / "run")
    assert code == 2 and one_sentence(err) and "input" in err


def test_a_wrong_key_in_a_recipe(corpusmill, tmp_path):
    (tmp_path / "bad.yaml").write_text("ingest: {pice_mb: 3}\n")
    code, _, err = corpusmill("run", tmp_path / "bad.yaml", tmp_path, "--output", tmp_path / "run")
    assert code == 2 and one_sentence(err) and "bad.yaml: ingest.pice_mb: unknown key" in err


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


def test_a_second_run_in_the_same_folder_is_refused(corpusmill, recipe, tmp_path):
    from corpusmill.pipeline.lease import holding
    from corpusmill.pipeline.storage import Storage

    (tmp_path / "in.jsonl").write_text('{"text": "some text"}\n')
    with holding(Storage(str(tmp_path / "run"))):
        code, _, err = corpusmill("run", recipe, tmp_path / "in.jsonl", "--output", tmp_path / "run", "--engine", "inline")
    assert code == 2 and one_sentence(err) and "right now" in err


def test_run_json_holds_the_resolved_recipe_and_a_stage_command_reads_it(corpusmill, recipe, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"text": "A page with some text in it.", "url": "http://a.test/"}\n{"no": "text"}\n')
    run = tmp_path / "run"
    code, out, err = corpusmill("run", recipe, tmp_path / "in.jsonl", "--output", run, "--engine", "inline", "--to", "ingest")
    assert code == 0, err
    description = json.loads((run / "run.json").read_text())
    assert description["inputs"] == [str(tmp_path / "in.jsonl")] and "task_mb" in description["recipe"]["ingest"]
    assert "ingest" in out
    code, out, _ = corpusmill("ingest", run, "--engine", "inline")
    assert code == 0 and json.loads((run / "run.json").read_text()) == description


def test_an_internal_error_is_one_sentence_too(corpusmill, monkeypatch, tmp_path):
    monkeypatch.setattr("corpusmill.pipeline.run.plan_of_existing", lambda *a: 1 / 0)
    code, _, err = corpusmill("filter", tmp_path)
    assert code == 1 and one_sentence(err) and "ZeroDivisionError" in err and "CORPUSMILL_DEBUG" in err


def test_only_a_stage_of_another_configuration_is_called_stale(corpusmill, tmp_path):
    """Phases of dedup depend on parts of its section; the note is about the whole section."""
    (tmp_path / "rows.jsonl").write_text(
        "".join(json.dumps({"text": f"{doc} {i}"}) + "\n" for i, doc in enumerate(json.__doc__.split(".")))
    )
    (tmp_path / "r.yaml").write_text("ingest: {}\ndedup: {}\ntokenizer: {vocab_size: 512}\n")
    options = ("--engine", "inline")
    code, _, err = corpusmill("run", tmp_path / "r.yaml", tmp_path / "rows.jsonl", "--output", tmp_path / "run", *options)
    assert code == 0, err
    code, out, _ = corpusmill("tokenizer", tmp_path / "run", *options)
    assert code == 0 and "Note:" not in out
    code, out, _ = corpusmill("tokenizer", tmp_path / "run", "--set", "dedup.alarm_share=0.5", *options)
    assert code == 0 and "Note: dedup: finished under another configuration" in out


@pytest.mark.parametrize("arguments", [["{run}"], ["{command}", "{run}"], ["--workers", "1", "{run}"]])
@pytest.mark.parametrize(("group", "command"), [("tokens", "encode"), ("sft", "tune")])
def test_a_stage_that_is_a_group_takes_a_run(corpusmill, tmp_path, group, command, arguments):
    """`tokens` and `sft` are groups of commands, too: any argument that is no subcommand goes to the stage."""
    code, _, err = corpusmill(group, *(argument.format(run=tmp_path, command=command) for argument in arguments))
    assert code == 2 and one_sentence(err) and "not a run" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a run, or --model and --files"),
        (["--model", "m"], "give a run, or --model and --files"),
        (["{run}", "--files", "x.jsonl"], "give a run, or --model and --files"),
        (["{run}", "--row", "1", "--dropped"], "--row and --dropped exclude each other"),
        (["{run}", "--id", "x", "--held-out"], "--id and --held-out exclude each other"),
        (["{run}"], "not a run's folder"),
        (["--model", "{run}", "--files", "x.jsonl"], "config.json: no such file"),
    ],
)
def test_sft_inspect_says_what_it_needs(corpusmill, tmp_path, arguments, message):
    code, _, err = corpusmill("sft", "inspect", *(argument.format(run=tmp_path) for argument in arguments))
    assert code == 2 and one_sentence(err) and message in err
