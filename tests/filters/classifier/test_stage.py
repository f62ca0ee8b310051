"""Tests classifiers in the stage: a kept share of the corpus, resume, workers, retuning, and a run's record of its models."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
from killing import in_child, killed_at

from corpusmill.filters.classifier.card import read_classifier
from corpusmill.filters.kept_share import MeasureWorker
from corpusmill.filters.rules import METADATA_KEY
from corpusmill.filters.whatif import retune, sweep
from corpusmill.filters.worker import FilterWorker
from corpusmill.ingest.config import IngestConfig
from corpusmill.pipeline.engine import InlineEngine
from corpusmill.pipeline.errors import ConfigError
from corpusmill.pipeline.manifest import Manifest
from corpusmill.pipeline.run import execute, plan_of_existing
from corpusmill.pipeline.shards import read_table
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.progress import Progress

SHORT = {"gopher_quality": {"preset": "gopher-paper"}}
OFF = [
    "gopher_long_doc",
    "gopher_below_avg_threshold",
    "gopher_above_avg_threshold",
    "gopher_enough_stop_words",
    "gopher_below_alpha_threshold",
]


ACCENTS = """
import pyarrow.compute as pc
from corpusmill.filters.own import measures

@measures({"one": "int64"}, rewrites=True)
def accents(documents):
    return {"one": [1] * len(documents), "text": pc.replace_substring(documents["text"], "e", "\u00e9")}
