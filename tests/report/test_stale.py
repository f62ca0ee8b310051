"""Tests that every view of a run first names the stages that are out of date, and a command that mends it."""

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from built_run import RunBuilder
from explored import answer, explored
from inline_run import run_inline

from corpusmill.filters.whatif import retune
from corpusmill.pipeline.engine import InlineEngine
from corpusmill.pipeline.manifest import Manifest
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.progress import Progress
from corpusmill.report.page.html import write_report
from corpusmill.report.query.run import open_run
from corpusmill.report.read import RunReader

RECIPE = """
ingest: {}
filter: {steps: [gopher_quality], thresholds: {gopher_short_doc: 60, gopher_enough_stop_words: off}}
dedup: {}
tokenizer: {vocab_size: 512}
tokens: {validation_share: 0.2}
"""
INLINE = ("--engine", "inline")
URL = "http://host.test/page-70.html"
STALE = "Stale: dedup (filter was done again after it), tokenizer (dedup is stale), tokens (dedup is stale). To redo these stages: "


def write_pages(path: Path, numbers: range) -> None:
    """Writes pages; page N has 50 + N words."""
    letters = np.random.default_rng(0)
    words = ["mill", *("".join(letters.choice(list("aeioudlmnrst"), letters.integers(3, 9))) for _ in range(600))]
    texts = {number: " ".join(np.random.default_rng(number).choice(words, 50 + number).tolist()) for number in numbers}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"url": f"http://host.test/page-{n}.html", "text": text}) + "\n" for n, text in texts.items()))


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Makes a finished run that is up to date."""
    folder = tmp_path_factory.mktemp("fresh")
    write_pages(folder / "crawl/a.jsonl", range(40))
    write_pages(folder / "crawl/b.jsonl", range(40, 80))
    return run_inline(folder, RECIPE, folder / "crawl")


@pytest.fixture(scope="module")
def retuned(fresh: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Makes the run, with its filter retuned to another threshold: later stages have not followed."""
    run = tmp_path_factory.mktemp("retuned") / "run"
    shutil.copytree(fresh, run)
    retune(str(run), ["filter.thresholds.gopher_short_doc=90"], InlineEngine(), Progress(False))
    return run


VIEWS = (
    "report RUN", "inspect RUN --json", f"why RUN {URL}", "sample RUN -n 1", "query RUN 'SELECT 1'", "clusters RUN",
    "sweep RUN gopher_short_doc --from 50 --to 60 --steps 2", f"raw RUN {URL} --part text", "trace RUN --shard 0 --token 3",
    "verify RUN",
)  # fmt: skip


def test_a_view_says_it_first_after_retune_and_nothing_of_an_untouched_run(fresh, retuned, corpusmill) -> None:
    for view in VIEWS:
        _, raw, err = corpusmill(*(str(retuned) if word == "RUN" else word for word in shlex.split(view)))
        out = raw.decode()
        assert (err or out).splitlines()[0] == f"{STALE}corpusmill run {retuned} --from dedup --to tokens", view
        assert f"{out}{err}".count("Stale:") == 1, view
    out = " ".join(corpusmill("status", str(retuned))[1].decode().split())
    assert out.startswith(f"{retuned}: {STALE}corpusmill run {retuned} --from dedup --to tokens")  # its lines begin with the run
    for command in (("report", str(fresh)), ("status", str(fresh))):
        code, raw, err = corpusmill(*command)
        assert code == 0 and "stale" not in f"{raw.decode()}{err}".lower().replace(str(fresh).lower(), "")


def test_objects_of_views_say_it_first(fresh, retuned, corpusmill) -> None:
    mend = f"corpusmill run {retuned} --from dedup --to tokens"
    run = str(retuned)
    for view in (("why", run, URL), ("trace", run, "--shard", "0", "--token", "3")):
        found = json.loads(corpusmill(*view, "--json")[1])
        assert next(iter(found)) == "stale" and found["stale"] == STALE + mend
    assert json.loads(corpusmill("why", str(fresh), URL, "--json")[1])["stale"] is None
    assert json.loads(corpusmill("diff", str(fresh), str(retuned), "--json")[1])["notes"][0] == f"B: {STALE}{mend}"
    with open_run(str(retuned)) as run:
        assert run.warnings == [STALE + mend]
    with open_run(str(fresh)) as run:
        assert run.warnings == []


@pytest.fixture
def copy(tmp_path: Path) -> Callable[[Path], Path]:
    return lambda run: Path(shutil.copytree(run, tmp_path / "run"))


