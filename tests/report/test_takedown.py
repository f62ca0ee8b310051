"""Tests takedowns: the same files as a new run with the list has, nothing left of the texts, kills, sets, indexes, and bad input."""

import gzip
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from dedup_runs import words
from killing import in_child, killed_at
from tokenizers import Tokenizer
from typer.testing import CliRunner

from corpusmill.cli import app
from corpusmill.dedup.index import kept_ids
from corpusmill.ingest import takedown as takedown_of_ingest
from corpusmill.pipeline.engine import InlineEngine
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.run import execute, new_plan, plan_of_existing
from corpusmill.pipeline.shards import OutputFile
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_shards import TokenShards
from corpusmill.pipeline.watch.progress import Progress
from corpusmill.report.page.html import write_report
from corpusmill.report.takedown import Takedown, Wanted, elsewhere, records
from corpusmill.report.whole.verify import verify
from corpusmill.tokenize.append import append
from corpusmill.tokenize.export.export import export

#: Words that only documents to be taken down have.
SECRET = "zymurgy quokka"
RECIPE = """
ingest: {{shard_mb: 1, task_mb: 1{more}}}
filter: {{steps: [{{gopher_quality: {{}}}}], thresholds: {{gopher_enough_stop_words: off, gopher_below_alpha_threshold: off}}}}
dedup: {{minhash: {{bands: 20, rows: 4}}, alarm: warn{index}}}
tokenizer: {{vocab_size: 600, minimum_frequency: 1}}
tokens: {{validation_share: 0.1}}
"""


def write_crawl(path: Path, seed: int, count: int = 60, secret: str = SECRET) -> Path:
    """Writes pages of three hosts. Every tenth has the secret words; its near copy has other words, and its exact copy a short text that
    the filter drops."""
    rows = []
    for number in range(count):
        text = words(80, 1000 * seed + number)
        rows.append({"url": f"http://{'abc'[number % 3]}.test/{seed}/{number}", "text": " ".join(text)})
        if number % 10 == 0:
            rows[-1]["text"] += f" {secret}"
            rows.append({"url": f"http://copy.test/{seed}/{number}", "text": " ".join(["other", *text])})
            rows.append({"url": f"http://same.test/{seed}/{number}", "text": rows[-2]["text"]})
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(lines) if path.suffix == ".gz" else lines)
    return path


def perform(plan) -> None:  # type: ignore[no-untyped-def]
    execute(plan, InlineEngine(), Progress(False))


def make_run(folder: Path, *inputs: Path, list_: Path | None = None, index: str = "", last: str | None = None) -> str:
    folder.parent.mkdir(exist_ok=True)
    recipe = folder.parent / f"{folder.name}.yaml"
    recipe.write_text(RECIPE.format(more=f", takedown: {list_}" if list_ else "", index=index))
    perform(new_plan(str(folder), str(recipe), [str(path) for path in inputs], last=last))
    return str(folder)


def take(*folders: str, list_: Path, mask: bool = False, copies: bool = True, contains: str = "", **entries: list[str]) -> Takedown:
    wanted = Wanted(entries, [contains] if contains else [], "T-1", "asked by mail", "anna", copies)  # type: ignore[arg-type]
    made = Takedown(folders, wanted, str(list_), mask)
    made.write(perform, lambda _: None)
    return made


def outputs(run: str) -> dict[str, bytes]:
    """The files that a run's stages wrote, without manifests."""
    root = Path(run)
    found = (path for stage in ("ingest", "filter", "dedup", "tokenizer", "tokens") for path in sorted(root.glob(f"{stage}/**/*")))
    files = [path for path in found if path.is_file() and path.name != "manifest.jsonl" and path.parent.name != "manifest"]
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def texts(run: str) -> str:
    """Everything in a run's files that can be read as text: Parquet, decoded tokens, and the bytes of all others."""
    found = []
    for path in sorted(path for path in Path(run).rglob("*") if path.is_file()):
        if path.suffix == ".parquet":
            found.append(json.dumps(pq.read_table(path).to_pylist(), ensure_ascii=False, default=str))
        else:
            found.append(path.read_bytes().decode("utf-8", "replace"))
    for split in ("train", "validation"):
        if Path(run, "tokens", split).exists():
            shards, tokenizer = TokenShards(f"{run}/tokens/{split}"), Tokenizer.from_file(f"{run}/tokenizer/tokenizer.json")
            found += [tokenizer.decode(shards.tokens(number).tolist()) for number in range(len(shards.shards))]
    return "\n".join(found)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("takedown")
    run = make_run(folder / "run", write_crawl(folder / "one.jsonl", 1), write_crawl(folder / "two.jsonl", 2, 2000, ""))
    write_report(run)
    assert SECRET in texts(run)
    return run


