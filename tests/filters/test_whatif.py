"""Tests other thresholds: tried (sweep), and applied (retune)."""

import csv
import io
import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from killing import in_child, killed_at

from corpusmill.filters import whatif as module
from corpusmill.filters.fork import fork
from corpusmill.filters.whatif import retune, sweep
from corpusmill.filters.worker import FilterConfig
from corpusmill.ingest.config import IngestConfig
from corpusmill.pipeline import lease
from corpusmill.pipeline.engine import InlineEngine
from corpusmill.pipeline.errors import ConfigError, InputError
from corpusmill.pipeline.manifest import Manifest
from corpusmill.pipeline.run import execute, plan_of_existing
from corpusmill.pipeline.shards import read_table
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.progress import Progress

# ---- The share that each threshold keeps, against runs of the stage with that threshold.

STEPS = ["gopher_repetition", "gopher_quality", "fineweb_quality"]


def write_run(folder: Path, section: dict[str, Any]) -> None:
    resolved = FilterConfig.model_validate(section).model_dump(mode="json")
    (folder / "run.json").write_text(json.dumps({"inputs": [], "recipe": {"filter": resolved}}))


@pytest.fixture(scope="module")
def run(tmp_path_factory, make_documents, finished_ingest, run_filter, texts) -> Storage:
    folder = tmp_path_factory.mktemp("sweep")
    storage = finished_ingest(folder, [make_documents(texts[::2]), make_documents([]), make_documents(texts[1::2])])
    run_filter(storage, {"steps": STEPS})
    write_run(folder, {"steps": STEPS})
    return storage


def kept(storage: Storage) -> tuple[int, int]:
    rows = [row for part in range(3) for row in read_table(storage, f"filter/report/part-0000{part}.parquet").to_pylist()]
    return sum(row["kept"] for row in rows), sum(row["chars_in"] for row in rows if row["kept"])


@pytest.mark.parametrize(("rule", "first", "last"), [("gopher_short_doc", 0, 400), ("list_ratio", 0.0, 0.3)])
def test_as_the_stage_itself_decides(
    tmp_path: Path, make_documents, finished_ingest, run_filter, texts, run, rule: str, first: float, last: float
) -> None:
    found = sweep(run.root, rule, first, last, 2)
    assert found.documents == len(texts) and found.characters == sum(map(len, texts))
    assert found.rows[0].together_documents != found.rows[1].together_documents
    others = [r.rule.name for r in rules_of(STEPS) if r.rule.name != rule]
    for row in found.rows:
        for name, thresholds in (("together", {}), ("alone", dict.fromkeys(others))):
            folder = tmp_path / f"{row.threshold}-{name}"
            storage = finished_ingest(folder, [make_documents(texts[::2]), make_documents([]), make_documents(texts[1::2])])
            run_filter(storage, {"steps": STEPS, "thresholds": {**thresholds, rule: row.threshold}})
            assert kept(storage) == (getattr(row, f"{name}_documents"), getattr(row, f"{name}_characters"))


def rules_of(steps: list[str]) -> list[Any]:
    from corpusmill.filters.worker import rule_table

    return rule_table(FilterConfig.model_validate({"steps": steps}))


def test_thresholds_are_round_numbers_with_both_ends(run: Storage) -> None:
    assert [row.threshold for row in sweep(run.root, "list_ratio", 0.1, 0.7, 7).rows] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    assert [row.threshold for row in sweep(run.root, "list_ratio", 0.1, 0.7, 1).rows] == [0.1, 0.3]  # with the present one
    assert sweep(run.root, "list_ratio", 0.1, 0.7, 7).now == 0.3


def test_without_ends_a_sweep_drops_equal_shares_of_the_documents(run: Storage) -> None:
    report = read_table(run, "filter/report/part-00000.parquet")["gopher_words"].to_pylist()
    for part in (1, 2):
        report += read_table(run, f"filter/report/part-0000{part}.parquet")["gopher_words"].to_pylist()
    values = np.quantile(report, np.linspace(0.01, 0.99, 11))
    assert [row.threshold for row in sweep(run.root, "gopher_short_doc").rows] == sorted({50, *(float(f"{one:.2g}") for one in values)})
    assert sweep(run.root, "gopher_short_doc", 10).rows[0].threshold == 10


