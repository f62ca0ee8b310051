"""Tests mistakes: other inputs or another recipe for a finished run, a wrong folder, a recipe that keeps nothing, a wrong key."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from corpusmill.report.live.status import read_status

Call = Callable[..., tuple[int, bytes, str]]
INLINE = ("--engine", "inline")
#: A step with one rule: documents with fewer than `words` words fail it.
STEP = """
from corpusmill.filters.own import Rule, measures

@measures({"words": "int64"}, rules=[Rule("few_words", "words", "<", 3)])
def count(documents):
    return {"words": [len(text.split()) for text in documents["text"].to_pylist()]}
"""
RECIPE = "ingest: {}\nfilter: {steps: [{python: 'step.py:count'}]}\ndedup: {minhash: {enabled: false}}\n"


def write(path: Path, *texts: str) -> Path:
    path.write_text("".join(json.dumps({"text": text, "url": f"http://{path.stem}.test/{n}"}) + "\n" for n, text in enumerate(texts)))
    return path


@pytest.fixture(scope="module")
def mill(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Makes a folder with a recipe and inputs."""
    folder = tmp_path_factory.mktemp("slips")
    (folder / "step.py").write_text(STEP)
    (folder / "recipe.yaml").write_text(RECIPE)
    write(folder / "old.jsonl", *(f"document number {n} of the old input" for n in range(7)), "one two")
    write(folder / "other.jsonl", "another document with words", "and one more of them")
    return folder


@pytest.fixture
def run(mill: Path, corpusmill: Call, tmp_path: Path) -> Path:
    """Makes a finished run on `old.jsonl`: 8 documents, of which the filter keeps 7."""
    if not (mill / "run").exists():
        code, _, err = corpusmill("run", mill / "recipe.yaml", mill / "old.jsonl", "--output", mill / "run", *INLINE)
        assert code == 0, err
    shutil.copytree(mill / "run", tmp_path / "run")
    return tmp_path / "run"


def content(run: Path) -> dict[str, bytes]:
    """Returns all files except the one that names the last process of the run."""
    files = (path for path in run.rglob("*") if path.is_file() and path.name not in ("lease.json", ".lock"))
    return {str(path.relative_to(run)): path.read_bytes() for path in files}


def summary(out: bytes) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(out)
    return told


def states(run: Path) -> dict[str, str]:
    return {stage["name"]: stage["status"] for stage in read_status(str(run))["stages"]}


REFUSED = {
    "other inputs": (
        ["other.jsonl"],
        [],
        "the inputs changed (1 added, 1 removed)",
        "ingest (8 documents), filter (7 documents), dedup (7 documents)",
    ),
    "a threshold": (["old.jsonl"], ["filter.thresholds.few_words=4"], "few_words", "filter (7 documents), dedup (7 documents)"),
}


@pytest.mark.parametrize("slip", REFUSED)
def test_what_would_replace_a_finished_run_is_refused_before_anything_is_written(
    mill: Path, run: Path, corpusmill: Call, slip: str
) -> None:
    inputs, sets, change, lost = REFUSED[slip]
    before = content(run)
    given = [mill / name for name in inputs]
    options = [option for key in sets for option in ("--set", key)]
    code, _, err = corpusmill("run", mill / "recipe.yaml", *given, "--output", run, *options, *INLINE)
    assert code == 2 and err.count("\n") == 1
    assert change in err and lost in err and "--redo" in err and "another folder" in err
    assert content(run) == before


def test_the_command_of_a_stage_is_refused_too(run: Path, corpusmill: Call) -> None:
    before = content(run)
    code, _, err = corpusmill("run", run, "--from", "dedup", "--to", "dedup", "--set", "dedup.keep=first", *INLINE)
    assert code == 2 and "dedup (7 documents)" in err and "--redo" in err and content(run) == before
    code, _, err = corpusmill("run", run, "--from", "dedup", "--to", "dedup", "--set", "dedup.keep=first", "--redo", *INLINE)
    assert code == 0 and json.loads((run / "run.json").read_text())["recipe"]["dedup"]["keep"] == "first", err


def test_redo_replaces_and_nothing_that_no_longer_follows_stands_as_complete(mill: Path, run: Path, corpusmill: Call) -> None:
    arguments = ("run", mill / "recipe.yaml", mill / "other.jsonl", "--output", run, "--json", *INLINE)
    code, out, err = corpusmill(*arguments, "--to", "ingest", "--redo")
    assert code == 0 and summary(out)["stages"]["ingest"]["kept"] == 2, err
    assert states(run) == {"ingest": "complete", "filter": "unfinished", "dedup": "unfinished"}
    code, out, err = corpusmill(*arguments)  # the remaining files are no longer a finished run's
    assert code == 0 and summary(out)["stages"]["dedup"]["kept"] == 2, err
    assert set(states(run).values()) == {"complete"}