@pytest.fixture
def run(finished: str, tmp_path: Path) -> str:
    return shutil.copytree(finished, tmp_path / "run").as_posix()


@pytest.mark.parametrize("how", [{"contains": SECRET}, {"url": [f"https://www.{'abc'[n % 3]}.test/1/{n}/#x" for n in range(0, 60, 10)]}])
def test_the_files_are_those_of_a_new_run_with_the_list(run: str, finished: str, tmp_path: Path, how: dict) -> None:  # type: ignore[type-arg]
    if "url" in how:  # `www.` is another host here
        how = {"url": [url.replace("www.", "") for url in how["url"]]}
    made = take(run, list_=tmp_path / "list.jsonl", **how)
    (taken,) = made.taken
    assert len(taken.documents) == 18 and len(taken.copies) == (6 if "contains" in how else 12)
    assert taken.tokens == sum(row["tokens"] for row in taken.documents) > 6 * 80
    folder = Path(finished).parent
    fresh = make_run(tmp_path / "fresh/run", folder / "one.jsonl", folder / "two.jsonl", list_=tmp_path / "list.jsonl")
    assert outputs(run) == outputs(fresh)
    assert SECRET in texts(finished) and SECRET not in texts(run)
    assert not any(check.faults for check in verify(run))
    report = pq.read_table(Path(run, "ingest/report")).to_pylist()
    rows = [row for row in report if row["failed"] == ["takedown"]]
    assert len(rows) == 18 and {row["reason"] for row in rows} == {"taken down (T-1)"} and not any(row["kept"] for row in rows)
    (record,) = records(Storage(run))
    assert record.documents == taken.documents and record.ended
    assert record.about["who"] == "anna" and record.about["reason"] == "asked by mail" and record.about["before"] != record.about["after"]