def test_the_command_sweep(run: Storage, tmp_path: Path, corpusmill: Callable) -> None:
    call = ("sweep", run.root, "gopher_short_doc", "--from", 0, "--to", 100, "--steps", 3)
    expected = sweep(run.root, "gopher_short_doc", 0, 100, 3)
    code, out, _ = corpusmill(*call)
    assert code == 0 and "50" in out.decode() and "now ▸ 50" in out.decode() and "█" in out.decode()
    code, out, _ = corpusmill(*call, "--json")
    assert json.loads(out) == json.loads(json.dumps(expected.as_json()))
    code, out, _ = corpusmill(*call, "--csv")
    rows = list(csv.DictReader(io.StringIO(out.decode())))
    assert [int(row["together_documents"]) for row in rows] == [row.together_documents for row in expected.rows]


def test_what_sweep_refuses(run: Storage, tmp_path: Path, make_documents, finished_ingest) -> None:
    with pytest.raises(InputError, match=r"^shrot: the filter has no such rule \(expected one of .*repetition_empty.*other stages need"):
        sweep(run.root, "shrot", 0, 1, 2)
    finished_ingest(tmp_path, [make_documents([])])
    write_run(tmp_path, {"steps": [{"language": {"keep": ["en"]}}]})
    with pytest.raises(InputError, match="compares with a list"):
        sweep(str(tmp_path), "language", 0, 1, 2)
    with pytest.raises(InputError, match="is not finished"):
        sweep(str(tmp_path), "language_score", 0, 1, 2)
    with pytest.raises(InputError, match="--to 2: gopher_below_alpha_threshold compares .*, a share from 0 to 1, not 2"):
        sweep(run.root, "gopher_below_alpha_threshold", 0, 2, 2)


# ---- Retuning gives the bytes of a fresh run of the stage, wherever it is interrupted.

STEPS_RETUNE: list[Any] = [
    "gopher_repetition",
    {"gopher_quality": {}},
    {"c4": {"filter_no_terminal_punct": False}},
    "fineweb_quality",
    "pii",
]


GATE = """
from pathlib import Path
from corpusmill.filters.own import Rule, measures

@measures({"length": "int64"}, rules=[Rule("short", "length", "<", 5)])
def gate(documents):
    if (Path(__file__).parent / "bad").exists():
        raise ValueError("this one is bad")
    return {"length": [len(text) for text in documents["text"].to_pylist()]}
"""


def filter_stage(folder: Path, *overrides: str) -> None:
    plan = plan_of_existing(str(folder), list(overrides), "filter", "filter", redo=True)
    execute(plan, InlineEngine(), Progress(False))


def again(folder: Path, *overrides: str) -> module.Retuned:
    return retune(str(folder), list(overrides), InlineEngine(), Progress(False))


def new_run(folder: Path, make_documents: Callable, finished_ingest: Callable, texts: list[str], **section: Any) -> None:
    parts = [make_documents(texts).slice(start, 70) for start in range(0, len(texts), 70)]
    finished_ingest(folder, [part.combine_chunks() for part in parts] + [make_documents([])])
    description = {
        "inputs": ["crawl"],
        "recipe": {"ingest": IngestConfig().model_dump(mode="json"), "filter": {"steps": STEPS_RETUNE, **section}},
    }
    (folder / "run.json").write_text(json.dumps(description))
    filter_stage(folder)


@pytest.fixture(scope="module")
def base(tmp_path_factory, make_documents, finished_ingest, texts, quality_step) -> Path:
    folder = tmp_path_factory.mktemp("base") / "run"
    new_run(folder, make_documents, finished_ingest, texts, steps=[*STEPS_RETUNE, quality_step])
    return folder