def test_the_same_command_and_what_has_not_run_yet_go_on(mill: Path, run: Path, corpusmill: Call) -> None:
    """`run.json` of an older version lacks options that the code has gained; their defaults decide."""
    described = json.loads((run / "run.json").read_text())
    del described["recipe"]["dedup"]["keep"], described["recipe"]["ingest"]["extraction"]["minimum_chars"]
    (run / "run.json").write_text(json.dumps(described))
    arguments = ("run", mill / "recipe.yaml", mill / "old.jsonl", "--output", run, "--json", *INLINE)
    code, out, err = corpusmill(*arguments)
    assert code == 0 and all(stage["performed"] == 0 for stage in summary(out)["stages"].values()), err
    shutil.rmtree(run / "dedup")
    code, out, err = corpusmill(*arguments, "--set", "dedup.keep=first")
    told = summary(out)["stages"]
    assert code == 0 and not told["filter"]["performed"] and told["dedup"]["complete"], err


def test_without_output_each_run_has_a_folder_of_its_own(mill: Path, corpusmill: Call, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    folders = ["runs/recipe-old-1", folder := "runs/recipe-old-2"]
    Path(folders[0]).mkdir(parents=True)  # of an earlier run
    code, out, err = corpusmill("run", mill / "recipe.yaml", mill / "old.jsonl", "--to", "ingest", *INLINE)
    first = out.decode().splitlines()[0]
    assert code == 0 and first == f"The run's folder: {folder}", err
    assert sorted(str(path) for path in Path("runs").iterdir()) == folders
    assert corpusmill("run", mill / "recipe.yaml", "no-such-file", "--set", "filter.wrong=1", *INLINE)[0] == 2
    assert sorted(str(path) for path in Path("runs").iterdir()) == folders


@pytest.mark.parametrize("other", ["notes.txt", "tokens/mine.bin"])
def test_a_folder_that_holds_something_else_is_not_taken(mill: Path, corpusmill: Call, tmp_path: Path, other: str) -> None:
    folder = tmp_path / "folder"
    (folder / other).parent.mkdir(parents=True)
    (folder / other).write_text("mine")
    code, _, err = corpusmill("run", mill / "recipe.yaml", mill / "old.jsonl", "--output", folder, *INLINE)
    assert code == 2 and err.count("\n") == 1 and "holds something other than a run" in err and other.split("/")[0] in err
    assert [path.read_text() for path in folder.rglob("*") if path.is_file()] == ["mine"]


def test_what_a_run_left_that_was_killed_as_it_began_is_gone_on_with(mill: Path, corpusmill: Call, tmp_path: Path) -> None:
    for name in ("log.jsonl", "progress.json", ".tmp-123-run.json"):
        (tmp_path / name).write_text("")
    code, _, err = corpusmill("run", mill / "recipe.yaml", mill / "old.jsonl", "--output", tmp_path, "--to", "ingest", *INLINE)
    assert code == 0, err


def test_a_filter_that_keeps_nothing_is_no_success(mill: Path, corpusmill: Call, tmp_path: Path) -> None:
    short, run = write(tmp_path / "short.jsonl", "one", "two words"), tmp_path / "run"
    code, out, err = corpusmill("run", mill / "recipe.yaml", short, "--output", run, "--json", *INLINE)
    told = summary(out)
    assert code == told["exit_code"] == 3 and told["status"] == "empty" and told["message"] not in err
    assert told["message"] == "filter: none of 2 documents was kept, and the rule that dropped most is few_words (2); not run: dedup."
    assert told["report"] == f"{run}/report.html" and Path(told["report"]).exists() and not (run / "dedup").exists()
    code, out, _ = corpusmill("run", mill / "recipe.yaml", short, "--output", run, "--to", "filter", "--json", *INLINE)
    assert code == 3 and summary(out)["message"].endswith("dropped most is few_words (2).")  # it was finished before, and is no success now
    code, _, err = corpusmill("run", run, "--from", "dedup", "--to", "dedup", *INLINE)
    assert code == 3 and "filter has kept no document" in err


def test_jsonl_of_which_no_row_has_a_text_is_told_what_there_is_and_one_row_is_enough(mill: Path, corpusmill: Call, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("not json\n" + "".join(json.dumps({"content": f"words of row {n}", "n": n}) + "\n" for n in range(5)))
    arguments = ("run", mill / "recipe.yaml", path, "--output", tmp_path / "run", "--to", "ingest", *INLINE)
    code, _, err = corpusmill(*arguments)
    assert code == 2 and err == (
        f"corpusmill: {path}: no column 'text' (ingest.text_key) in any line; it has content, n; "
        "--set ingest.text_key=NAME says which has the text.\n"
    )
    with open(path, "a") as file:
        file.write('{"text": "this one has it"}\n')
    code, out, err = corpusmill(*arguments, "--json")
    assert code == 0 and summary(out)["stages"]["ingest"]["kept"] == 1, err