@pytest.mark.parametrize("every", [17, pytest.param(1, marks=pytest.mark.long)])
def test_killed_at_any_row_the_command_given_again_ends_alike(run: str, tmp_path: Path, every: int) -> None:
    once = shutil.copytree(run, tmp_path / "once").as_posix()
    take(once, list_=tmp_path / "list", contains=SECRET)
    status, kills = 1, 0
    for number in range(0, 400, every):
        again, list_ = shutil.copytree(run, tmp_path / "again").as_posix(), tmp_path / "again-list"
        status = in_child(_take_killed, killed_at, (number // 2, bool(number % 2)), again, list_)
        if not status:
            break
        kills += 1
        take(again, list_=list_, contains=SECRET)
        assert outputs(again) == outputs(once), number
        assert list_.read_bytes() == (tmp_path / "list").read_bytes()
        assert [record.documents for record in records(Storage(again))] == [record.documents for record in records(Storage(once))]
        shutil.rmtree(again)
        list_.unlink()
    assert kills > 3 and not status


def test_killed_between_two_files_of_a_shard_it_goes_on_without_the_crawl(tmp_path: Path) -> None:
    crawl = write_crawl(tmp_path / "crawl.jsonl", 1)
    before, once = make_run(tmp_path / "before", crawl, last="ingest"), str(tmp_path / "once")
    crawl.unlink()
    shutil.copytree(before, once)
    take(once, list_=tmp_path / "list", contains=SECRET)
    status, number = 1, 0
    while status:
        again, list_ = shutil.copytree(before, tmp_path / f"again-{number}").as_posix(), tmp_path / f"list-{number}"
        status = in_child(_take_killed, _killed_at_file, (number,), again, list_)
        take(again, list_=list_, contains=SECRET)
        assert outputs(again) == outputs(once), number
        number += 1
    assert number == 5  # data and report are written beside, and then in their place


def _take_killed(prepare: Callable[..., None], how: tuple[int, ...], run: str, list_: Path) -> None:
    prepare(*how)
    take(run, list_=list_, contains=SECRET)


def _killed_at_file(number: int) -> None:
    write, written = takedown_of_ingest.publish, iter(range(1_000_000))

    def watched(storage: Storage, relative: str, content: Any) -> OutputFile:
        if next(written) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return write(storage, relative, content)

    takedown_of_ingest.publish = watched


def test_without_the_crawl_and_with_several_shards(tmp_path: Path) -> None:
    crawl = write_crawl(tmp_path / "crawl.jsonl.gz", 1, 5000)
    run, fresh = make_run(tmp_path / "run", crawl, last="dedup"), tmp_path / "fresh/run"
    assert len(list(Path(run, "ingest/data").iterdir())) > 2
    take(run, list_=tmp_path / "list.jsonl", domain=["a.test"], copies=False)
    make_run(fresh, crawl, list_=tmp_path / "list.jsonl", last="dedup")
    assert outputs(run) == outputs(str(fresh))
    hidden = crawl.rename(tmp_path / "gone.gz")
    take(run, list_=tmp_path / "list.jsonl", domain=["B.TEST"], copies=False)
    hidden.rename(crawl)
    shutil.rmtree(fresh)
    make_run(fresh, crawl, list_=tmp_path / "list.jsonl", last="dedup")
    assert outputs(run) == outputs(str(fresh))
    assert {row["url"].split("/")[2] for row in pq.read_table(Path(run, "ingest/data")).to_pylist()} == {"c.test", "copy.test", "same.test"}


def test_an_entry_that_is_gone_from_the_list_is_refused(tmp_path: Path) -> None:
    crawl, list_ = write_crawl(tmp_path / "crawl.jsonl", 1), tmp_path / "list.jsonl"
    list_.write_text('{"domain": "a.test", "ticket": "1"}\n{"domain": "b.test"}\n')
    run = make_run(tmp_path / "run", crawl, list_=list_, last="ingest")
    list_.write_text('{"domain": "b.test"}\n')
    with pytest.raises(InputError, match="20 documents of this run were taken down by entries that the list no longer has"):
        perform(plan_of_existing(run))


def test_in_a_set_tokens_are_masked_and_others_keep_their_places(run: str, tmp_path: Path) -> None:
    folder = str(tmp_path / "set")
    append(folder, run)
    before = {split: TokenShards(f"{folder}/{split}") for split in ("train", "validation")}
    tokens = {split: np.array(shards.tokens(0)) for split, shards in before.items()}
    (taken,) = take(folder, run, list_=tmp_path / "list.jsonl", contains=SECRET).taken
    masked = 0
    for split, shards in before.items():
        now = TokenShards(f"{folder}/{split}")
        now.verify()
        expected = tokens[split].copy()
        for row in shards.index(0).to_pylist():
            if row["id"] in taken.ids:
                expected[row["first"] : row["first"] + row["tokens"]] = now.end_of_text_id
                masked += row["tokens"]
        assert np.array_equal(now.tokens(0), expected)
    assert masked == taken.tokens


def test_on_a_store_it_ends_alike(finished: str, tmp_path: Path, s3: Any) -> None:
    bucket, sources = s3.bucket("takedown"), [str(Path(finished).parent / name) for name in ("one.jsonl", "two.jsonl")]
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(more="", index=""))
    perform(new_plan(f"{bucket}/run", str(tmp_path / "recipe.yaml"), sources))
    made = Takedown([f"{bucket}/run"], Wanted({}, [SECRET], "T-1"), f"{bucket}/list.jsonl")
    assert not list(elsewhere(made))
    made.write(perform, lambda _: None)
    s3.download(f"{bucket}/run", tmp_path / "run")
    (tmp_path / "list.jsonl").write_bytes(Storage(bucket).read_bytes("list.jsonl"))
    fresh = make_run(tmp_path / "fresh/run", *map(Path, sources), list_=tmp_path / "list.jsonl")
    assert outputs(str(tmp_path / "run")) == outputs(fresh) and SECRET not in texts(str(tmp_path / "run"))


def test_an_export_that_is_given_is_marked(run: str, tmp_path: Path) -> None:
    folder = str(tmp_path / "export")
    export(run, "nanogpt", folder)
    take(run, folder, list_=tmp_path / "list.jsonl", domain=["a.test"], copies=False)
    assert json.loads(Path(folder, "export.json").read_text())["stale"] == "documents were taken down (T-1); export again."
    export(run, "nanogpt", folder, force=True)
    assert "stale" not in json.loads(Path(folder, "export.json").read_text())


def test_masked_shards_of_a_run_stay_and_the_tokenizer_too(run: str, tmp_path: Path) -> None:
    tokenizer, shards = Path(run, "tokenizer/tokenizer.json").read_bytes(), TokenShards(f"{run}/tokens/train")
    index = shards.index(0)
    (taken,) = take(run, list_=tmp_path / "list.jsonl", contains=SECRET, mask=True).taken
    now = TokenShards(f"{run}/tokens/train")
    now.verify()
    assert Path(run, "tokenizer/tokenizer.json").read_bytes() == tokenizer and now.index(0).equals(index)
    changed = {now.locate(0, int(place)).id for place in np.flatnonzero(np.array(now.tokens(0)) == now.end_of_text_id)} & taken.ids
    assert changed == taken.ids & set(index["id"].to_pylist()) and changed
    faults = [fault for check in verify(run) for fault in check.faults if check.name == "tokens" and "sha256" in fault]
    assert not faults  # the manifest has the new files


def test_two_crawls_of_one_index_forget_together(tmp_path: Path) -> None:
    one, two = write_crawl(tmp_path / "one.jsonl", 1), tmp_path / "two.jsonl"
    rows = [json.loads(line) for line in one.read_text().splitlines()]
    two.write_text("".join(json.dumps({**row, "url": row["url"].replace(".test", ".example")}) + "\n" for row in rows))

    def both(folder: Path, list_: Path | None = None) -> list[str]:
        index = f", index: {{path: {folder / 'index'}}}"
        return [make_run(folder / name, crawl, list_=list_, index=index, last="dedup") for name, crawl in (("one", one), ("two", two))]

    list_ = tmp_path / "list.jsonl"
    first, second = both(tmp_path / "runs")
    with pytest.raises(InputError, match=r"later entries \(two\)"):
        take(first, list_=list_, contains=SECRET)
    assert not list_.exists()
    take(second, first, list_=list_, contains=SECRET)
    assert sorted(outputs(first)) == sorted(outputs(both(tmp_path / "fresh", list_)[0]))
    for name in ("one", "two"):
        for stage in ("ingest", "filter", "dedup"):
            for kind in ("data", "report"):
                tables = [pq.read_table(tmp_path / folder / name / stage / kind) for folder in ("runs", "fresh")]
                assert tables[0].equals(tables[1])
    assert kept_ids(str(tmp_path / "runs/index")) == kept_ids(str(tmp_path / "fresh/index"))
    assert SECRET not in texts(str(tmp_path / "runs/index"))


def test_other_runs_beside_it_are_named(run: str, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "fork")
    made = Takedown([run], Wanted({"domain": ["a.test"]}, copies=False), str(tmp_path / "list.jsonl"))
    assert list(elsewhere(made)) == [f"documents of these are also in {tmp_path}/fork ({len(made.taken[0].documents):,}); give it as well."]
    assert not (tmp_path / "list.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--domains", "com"], "'com' is no domain, or one under which anybody has pages"),
        (["--domains", "*"], "'\\*' is no domain"),
        (["--urls", "not an address"], "'not an address' is no address of a page"),
        (["--list", "bad.jsonl"], r"bad.jsonl:2: not a takedown: it has none, or several, of id, url and domain"),
    ],
)
def test_bad_input_is_a_sentence(run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.jsonl").write_text('{"id": "a"}\n{"id": "a", "url": "http://a.test"}\n')
    result = CliRunner().invoke(app, ["takedown", run, *arguments, "--write"])
    assert isinstance(result.exception, InputError)
    with pytest.raises(InputError, match=message):
        raise result.exception
    assert not Path("takedown.jsonl").exists() and not Path(run, "takedown").exists()


def test_the_command_shows_first_and_writes_then(run: str, tmp_path: Path) -> None:
    command = ["takedown", run, "--domains", "a.test", "--no-copies", "--ticket", "7"]
    shown = CliRunner().invoke(app, command).output
    assert "Nothing is written yet" in shown and not (tmp_path / "takedown.jsonl").exists()
    lines = CliRunner().invoke(app, [*command, "--csv"]).output.splitlines()
    assert lines[0] == "run,id,url,why,crawled,dropped_by,characters,tokens"
    assert len(lines) - 1 == sum("//a.test/" in row["url"] for row in pq.read_table(Path(run, "ingest/data"), columns=["url"]).to_pylist())
    page = CliRunner().invoke(app, [*command, "--html"]).output
    assert page.startswith("<!doctype html>") and page.count("<td>domain</td>") == len(lines) - 1 and "7" in page
    assert CliRunner().invoke(app, [*command, "--write"]).exit_code == 0
    assert json.loads((tmp_path / "takedown.jsonl").read_text()) == {"domain": "a.test", "ticket": "7"}
    assert "Nothing to take down here.\n" in CliRunner().invoke(app, command).output
    assert "Nothing to take down here. Choose documents by --urls" in CliRunner().invoke(app, ["takedown", run]).output