@pytest.mark.parametrize(
    ("overrides", "returns", "drops"),
    [
        (["filter.thresholds.gopher_below_alpha_threshold=0.5", "filter.thresholds.gopher_short_doc=100"], True, True),
        (["filter.thresholds.too_few_sentences=off", "filter.thresholds.quality=0.5"], True, True),
        (["filter.thresholds.gopher_long_doc=1000000000"], False, False),
    ],
)
def test_retuning_equals_a_fresh_run_and_a_dry_one_says_it_before(
    tmp_path: Path, base: Path, tree: Callable, overrides: list[str], returns: bool, drops: bool
) -> None:
    shutil.copytree(base, tmp_path / "retuned")
    shutil.copytree(base, tmp_path / "fresh")
    dry = retune(str(tmp_path / "retuned"), overrides, InlineEngine(), Progress(False), write=False)
    assert tree(tmp_path / "retuned") == tree(base)
    result = again(tmp_path / "retuned", *overrides)
    assert result == dry
    filter_stage(tmp_path / "fresh", *overrides)
    assert tree(tmp_path / "retuned") == tree(tmp_path / "fresh")
    assert result.to_measure == 0
    assert result.kept == result.kept_before + result.came_back - result.gone
    rows = [row for row in Manifest(Storage(str(tmp_path / "retuned/filter"))).rows() if row.rows_in]
    assert sum(row.rows_in for row in rows) == result.documents and sum(row.kept for row in rows) == result.kept
    assert all(sum(row.failed.get(rule, 0) for row in rows) == now for rule, (_, now) in result.failed.items())
    assert (result.came_back > 0, result.gone > 0) == (returns, drops) and (result.data_shards > 0) == (returns or drops)
    filter_stage(tmp_path / "retuned")  # takes everything over
    assert tree(tmp_path / "retuned") == tree(tmp_path / "fresh")
    assert again(tmp_path / "retuned", *overrides).changed == {}


def test_steps_with_a_memory(tmp_path: Path, make_documents, finished_ingest, tree: Callable, texts: list[str]) -> None:
    """datatrove's formatter takes its placeholders in turn, and its sampler keeps drawing: returned documents are as in a fresh run."""
    mails = [f"{text} Write to mail@some{n}.org, please." for n, text in enumerate(texts[:60])]
    steps = [
        {"datatrove": "pipeline.formatters.PIIFormatter"},
        {"datatrove": {"pipeline.filters.SamplerFilter": {"rate": 0.7, "seed": 5}}},
        "gopher_quality",
    ]
    new_run(tmp_path / "retuned", make_documents, finished_ingest, mails, steps=steps, thresholds={"gopher_short_doc": 200})
    shutil.copytree(tmp_path / "retuned", tmp_path / "fresh")
    assert again(tmp_path / "retuned", "filter.thresholds.gopher_short_doc=20").came_back > 5
    filter_stage(tmp_path / "fresh", "filter.thresholds.gopher_short_doc=20")
    assert tree(tmp_path / "retuned") == tree(tmp_path / "fresh")


