"""Tests what messages say about unknown names."""

from pathlib import Path

import pytest

from corpusmill.pipeline.names import instead_of, not_a_run, runs_near

MANY = [f"rule_{number}" for number in range(30)]


@pytest.mark.parametrize(
    ("name", "names", "said"),
    [
        ("fliter", ["ingest", "filter"], " (did you mean filter? expected one of ingest, filter)"),
        ("x", ["ingest", "filter"], " (expected one of ingest, filter)"),
        ("rul_7", MANY, " (did you mean rule_7?)"),
        ("runs/other", ["runs/demo"], " (expected one of runs/demo)"),  # the folder is no likeness
        ("x", ["a\x1b[2J"], " (expected one of a)"),
    ],
)
def test_the_near_name_comes_first(name: str, names: list[str], said: str) -> None:
    assert instead_of(name, names) == said


def test_runs_are_looked_for_in_a_folder_beside_it_and_in_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("runs/a/ingest", "other/b/filter", "other/empty", "other/refused"):
        Path(folder).mkdir(parents=True)
    for file in ("runs/a/run.json", "runs/a/ingest/manifest.jsonl", "other/b/run.json", "other/b/filter/manifest.jsonl"):
        Path(file).touch()
    Path("other/refused/run.json").touch()
    assert runs_near("other") == ["other/b"] and runs_near("other/c") == ["other/b", "runs/a"] and runs_near("s3://x/y") == []
    assert not_a_run("other/bb") == "other/bb: no such run (did you mean other/b? there are other/b, runs/a)."
    assert not_a_run("other/empty") == "other/empty: not a run, as it has no run.json."
    assert not_a_run("x/y", "file or run") == "x/y: no such file or run (there are runs/a)."
    assert not_a_run("x" * 300 + "/y").endswith("/y: no such run (there are runs/a).")  # longer than a name can be