def test_a_card_or_export_is_refused_or_says_so_itself(retuned, copy, tmp_path, corpusmill) -> None:
    run = copy(retuned)
    before = sorted(run.iterdir())
    sentence = f"{STALE}corpusmill run {run} --from dedup --to tokens"
    export = ("tokens", "export", str(run), "--format", "nanogpt", "--output", str(tmp_path / "out"))
    append = ("tokens", "append", str(tmp_path / "set"), str(run))
    for command, stage, hint in ((("card", str(run)), "dedup", True), (export, "tokens", True), (append, "tokens", False)):
        code, _, err = corpusmill(*command)
        otherwise = " (--stale writes it, with a warning in it)" if hint else ""
        assert (code, err) == (2, f"corpusmill: {run}: {stage} is stale, so nothing is written{otherwise}. {sentence}\n")
    assert sorted(run.iterdir()) == before and not (tmp_path / "out").exists() and not (tmp_path / "set").exists()
    assert corpusmill("card", str(run), "--stale")[0] == corpusmill(*export, "--stale")[0] == 0
    card = (run / "README.md").read_text()
    assert card.index("Stale: dedup (filter was done again after it)") < card.index("documents of")
    assert json.loads((tmp_path / "out/export.json").read_text())["stale"] == sentence


def test_the_named_command_mends_it(retuned, copy, corpusmill) -> None:
    run = copy(retuned)
    stale = RunReader(str(run)).stale
    assert stale is not None
    code, out, err = corpusmill(*shlex.split(stale.mend)[1:], *INLINE)
    assert code == 0 and "Stale" not in out.decode() + err
    assert RunReader(str(run)).stale is None
    assert corpusmill("verify", str(run))[0] == corpusmill("status", str(run))[0] == 0
    assert "Stale: " not in (run / "report.html").read_text()


def test_a_command_that_leaves_later_stages_stale_says_so_at_its_end(fresh, copy, corpusmill) -> None:
    run = copy(fresh)
    code, _, err = corpusmill(
        "run", str(run), "--from", "filter", "--to", "filter", "--set", "filter.thresholds.gopher_short_doc=100", "--redo", *INLINE
    )
    said = err.splitlines()[-1]
    assert code == 0 and said.startswith("Stale: dedup (filter was done again after it), tokenizer (")
    assert said.endswith(f"To redo these stages: corpusmill run {run} --from dedup --to tokens")


def test_a_stage_that_gave_the_same_bytes_again_makes_nothing_stale(fresh, copy, corpusmill) -> None:
    run = copy(fresh)
    shutil.rmtree(run / "filter/data")
    code, out, err = corpusmill("run", str(run), "--from", "filter", "--to", "filter", *INLINE)
    assert code == 0 and "Stale" not in out.decode() + err and any((run / "filter/data").iterdir())


def test_a_stage_that_was_begun_again_and_broken_off(fresh, copy, corpusmill) -> None:
    run = copy(fresh)
    manifest = Manifest(Storage(str(run / "filter")))
    manifest.reopen(list(manifest.tasks)[:1])
    stale = RunReader(str(run)).stale
    assert stale is not None and stale.because["dedup"] == "filter was begun again and is not finished"
    assert stale.mend == f"corpusmill run {run} --from filter --to tokens"
    found = json.loads(corpusmill("status", str(run), "--json")[1])
    assert found["state"] != "complete" and found["sentence"].startswith("Stale: dedup (filter was begun again and is not finished)")


def scored(score: float) -> pa.Table:
    return pa.table({"kept": [True], "quality": [score]})


def trained_run(folder: Path) -> RunBuilder:
    """Makes the stages' manifests of a run that trains; `sft` has files of its own, so it depends only on the model."""
    run = RunBuilder(folder)
    names = ("filter", "tokenizer", "tokens", "pretrain", "sft", "align", "evaluate")
    run.json("run.json", {"inputs": [], "recipe": {name: {} for name in names}, "versions": {}})
    run.stage("filter", [{"data/part-00000.parquet": b"documents", "report/part-00000.parquet": scored(0.5)}])
    run.stage("tokenizer", [{"tokenizer.json": b"words"}], read=["filter/data/part-00000.parquet"])
    packed = {f"train/tokens-00000.pack-{length}.arrow": b"plan" for length in (64, 128)}  # of which the model takes one
    tokens = {"train/tokens-00000.bin": b"tokens", **packed, "validation/tokens-00000.bin": b"others"}
    run.stage("tokens", [tokens], read=["filter/data/part-00000.parquet", "tokenizer/tokenizer.json"])
    run.stage(
        "pretrain",
        [{"model/model.safetensors": b"1"}],
        read=["tokenizer/tokenizer.json", *(f"tokens/train/tokens-00000.{kind}" for kind in ("bin", "pack-64.arrow"))],
    )
    run.stage("sft", [{"model/model.safetensors": b"2"}], read=["pretrain/model/model.safetensors", "/home/chats.jsonl"])
    run.stage("align", [{"model/model.safetensors": b"3"}], read=["sft/model/model.safetensors", "filter/report/part-00000.parquet"])
    models = [f"{stage}/model/model.safetensors" for stage in ("pretrain", "sft", "align")]
    run.stage("evaluate", [{"scores.json": b"{}"}], read=[*models, "tokens/validation/tokens-00000.bin"])
    return run