def test_nothing_changes(tmp_path: Path, base: Path, tree: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(base, tmp_path / "run")
    monkeypatch.setattr(lease, "TTL", 1.0)
    (tmp_path / "run" / lease.LEASE).write_bytes(b"of a process that was cut off")
    said: list[str] = []
    assert retune(str(tmp_path / "run"), [], InlineEngine(), Progress(False), on_message=said.append).changed == {}
    assert len(said) == 1 and "another process holds this folder" in said[0]
    assert tree(tmp_path / "run") == tree(base)


def kill_retune(folder: Path, option: str, row: int) -> None:
    """Retunes, and kills the process after it has written the files of a shard and before it writes their row of the manifest."""

    def killed() -> None:
        killed_at(row, after=False)  # row 0 names the shards that are about to change
        again(folder, option)

    assert os.WTERMSIG(in_child(killed)) == signal.SIGKILL


def test_killed_halfway(tmp_path: Path, base: Path, tree: Callable) -> None:
    """A repeated retuning ends with the bytes of a fresh run, and the stage itself with those of before."""
    folder, option = tmp_path / "run", "filter.thresholds.gopher_short_doc=120"
    for name in ("run", "fresh"):
        shutil.copytree(base, tmp_path / name)
    filter_stage(tmp_path / "fresh", option)
    kill_retune(folder, option, 2)
    shutil.copytree(folder, tmp_path / "repeated")
    again(tmp_path / "repeated", option)
    assert tree(tmp_path / "repeated") == tree(tmp_path / "fresh")
    filter_stage(folder)
    assert tree(folder) == tree(base)


def test_killed_where_a_changed_report_has_the_old_size(tmp_path: Path, base: Path, tree: Callable) -> None:
    """The new threshold has as many digits and changes no verdict: the new report has the old one's size, but other rules."""
    folder, report = tmp_path / "run", "filter/report/part-00000.parquet"
    shutil.copytree(base, folder)
    kill_retune(folder, "filter.thresholds.gopher_long_doc=999999", 1)
    before, now = (base / report).read_bytes(), (folder / report).read_bytes()
    assert before != now and len(before) == len(now)
    filter_stage(folder)
    assert tree(folder) == tree(base)


def test_what_retune_refuses(tmp_path: Path, base: Path, make_documents, finished_ingest) -> None:
    folder = tmp_path / "run"
    shutil.copytree(base, folder)
    with pytest.raises(ConfigError, match=r"retune: filter\.word_rule would change, and only filter\.thresholds"):
        again(folder, "filter.word_rule=whitespace")
    with pytest.raises(ConfigError, match=r"thresholds\.gopher_shrot_doc: no such rule"):
        again(folder, "filter.thresholds.gopher_shrot_doc=1")
    manifest = folder / "filter" / "manifest.jsonl"
    written = manifest.read_text()
    code = Manifest(Storage(str(folder / "filter")), read_only=True).tasks["part-00000"].code
    other = re.sub(r'"identity":"[^"]+"', '"identity":"other"', written)
    manifest.write_text(re.sub(r'"pyarrow":"[^"]+"', '"pyarrow":"1.2.3"', other.replace(code, "another")))
    with pytest.raises(InputError, match=rf"the program was changed \(pyarrow 1\.2\.3 → {re.escape(pa.__version__)}\)"):
        again(folder, "filter.thresholds.gopher_short_doc=1")
    manifest.write_text(re.sub(r'"fingerprint":"[^"]+"', '"fingerprint":"other"', other))
    with pytest.raises(InputError, match="since it was measured the documents that it read were changed;"):
        again(folder, "filter.thresholds.gopher_short_doc=1")
    manifest.write_text(written)
    stored = json.loads((folder / "run.json").read_text())
    stored["recipe"]["filter"]["word_rule"] = "whitespace"  # the recipe went on without the stage
    (folder / "run.json").write_text(json.dumps(stored))
    with pytest.raises(InputError, match=r"since it was measured the section filter of its recipe was changed; measure"):
        again(folder, "filter.thresholds.gopher_short_doc=1")
    shutil.rmtree(folder / "filter")
    with pytest.raises(InputError, match="nothing is measured yet"):
        again(folder, "filter.thresholds.gopher_short_doc=1")
    stored["recipe"].pop("filter")
    (folder / "run.json").write_text(json.dumps(stored))
    with pytest.raises(InputError, match="has no stage filter"):
        again(folder)


def test_the_command_retune(tmp_path: Path, base: Path, corpusmill: Callable) -> None:
    shutil.copytree(base, tmp_path / "run")
    code, out, _ = corpusmill("retune", tmp_path / "run", "--set", "filter.thresholds.curly_bracket=off", "--engine", "inline")
    assert code == 0
    assert b"curly_bracket" in out and b"came back" in out
    assert json.loads((tmp_path / "run/run.json").read_text())["recipe"]["filter"]["thresholds"] == {"curly_bracket": "off"}
    assert Storage(str(tmp_path / "run/filter")).exists("manifest.jsonl")
    nothing = ("retune", tmp_path / "run", "--set", "filter.thresholds.gopher_short_doc=1e6", "--engine", "inline", "--dry-run")
    code, out, error = corpusmill(*nothing)
    assert code == 3 and b", 0 do now" in out and "documents would be kept" in error


def test_a_shard_that_is_measured_anew_and_given_up(
    tmp_path: Path, make_documents: Callable, finished_ingest: Callable, texts: list[str], corpusmill: Callable
) -> None:
    (tmp_path / "step.py").write_text(GATE)
    run = tmp_path / "run"
    new_run(run, make_documents, finished_ingest, texts[:80], steps=[{"python": f"{tmp_path}/step.py:gate"}])
    (run / "filter/report/part-00001.parquet").write_bytes(b"damaged")
    (tmp_path / "bad").touch()
    command = ("retune", run, "--set", "filter.thresholds.short=6", "--engine", "inline")
    code, _, error = corpusmill(*command)
    assert code == 3 and "1 task was given up" in error and "filter, task part-00001" in error and "this one is bad" in error
    (tmp_path / "bad").unlink()
    assert corpusmill(*command)[0] == 0 and not Manifest(Storage(str(run / "filter"))).quarantined


# ---- A fork is a new run with other thresholds; the run that it is made from does not change.

SHORT = "filter.thresholds.gopher_short_doc=100"


def make_fork(folder: Path, new: Path | None = None, *overrides: str) -> Path:
    new_folder = None if new is None else str(new)
    return Path(fork(str(folder), new_folder, list(overrides) or [SHORT], InlineEngine(), Progress(False))[0])


@pytest.mark.parametrize("shares", [True, False])
def test_a_fork_equals_a_fresh_run(
    tmp_path: Path, base: Path, tree: Callable, make_documents, finished_ingest, texts, shares: bool
) -> None:
    source = tmp_path / "run"
    if shares:
        shutil.copytree(base, source)
    else:
        new_run(source, make_documents, finished_ingest, texts[:150])
    before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file() and path.name != "log.jsonl"}
    shutil.copytree(source, tmp_path / "fresh")
    forked = make_fork(source)
    filter_stage(tmp_path / "fresh", SHORT)
    assert forked == tmp_path / "run-2" and tree(forked) == tree(tmp_path / "fresh")
    assert {path: path.read_bytes() for path in before} == before
    shared = [path for path in forked.rglob("*.parquet") if path.samefile(source / path.relative_to(forked))]
    assert {path.parent.parent.name for path in shared} >= {"ingest"} and not [path for path in shared if "filter/report" in str(path)]
    for folder, event in ((source, "fork"), (forked, "forked")):
        line = json.loads((folder / "log.jsonl").read_text().splitlines()[-1])
        assert (line["event"], line["fields"]) == (event, {"set": [SHORT], "parent": "../run"} if event == "forked" else {"set": [SHORT]})
    assert make_fork(forked) == tmp_path / "run-3"  # its own thresholds again: they are decided, and nothing changes