"""


def section(quality: Path, toxicity: Path | None = None, short: int = 20, **options: Any) -> dict[str, Any]:
    """Returns a section that keeps documents that are not short, and of these the best tenth; it redacts email addresses."""
    steps: list[Any] = [SHORT, {"classifier": {"model": str(quality), "keep_where": "high", "keep": 0.1, **options}}, "pii"]
    if toxicity:
        steps.insert(1, {"classifier": {"model": str(toxicity), "keep_where": "low", "threshold": 0.9}})
    return {"steps": steps, "word_rule": "words", "thresholds": {"gopher_short_doc": short, **dict.fromkeys(OFF)}}


@pytest.fixture(scope="session")
def texts(mixed_texts) -> list[str]:
    return [f"{text} mail me@host{n}.org" if n % 5 == 0 else text for n, text in enumerate(mixed_texts)]


def stored(run: Storage, kind: str):
    storage = run.child("filter")
    names = [name for name in storage.list_files(kind) if name.endswith(".parquet")]
    return [read_table(storage, name) for name in names]


@pytest.fixture
def three_shards(texts, make_documents, finished_ingest) -> Callable[[Path], Storage]:
    def make(root: Path) -> Storage:
        parts = [make_documents(texts).slice(start, 150).combine_chunks() for start in range(0, len(texts), 150)]
        return finished_ingest(root, [*parts, make_documents([])])

    return make


def test_the_best_tenth_of_what_passes(tmp_path, three_shards, run_filter, quality, toxicity) -> None:
    run = three_shards(tmp_path / "run")
    stage_run = run_filter(run, section(quality, toxicity))
    report = [row for table in stored(run, "report") for row in table.to_pylist()]
    passing = [row for row in report if not set(row["failed"]) - {"quality"} and row["quality"] is not None]
    threshold = sorted(row["quality"] for row in passing)[-int(np.ceil(len(passing) * 0.1))]
    kept = [row for row in report if row["kept"]]
    assert {row["id"] for row in kept} == {row["id"] for row in passing if row["quality"] >= threshold} | {
        row["id"] for row in report if not row["failed"] and row["quality"] is None
    }
    assert 0 < len(kept) < len(passing) < len(report)
    (rule,) = [rule for rule in json.loads(stored(run, "report")[0].schema.metadata[METADATA_KEY]) if rule["rule"] == "quality"]
    assert rule["threshold"] == threshold and rule["kept"] == {"share": 0.1, "of": "passing"} and rule["comparison"] == "<"
    found = json.loads(run.read_bytes("filter/thresholds.json"))
    assert found == {"quality": {"threshold": threshold, "documents": len(passing), "kept": len(kept)}}
    assert stage_run.stage.summary(stage_run)["kept share"] == f"quality {threshold:.6g} keeps {len(kept)} of {len(passing)}"
    texts = [text for table in stored(run, "data") for text in table["text"].to_pylist()]
    assert len(texts) == len(kept) and not any("me@host" in text for text in texts) and any("@" in text for text in texts)


def test_killed_before_a_row_it_goes_on_to_the_same_bytes(
    tmp_path, texts, make_documents, finished_ingest, run_filter, quality, toxicity, tree
) -> None:
    """The process is killed after it has published the files of a task and before it writes their row of the manifest."""
    run, options = finished_ingest(tmp_path / "ingested", [make_documents(texts[:60])]), section(quality, toxicity)
    shutil.copytree(run.root, tmp_path / "whole")
    run_filter(Storage(str(tmp_path / "whole")), options)
    rows = (tmp_path / "whole/filter/manifest.jsonl").read_text().splitlines()
    for output in ("measured/part-00000.parquet", "data/part-00000.parquet"):
        (row,) = [number for number, text in enumerate(rows) if json.loads(text).get("outputs", [{}])[0].get("path") == output]

        def killed(copy: Storage, row: int) -> None:
            killed_at(row, after=False)
            run_filter(copy, options)

        shutil.copytree(run.root, tmp_path / f"killed-{row}")
        copy = Storage(str(tmp_path / f"killed-{row}"))
        assert os.WTERMSIG(in_child(killed, copy, row)) == signal.SIGKILL and copy.exists(f"filter/{output}")
        run_filter(copy, options)
        assert tree(Path(copy.root)) == tree(tmp_path / "whole")


def measured(monkeypatch) -> list[str]:
    """Returns the shards that are measured from now on."""
    names: list[str] = []
    for worker in (MeasureWorker, FilterWorker):
        original = worker.process

        def process(self, piece, original=original):
            names.append(piece.key)
            return original(self, piece)

        monkeypatch.setattr(worker, "process", process)
    return names


def test_another_share_or_threshold_measures_nothing(tmp_path, three_shards, run_filter, quality, tree, monkeypatch) -> None:
    run, fresh = three_shards(tmp_path / "run"), three_shards(tmp_path / "fresh")
    run_filter(run, section(quality))
    run_filter(fresh, section(quality, short=60, keep=0.3))
    names = measured(monkeypatch)
    run_filter(run, section(quality, short=60, keep=0.3))
    assert not names and tree(tmp_path / "run") == tree(tmp_path / "fresh")


def test_texts_that_a_changed_step_rewrites_otherwise_are_written_anew(
    tmp_path: Path, texts: list[str], make_documents: Callable, finished_ingest: Callable, run_filter: Callable, quality: Path
) -> None:
    """The changed step measures the same bytes, lengths included, so no input of the deciding tasks shows the change."""
    run, step, options = finished_ingest(tmp_path / "run", [make_documents(texts[:60])]), tmp_path / "step.py", section(quality)
    options["steps"].append({"python": f"{step}:accents"})
    found = []
    for text in (ACCENTS, ACCENTS.replace("\u00e9", "\u00e8")):
        step.write_text(text)
        run_filter(run, options)
        found.append((run.read_bytes("filter/measured/part-00000.parquet"), stored(run, "data")[0]["text"].to_pylist()))
    (measured, before), (again, now) = found
    assert again == measured and now == [text.replace("\u00e9", "\u00e8") for text in before] != before


def described(folder: Path, options: dict[str, Any]) -> None:
    ingest = IngestConfig().model_dump(mode="json")
    (folder / "run.json").write_text(json.dumps({"inputs": ["crawl"], "recipe": {"ingest": ingest, "filter": options}}))


def filter_stage(folder: Path, *overrides: str) -> None:
    plan = plan_of_existing(str(folder), list(overrides), "filter", "filter", redo=True)
    execute(plan, InlineEngine(), Progress(False))


@pytest.mark.parametrize("override", ["gopher_short_doc=60", "quality=off"])
def test_retune_is_a_fresh_run_and_says_before_what_changes(tmp_path, three_shards, quality, tree, override, monkeypatch) -> None:
    three_shards(tmp_path / "run")
    described(tmp_path / "run", section(quality))
    filter_stage(tmp_path / "run")
    shutil.copytree(tmp_path / "run", tmp_path / "fresh")
    shutil.rmtree(tmp_path / "fresh/filter")
    filter_stage(tmp_path / "fresh", f"filter.thresholds.{override}")
    names, said = measured(monkeypatch), []
    before = tree(tmp_path / "run")
    dry = retune(str(tmp_path / "run"), [f"filter.thresholds.{override}"], InlineEngine(), Progress(False), write=False)
    assert tree(tmp_path / "run") == before
    result = retune(str(tmp_path / "run"), [f"filter.thresholds.{override}"], InlineEngine(), Progress(False), said.append)
    assert tree(tmp_path / "run") == tree(tmp_path / "fresh") and not names and said == [dry] == [result]
    kept = sum(row.kept for row in Manifest(Storage(str(tmp_path / "run/filter"))).rows())
    assert result.kept == kept == result.kept_before + result.came_back - result.gone and result.kept != result.kept_before
    assert "quality" in result.changed  # the threshold that keeps the share changes, too
    back = retune(
        str(tmp_path / "run"), [f"filter.thresholds={json.dumps(section(quality)['thresholds'])}"], InlineEngine(), Progress(False)
    )
    assert tree(tmp_path / "run") == before and (back.came_back, back.gone) == (result.gone, result.came_back)


def test_sweep_over_a_share_knows_the_threshold_that_was_found(tmp_path, three_shards, quality) -> None:
    run = three_shards(tmp_path / "run")
    described(tmp_path / "run", section(quality))
    filter_stage(tmp_path / "run")
    swept = sweep(str(tmp_path / "run"), "quality", 0, 1, 3)
    found = json.loads(run.read_bytes("filter/thresholds.json"))["quality"]
    assert swept.now == found["threshold"] and swept.documents == 404
    (at_found,) = sweep(str(tmp_path / "run"), "quality", found["threshold"], found["threshold"], 1).rows
    kept = sum(pc.sum(table["kept"]).as_py() or 0 for table in stored(run, "report"))
    assert abs(at_found.together_documents - kept) <= 1  # sweep rounds its thresholds to 12 digits


def test_passing_documents_alone_are_scored(tmp_path, three_shards, run_filter, quality, tree) -> None:
    run, every = three_shards(tmp_path / "run"), three_shards(tmp_path / "every")
    run_filter(run, section(quality, only_passing=True))
    run_filter(every, section(quality))
    for ours, theirs in zip(stored(run, "report"), stored(every, "report"), strict=True):
        short = np.array(["gopher_short_doc" in failed for failed in ours["failed"].to_pylist()], bool)
        scores = np.array(theirs["quality"].to_pylist(), object)
        assert ours["quality"].to_pylist() == np.where(short, None, scores).tolist() if len(short) else True
        assert ours["kept"].equals(theirs["kept"])
    described(tmp_path / "run", section(quality, only_passing=True))
    filter_stage(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"classifier:quality scores only documents .* another gopher_short_doc asks for new scores"):
        retune(str(tmp_path / "run"), ["filter.thresholds.gopher_short_doc=5"], InlineEngine(), Progress(False))
    filter_stage(tmp_path / "run", "filter.thresholds.gopher_short_doc=5")
    run_filter(every, section(quality, short=5, only_passing=True))
    assert repr([t.to_pylist() for t in stored(run, "report")]) == repr([t.to_pylist() for t in stored(every, "report")])
    result = retune(str(tmp_path / "run"), ["filter.thresholds.quality=0.5"], InlineEngine(), Progress(False))
    assert result.came_back > 0


def test_a_run_remembers_its_models(tmp_path, three_shards, run_filter, quality, dclm_model) -> None:
    run = three_shards(tmp_path / "run")
    models = [{"model": str(quality)}, {"preset": "dclm", "model": str(dclm_model)}]
    options: dict[str, Any] = {"steps": [{"classifier": each} for each in models]}
    run_filter(run, options)
    stored_card = json.loads(run.read_bytes("filter/classifiers/quality.json"))
    assert stored_card == json.loads(read_classifier(quality).model_dump_json())
    bare = json.loads(run.read_bytes("filter/classifiers/dclm.json"))
    assert bare["heads"][0]["positive"] == "__label__hq" and "mlfoundations/dclm" in bare["card"]["conventions"]
    manifest = Manifest(run.child("filter"))
    inputs = {ref.path: ref.fingerprint for ref in manifest.tasks["classifiers"].inputs}
    assert inputs == {"quality/quality.bin": stored_card["heads"][0]["sha256"], "dclm/oh_eli5.bin": bare["heads"][0]["sha256"]}
    assert [output.path for output in manifest.tasks["classifiers"].outputs] == ["classifiers/dclm.json", "classifiers/quality.json"]
    assert run_filter(run, options).performed == 0
    assert manifest.plan is not None and manifest.plan[0] == "classifiers"


def test_an_empty_corpus_and_one_that_nothing_passes(tmp_path, run_filter, finished_ingest, make_documents, texts, quality) -> None:
    for name, shards in (("none", []), ("empty", [make_documents([])]), ("short", [make_documents(["a b c"])])):
        run = finished_ingest(tmp_path / name, shards)
        run_filter(run, section(quality))
        assert json.loads(run.read_bytes("filter/thresholds.json")) == {"quality": {"threshold": None, "documents": 0, "kept": 0}}
        for table in stored(run, "report"):
            assert "quality" not in {rule["rule"] for rule in json.loads(table.schema.metadata[METADATA_KEY])}