def test_a_stage_in_its_first_run_is_not_stale(tmp_path: Path) -> None:
    """It has read one of two shards; a finished one that has is stale, as the other came after it."""
    for finish, because in ((False, None), (True, {"filter": "ingest was done again after it"})):
        run = RunBuilder(tmp_path / str(finish))
        run.json("run.json", {"inputs": [], "recipe": {"ingest": {}, "filter": {}}, "versions": {}})
        run.stage("ingest", [{f"data/part-0000{number}.parquet": b"documents"} for number in range(2)])
        run.stage("filter", [{"data/part-00000.parquet": b"kept"}], finish=finish, read=["ingest/data/part-00000.parquet"])
        stale = RunReader(str(run.storage.root)).stale
        assert (stale and stale.because) == because


def again(name: str, files: dict[str, Any]) -> Callable[[RunBuilder], None]:
    def change(run: RunBuilder) -> None:
        rows = Manifest(run.storage.child(name)).rows()
        run.stage(name, [files], read=[ref.path for ref in rows[0].inputs])

    return change


@pytest.mark.parametrize(
    ("change", "because", "mend"),
    [
        (lambda run: None, {}, ""),
        (again("pretrain", {"model/model.safetensors": b"1"}), {}, ""),
        (
            again("tokens", {"train/tokens-00000.bin": b"new", "validation/tokens-00000.bin": b"others"}),
            {"pretrain": "tokens was done again after it", "sft": "pretrain is stale", "align": "sft is stale",
             "evaluate": "pretrain is stale"},
            "run RUN --from pretrain --to evaluate",
        ),
        (
            again("tokens", {f"{split}/tokens-0000{n}.bin": text for split, text in (("train", b"tokens"), ("validation", b"others"))
                             for n in (0, 1)}),
            {"pretrain": "tokens was done again after it", "sft": "pretrain is stale", "align": "sft is stale",
             "evaluate": "tokens was done again after it"},
            "run RUN --from pretrain --to evaluate",
        ),
        (
            again("sft", {"model/model.safetensors": b"tuned anew"}),
            {"align": "sft was done again after it", "evaluate": "sft was done again after it"},
            "run RUN --from align --to evaluate",
        ),
        (
            again("filter", {"data/part-00000.parquet": b"documents", "report/part-00000.parquet": scored(0.6)}),
            {"align": "filter was done again after it", "evaluate": "align is stale"},
            "run RUN --from align --to evaluate",
        ),
    ],
)  # fmt: skip
def test_what_rests_on_a_stage_is_stale_and_nothing_else(change, because, mend, tmp_path) -> None:
    run = trained_run(tmp_path / "run")
    change(run)
    stale = RunReader(str(run.folder)).stale
    assert (stale.because if stale else {}) == because
    assert (stale.mend if stale else "") == (f"corpusmill {mend.replace('RUN', str(run.folder))}" if mend else "")


def test_on_a_store_manifests_are_enough(tmp_path) -> None:
    local = trained_run(tmp_path / "run")
    again("align", {"model/model.safetensors": b"aligned anew"})(local)
    store = Storage("memory://stale/run")
    store.write_bytes("run.json", (local.folder / "run.json").read_bytes())
    for path in local.folder.glob("*/manifest.jsonl"):
        here, there = Manifest(Storage(str(path.parent)), read_only=True), Manifest(store.child(path.parent.name))
        for row in here.rows():
            there.append(row)
        there.finish(here.plan or [])
    stale = RunReader(store.root).stale
    assert stale is not None and stale.because == {"evaluate": "align was done again after it"}
    assert stale.mend == "corpusmill run memory://stale/run --from evaluate --to evaluate"


def test_the_model_of_a_stale_stage_is_not_used_without_a_word(tmp_path, corpusmill) -> None:
    run = trained_run(tmp_path / "run")
    again("sft", {"model/model.safetensors": b"tuned anew"})(run)
    for stage, said in (("align", True), ("sft", False)):
        _, _, err = corpusmill("generate", str(run.folder / stage / "model"), "--prompt", "The mill")
        assert err.startswith("Stale: align (sft was done again after it)") is said


def test_the_explorer_says_it_also_when_it_comes_while_the_page_is_open(fresh, retuned, copy) -> None:
    run = copy(fresh)
    with explored(run) as address:
        assert answer(address, "run")["stale"] is None and answer(address, "status")["stale"] is None
        shutil.copytree(retuned, run, dirs_exist_ok=True)
        assert answer(address, "status")["stale"]["sentence"].startswith(STALE)
        assert (
            answer(address, "thresholds?stage=filter&set.gopher_short_doc=70")["next"] == f"corpusmill run {run} --from dedup --to tokens"
        )
    with explored(run) as address:
        assert answer(address, "run")["stale"].startswith(STALE)


@pytest.fixture(scope="module")
def page(retuned: Path) -> Path:
    return Path(write_report(str(retuned)))


def test_the_page_has_it_above_everything_else(page: Path) -> None:
    body = page.read_text().split('<div class="page">')[1]
    assert body.index(STALE.split(" To redo")[0]) < min(body.index("<h1"), body.index("warning"), body.index("<table"))
    assert '<h2 id="progress"' not in body
