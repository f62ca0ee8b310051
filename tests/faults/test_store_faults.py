"""Tests a run on a failing store, which answers 500 and 503, cuts connections, and loses answers."""

from pathlib import Path

RATES = {"error_500": 0.04, "error_503": 0.04, "reset": 0.03, "lost": 0.03, "cut_response": 0.03, "truncate": 0.02}


def test_a_run_on_a_store_that_fails_now_and_then(
    corpusmill, recipe_and_crawl, s3, tmp_path: Path, reference: Path, tree, faults_of
) -> None:
    recipe, crawl = recipe_and_crawl
    run = f"{s3.bucket('store-faults')}/run"
    with s3.faults(seed=11, **RATES):
        code, _, err = corpusmill("run", recipe, crawl, "--output", run, "--engine", "inline", "--to", "filter")
    counts = s3.counts()
    assert code == 0, err
    assert counts["faults"] > 10 and counts["500"] + counts["503"] and counts["reset"] + counts["cut_response"], counts
    assert s3.uploads("store-faults") == []  # no incomplete upload is left, which would cost money
    found = s3.download(run, tmp_path / "run")
    for folder in ("ingest/data", "ingest/report", "filter/data", "filter/report"):
        assert tree(found / folder) == tree(reference / folder) != {}
    assert faults_of(run) == []
