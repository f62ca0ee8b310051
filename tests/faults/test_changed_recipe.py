"""Tests a finished run resumed under another recipe: stages that depend on the change are redone and named, others stay."""

import json
import shutil
from pathlib import Path

import pytest

CHANGE, KEPT = "dedup.threshold=0.6", ("ingest", "filter")


@pytest.mark.long
def test_what_depends_on_a_change_is_done_again(
    corpusmill, carry_out, recipe_and_crawl, reference: Path, tree, tmp_path: Path, faults_of
) -> None:
    run, fresh, (recipe, crawl) = tmp_path / "run", tmp_path / "fresh", recipe_and_crawl
    shutil.copytree(reference, run)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*.parquet")}
    (run / "metrics.jsonl").unlink()
    code, out, err = corpusmill("run", recipe, crawl, "--output", run, "--engine", "inline", "--set", CHANGE, "--redo")
    assert code == 0, err
    done = {json.loads(line)["stage"] for line in (run / "metrics.jsonl").read_text().splitlines()}
    assert "dedup" in done and not done & set(KEPT)
    assert all(path.stat().st_mtime_ns == time for path, time in before.items() if path.relative_to(run).parts[0] in KEPT)
    told = out.decode() + err
    assert any(line for line in told.splitlines() if "dedup: redone" in line and "threshold" in line), told

    stay = {"run.json", *KEPT}
    shutil.copytree(reference, fresh, ignore=lambda folder, names: set(names) - stay if Path(folder) == reference else set())
    carry_out(fresh, CHANGE)  # the stages before the change unchanged, all others from the start
    assert tree(run) == tree(fresh) and faults_of(run) == []


def test_a_stage_that_was_killed_in_its_first_phases_has_not_changed(
    corpusmill, recipe_and_crawl, reference: Path, undisturbed, tree, tmp_path: Path
) -> None:
    """The manifest has only the first phases, which depend on a part of the stage's section; that must not look like a changed recipe."""
    run, (recipe, crawl) = tmp_path / "run", recipe_and_crawl
    shutil.copytree(reference, run)
    manifest = run / "tokens/manifest.jsonl"
    manifest.write_text("".join(manifest.read_text().splitlines(keepends=True)[:2]))
    code, out, err = corpusmill("run", recipe, crawl, "--output", run, "--engine", "inline")
    assert code == 0 and "something has changed" not in out.decode() + err
    assert tree(run) == undisturbed
