"""A run whose crawl and folder are on a store that is not well: it answers 500 and 503, cuts connections, and loses answers."""

from pathlib import Path

RATES = {"error_500": 0.03, "error_503": 0.03, "reset": 0.02, "lost": 0.02, "cut_response": 0.02, "truncate": 0.01}


def test_a_run_on_a_store_that_fails_now_and_then(
    corpusmill, recipe_and_crawl, s3, tmp_path: Path, reference: Path, tree, faults_of
) -> None:
    recipe, crawl = recipe_and_crawl
    bucket = s3.bucket("store-faults")
    s3.upload(Path(crawl), f"{bucket}/crawl")
    run = f"{bucket}/run"
    with s3.faults(seed=11, **RATES):
        code, _, err = corpusmill("run", recipe, f"{bucket}/crawl", "--output", run, "--engine", "inline")
    counts = s3.counts()
    assert code == 0, err
    assert counts["faults"] > 30 and counts["500"] and counts["reset"] and counts["cut_response"], counts
    assert s3.uploads("store-faults") == []  # nothing half done is left, or paid for
    found = tree(s3.download(run, tmp_path / "run"))
    assert corpusmill("run", recipe, f"{bucket}/crawl", "--output", f"{bucket}/again", "--engine", "inline")[0] == 0
    assert found == tree(s3.download(f"{bucket}/again", tmp_path / "again"))
    assert faults_of(run) == []
    documents = {name: digest for name, digest in found.items() if "/data/" in name}
    assert documents.keys() == {name for name in tree(reference) if "/data/" in name}
