"""Tests that a run killed at any step of the stage gives the same bytes when resumed, and the same index."""

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from stage_runs import perform

from corpusmill.dedup.stage import DedupStage
from corpusmill.pipeline.manifest import Manifest
from corpusmill.pipeline.storage import Storage

HELPER = Path(__file__).resolve().parent.parent / "helpers" / "killed_stage.py"
CONFIG = {"alarm": "warn", "url": {"enabled": True}, "keep": ["longest", "first"]}


def rows(seed: int) -> list[dict]:  # type: ignore[type-arg]
    draw = random.Random(seed)
    found = []
    for number in range(12):
        text = [f"f{number}x{i}" for i in range(50)]
        for step in range(3):
            found.append({"text": " ".join(text), "url": f"http://h/{draw.randrange(30)}", "offset": step})
            text[draw.randrange(50)] = f"new{draw.randrange(10**6)}"
    return found


@pytest.fixture
def ready(tmp_path: Path, dedup) -> Path:  # type: ignore[no-untyped-def]
    """Makes a folder with a run whose `filter` is finished in two shards, and an index with an earlier run."""
    dedup([rows(2)], index={"path": str(tmp_path / "ready/index"), "name": "earlier"}, **CONFIG)
    result = dedup([rows(1)[:15], rows(1)[15:]], **CONFIG)
    shutil.copytree(result.run.run.path("filter"), tmp_path / "ready/run/filter")
    return tmp_path / "ready"


def test_a_run_that_ends_around_its_entry_of_the_index_goes_on_to_the_same_bytes(ready: Path, tree, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """The last rows of the manifest are those of the documents, of the entry of the index, and the end mark."""
    work = tmp_path / "work"
    stage = DedupStage(DedupStage.Config.model_validate(CONFIG | {"index": {"path": str(work / "index")}}))

    class Killed(BaseException):
        pass

    write, dies, written = Manifest._write, set[int](), 0

    def dying(manifest: Manifest, *arguments: Any, **options: Any) -> int:
        nonlocal written
        written += 1
        if written in dies:
            raise Killed
        return write(manifest, *arguments, **options)

    monkeypatch.setattr(Manifest, "_write", dying)
    shutil.copytree(ready, work)
    perform(Storage(str(work / "run")), stage, earlier=["filter"])
    expected, rows = tree(work), written
    assert "index/run/entry.json" in expected and "index/earlier/entry.json" in expected
    for row in (1, rows - 2, rows - 1, rows):
        shutil.rmtree(work)
        shutil.copytree(ready, work)
        dies, written = {row}, 0
        with pytest.raises(Killed):
            perform(Storage(str(work / "run")), stage, earlier=["filter"])
        dies = set()
        perform(Storage(str(work / "run")), stage, earlier=["filter"])
        assert tree(work) == expected, row


@pytest.mark.long
def test_a_run_killed_at_any_step_goes_on_to_the_same_bytes(ready: Path, tree, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    copies = tmp_path / "copies"
    config = json.dumps(CONFIG | {"index": {"path": str(copies / "index")}})
    command = [sys.executable, HELPER, ready / "run", copies, config, ready / "index"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(copies / "index")
    expected = tree(copies / "first")
    found = sorted(copies.glob("0*"))
    rows = [json.loads(line) for line in (copies / "first/run/dedup/manifest.jsonl").read_text().splitlines()]
    # signatures 2, lists of keys 3, candidates 3, groups, co-located 3, merged 2, their list, clusters 3, sources, earlier runs, the list
    # of cluster tables, documents 2, the index; the other rows are the codes of tasks, and the end mark
    assert sum("task" in row for row in rows) == 24
    assert int(done.stdout) == len(rows) and len(found) == len(rows) + (len(rows) + 1) // 2
    assert (
        "run/dedup/merged/colocated-00001.arrow" in expected
        and sum(name.startswith("run/dedup/data/") for name in expected) == 2
        and "index/run/entry.json" in expected
    )
    for copy in found:
        assert tree(copy) == expected, copy.name