def test_a_fork_goes_on_with_its_later_stages(tmp_path: Path, crawl: Path, corpusmill: Callable, tree: Callable) -> None:
    (tmp_path / "recipe.yaml").write_text("ingest: {}\nfilter: {steps: [gopher_quality]}\ndedup: {}\n")
    run = ("run", tmp_path / "recipe.yaml", *sorted(crawl.iterdir()), "--engine", "inline", "--output")
    short = "filter.thresholds.gopher_short_doc=5"
    assert corpusmill(*run, tmp_path / "a")[0] == 0 and corpusmill(*run, tmp_path / "fresh", "--set", short)[0] == 0
    code, out, _ = corpusmill("fork", tmp_path / "a", tmp_path / "b", "--set", short, "--engine", "inline")
    assert code == 0 and f"corpusmill run {tmp_path / 'b'}" in out.decode()
    found = json.loads(corpusmill("status", tmp_path / "b", "--json")[1])
    assert [(stage["name"], stage["status"]) for stage in found["stages"]] == [
        ("ingest", "complete"), ("filter", "complete"), ("dedup", "not run"),
    ]  # fmt: skip
    assert corpusmill("verify", tmp_path / "b")[0] == 0
    assert corpusmill("run", tmp_path / "b", "--engine", "inline")[0] == 0
    assert tree(tmp_path / "b") == tree(tmp_path / "fresh")


