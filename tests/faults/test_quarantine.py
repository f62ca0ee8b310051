"""Tests a task that always fails: it is given up and named, the rest goes on, and a later run does it once it can be done."""

from pathlib import Path

import pytest
from faulty_run import plant

from corpusmill.pipeline.manifest import Manifest
from corpusmill.pipeline.storage import Storage

#: Occurs in the pages of one task alone.
WHEN = "class ZipFile"


@pytest.fixture
def command(recipe_and_crawl, ingested):
    recipe, crawl = recipe_and_crawl
    return ("run", recipe, crawl, "--output", ingested, "--engine", "inline")


def test_a_task_that_always_fails_is_named_and_done_when_its_cause_is_gone(
    corpusmill, command, fault: Path, tmp_path: Path, undisturbed, tree, faults_of
) -> None:
    run = tmp_path / "run"
    plant(fault, kind="raise", when=WHEN)
    code, _, err = corpusmill(*command, "--strict")
    assert code == 1 and "the model has no answer" in err.strip().splitlines()[-1] and not (run / "dedup").exists()
    code, out, err = corpusmill(*command)
    said = err.strip().splitlines()[-1]
    assert code == 3 and "Traceback" not in err
    (lost,) = Manifest(Storage(str(run / "filter"))).quarantined.values()
    assert lost.task in said and lost.inputs[0].path in said and "the model has no answer" in said
    assert "tokens" in out.decode() and (run / "tokens/train/shards.json").exists()
    assert faults_of(run) == [] and tree(run) != undisturbed
    code, out, _ = corpusmill("verify", run)
    assert lost.task in out.decode()

    fault.unlink()
    assert corpusmill(*command)[0] == 0
    assert tree(run) == undisturbed and faults_of(run) == []
    assert Manifest(Storage(str(run / "filter"))).quarantined == {}