@pytest.mark.parametrize("row", [0, 2])
def test_a_killed_fork_is_no_run_and_is_made_again(tmp_path: Path, base: Path, tree: Callable, corpusmill: Callable, row: int) -> None:
    source = tmp_path / "run"
    shutil.copytree(base, source)

    def killed() -> None:
        killed_at(row, after=False)
        make_fork(source)

    assert os.WTERMSIG(in_child(killed)) == signal.SIGKILL
    for command in (("status", tmp_path / "run-2"), ("verify", tmp_path / "run-2"), ("run", tmp_path / "run-2")):
        assert corpusmill(*command)[0] != 0
    forked = make_fork(source)
    shutil.copytree(base, tmp_path / "fresh")
    filter_stage(tmp_path / "fresh", SHORT)
    assert forked == tmp_path / "run-2" and tree(forked) == tree(tmp_path / "fresh") and tree(source) == tree(base)


@pytest.mark.long
def test_a_fork_on_a_store_is_copied_by_the_store(tmp_path: Path, base: Path, s3: Any, tree: Callable) -> None:
    bucket = s3.bucket("fork")
    for path in base.rglob("*"):
        if path.is_file() and path.name not in (".lock", lease.LEASE, "manifest.jsonl", "log.jsonl", "metrics.jsonl", "progress.json"):
            Storage(f"{bucket}/run").write_bytes(path.relative_to(base).as_posix(), path.read_bytes())
    for stage in ("ingest", "filter"):
        Storage(f"{bucket}/run/{stage}").write_bytes("manifest/00000000.json", (base / stage / "manifest.jsonl").read_bytes())
    before = s3.tree(f"{bucket}/run")
    new, _ = fork(f"{bucket}/run", None, [SHORT], InlineEngine(), Progress(False))
    shutil.copytree(base, tmp_path / "fresh")
    filter_stage(tmp_path / "fresh", SHORT)
    assert new == f"{bucket}/run-2" and s3.tree(new) == tree(tmp_path / "fresh") and s3.tree(f"{bucket}/run") == before
    with pytest.raises(InputError, match="lies on another disk or store"):
        fork(str(base), f"{bucket}/other", [SHORT], InlineEngine(), Progress(False))


def test_what_fork_refuses(tmp_path: Path, base: Path, corpusmill: Callable) -> None:
    for overrides, sentence in (
        ((), "say what is to differ"),
        (("--set", "filter.word_rule=whitespace"), "only filter.thresholds can be changed"),
        (("--set", "filter.thresholds.shrot=1"), "no such rule"),
    ):
        code, _, error = corpusmill("fork", base, tmp_path / "new", *overrides)
        assert code == 2 and sentence in error and not (tmp_path / "new").exists()
        for command in (("fork", base, tmp_path / "new"), ("retune", base))[: len(overrides)]:  # `retune` of nothing is no error
            code, out, error = corpusmill(*command, *overrides, "--json")
            said = json.loads(out)
            assert code == said["exit_code"] == 2 and sentence in said["message"] and sentence not in error
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/letter.txt").write_text("dear")
    with pytest.raises(InputError, match=r"holds something other than a run \(it has letter.txt\)"):
        make_fork(base, tmp_path / "taken")
    with pytest.raises(InputError, match="is a run already"):
        make_fork(base, base)
    shutil.copytree(base, tmp_path / "run")
    (tmp_path / "run/ingest/data/part-00000.parquet").unlink()
    with pytest.raises(InputError, match=r"run/ingest/data/part-00000.parquet: this file of the manifest is missing"):
        make_fork(tmp_path / "run", tmp_path / "new")
    Manifest(Storage(str(tmp_path / "run/filter"))).reopen()
    with pytest.raises(InputError, match="its stage filter is not finished"):
        make_fork(tmp_path / "run", tmp_path / "new")
    assert not (tmp_path / "new/ingest").exists()
