"""Tests `corpusmill push` against a server that speaks the hub's API: what is sent, what stays here, resuming, and refusals."""

import io
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from built_run import write_run
from hub_server import READER, WRITER, Hub, hub_server
from huggingface_hub import constants
from inline_run import run_inline

from corpusmill.report.card import push

EMAIL = "jane.doe@firma.de"
RECIPE = """
ingest: {shard_mb: 1}
filter: {steps: [{pii: {}}, {gopher_quality: {}}]}
dedup: {}
"""
Command = Callable[..., tuple[int, bytes, str]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Makes a run in which filter removes 12 short documents with an address, and dedup the copy of one document."""
    folder = tmp_path_factory.mktemp("push")
    draw = random.Random(7)
    common = ["the", "of", "and", "to", "with", "that", "have", "be"]
    texts = [" ".join(draw.choice(common) if place % 3 else f"word{draw.randrange(10**6)}" for place in range(9000)) for _ in range(40)]
    texts += [texts[0], *(f"Write to {EMAIL} about number {number}." for number in range(12))]
    draw.shuffle(texts)
    rows = [{"url": f"http://host.test/{number}", "text": text} for number, text in enumerate(texts)]
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run_inline(folder, RECIPE, folder / "in.jsonl")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with hub_server() as found:
        monkeypatch.setattr(constants, "ENDPOINT", found.address)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # other tests of this process may have set it
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
        monkeypatch.setenv("HF_TOKEN", WRITER)
        yield found


def rows_of(hub: Hub, folder: str) -> list[dict[str, object]]:
    files = hub.files["me/pages"]
    return [row for path in sorted(files) if path.startswith(folder) for row in pq.read_table(io.BytesIO(files[path])).to_pylist()]


def test_without_yes_nothing_is_sent(run: Path, hub: Hub, corpusmill: Command) -> None:
    code, out, _ = corpusmill("push", run, "me/pages")
    said = out.decode()
    assert code == 0
    assert not hub.requests
    assert f"me/pages at {hub.address} (private" in said
    assert "40 documents in" in said and "12 documents of" in said and "--licence" in said and "--yes" in said


def test_what_is_sent(run: Path, hub: Hub, corpusmill: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(push, "FILES", 2)
    assert corpusmill("push", run, "me/pages", "--yes", "--licence", "odc-by")[0] == 0
    assert hub.private == {"me/pages": True}
    files = hub.files["me/pages"]
    kept = sorted((run / "dedup/data").glob("*.parquet"))
    assert len(kept) > 1
    assert all(files[f"dedup/data/{path.name}"] == path.read_bytes() for path in kept)
    removed = rows_of(hub, "removed/filter/")
    assert len(removed) == 12 and all("gopher_short_doc" in row["failed"] and row["stage"] == "filter" for row in removed)  # type: ignore[operator]
    assert {row["text"] for row in removed} == {f"Write to email@example.com about number {number}." for number in range(12)}
    (copy,) = rows_of(hub, "removed/dedup/")
    assert copy["failed"] == ["exact_duplicate"] and copy["text"] in [row["text"] for row in rows_of(hub, "dedup/")]
    assert all(len(paths) <= 2 for paths in hub.commits[:-1])
    assert hub.commits[-1] == ["README.md", "report.html"]
    assert "license: odc-by" in files["README.md"].decode()

    for path, content in files.items():
        (tmp_path / "copy" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "copy" / path).write_bytes(content)
    from datasets import load_dataset

    assert load_dataset(str(tmp_path / "copy"), split="train", cache_dir=str(tmp_path / "cache")).num_rows == 40
    assert load_dataset(str(tmp_path / "copy"), "removed", split="train", cache_dir=str(tmp_path / "cache")).num_rows == 13


def test_personal_data_stays_here(run: Path, hub: Hub, corpusmill: Command) -> None:
    """The run's own report shows the texts that the filter read. The report that is sent does not."""
    assert corpusmill("report", str(run))[0] == 0
    assert EMAIL in (run / "report.html").read_text()
    assert corpusmill("push", run, "me/pages", "--yes")[0] == 0
    for path, content in hub.files["me/pages"].items():
        shown = json.dumps(pq.read_table(io.BytesIO(content)).to_pylist()) if path.endswith(".parquet") else content.decode()
        assert EMAIL not in shown, path
    assert "The text is left out here" in hub.files["me/pages"]["report.html"].decode()


@pytest.mark.long
def test_a_killed_push_goes_on(run: Path, hub: Hub, tmp_path: Path) -> None:
    names = {"HF_ENDPOINT": hub.address, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path)}
    environment = {**os.environ, **names}
    command = [sys.executable, "-m", "corpusmill", "push", run, "me/pages", "--yes"]
    hub.stall_after = 2
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        assert hub.stalled.wait(120)
    finally:
        process.kill()
        process.wait()
    hub.resume.set()
    while hub.connections:  # what the killed process had sent is still being answered
        time.sleep(0.05)
    hub.stall_after = None
    assert len(hub.objects) == 2 and not hub.commits
    before = set(hub.objects)
    hub.requests.clear()
    assert subprocess.run(command, env=environment, stdout=subprocess.DEVNULL).returncode == 0
    sent = Counter(request.removeprefix("PUT /lfs/") for request in hub.requests if request.startswith("PUT"))
    assert not before & set(sent) and set(sent.values()) == {1}
    assert len(rows_of(hub, "dedup/")) == 40 and len(rows_of(hub, "removed/")) == 13


def test_a_second_push_sends_only_what_changed(run: Path, hub: Hub, corpusmill: Command) -> None:
    assert corpusmill("push", run, "me/pages", "--yes")[0] == 0
    files = hub.files["me/pages"]
    files |= {
        "other/data/a.parquet": b"",
        "notes.md": b"of the owner",
        "dedup/data/part-00099.parquet": b"of an earlier run",
        "filter/data/part-00000.parquet": b"",
    }
    hub.commits.clear()
    hub.requests.clear()
    assert corpusmill("push", run, "me/pages", "--yes", "--no-removed")[0] == 0
    assert not [request for request in hub.requests if request.startswith("PUT")]
    assert {"notes.md", "other/data/a.parquet"} <= set(files) and not [
        path for path in files if path.startswith(("removed/", "filter/")) or "99" in path
    ]
    assert len(rows_of(hub, "dedup/")) == 40 and "config_name: removed" not in files["README.md"].decode()


@pytest.mark.parametrize(
    ("token", "repository", "said", "code"),
    [
        (None, "me/pages", "push: no token for the hub; set HF_TOKEN, or log in with: hf auth login", 2),
        ("wrong-token", "me/pages", "push: the hub does not accept the token (of HF_TOKEN, or of hf auth login).", 2),
        (READER, "me/pages", "me/pages: the token has no right to write to this repository.", 2),
        (WRITER, "others/pages", "others/pages: the token has no right to write to this repository.", 2),
        (WRITER, "pages", "push: pages has no owner; expected OWNER/NAME.", 2),
        (WRITER, "me/a b", "push: me/a b is no name of a repository; expected OWNER/NAME.", 2),
    ],
)
def test_refusals(
    token: str | None, repository: str, said: str, code: int, run: Path, hub: Hub, corpusmill: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if token is None:
        monkeypatch.delenv("HF_TOKEN")
    else:
        monkeypatch.setenv("HF_TOKEN", token)
    status, out, error = corpusmill("push", run, repository, "--yes")
    assert status == code
    assert error.splitlines()[-1] == f"corpusmill: {said}"
    assert token is None or token not in out.decode() + error
    assert not hub.objects


def test_network_and_server_failures(run: Path, hub: Hub, corpusmill: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.broken = True
    code, _, error = corpusmill("push", run, "me/pages", "--yes")
    assert code == 1 and "the hub answered with an error" in error
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    code, _, error = corpusmill("push", run, "me/pages", "--yes")
    assert code == 1
    assert "sending to http://127.0.0.1:9 failed" in error and "the same command goes on" in error and WRITER not in error


def test_a_damaged_file_is_not_sent(run: Path, hub: Hub, corpusmill: Command, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    damaged = max((tmp_path / "run/dedup/data").glob("*.parquet"))
    damaged.write_bytes(damaged.read_bytes().replace(b"a", b"b"))
    code, _, error = corpusmill("push", tmp_path / "run", "me/pages", "--yes", "--no-removed")
    assert code == 2 and f"{damaged}: not the file that the run wrote" in error
    assert not hub.commits


def test_public_only_where_it_is_meant(run: Path, hub: Hub, corpusmill: Command) -> None:
    code, _, error = corpusmill("push", run, "me/pages", "--public")
    assert code == 2 and "--public needs --licence" in error
    assert corpusmill("push", run, "me/pages", "--public", "--licence", "odc-by", "--yes")[0] == 0
    assert hub.private == {"me/pages": False}
    code, _, error = corpusmill("push", run, "me/pages", "--yes")
    assert code == 2 and "everyone can read this repository" in error


def test_another_card_is_not_replaced(run: Path, hub: Hub, corpusmill: Command) -> None:
    mine = {"README.md": b"# Mine", "report.html": b"<p>Mine"}
    hub.files["me/pages"], hub.private["me/pages"] = dict(mine), True
    code, _, error = corpusmill("push", run, "me/pages", "--yes")
    assert code == 2 and "its README.md is not of corpusmill" in error
    assert hub.files["me/pages"] == mine


def test_unfinished_and_stale_runs(run: Path, hub: Hub, corpusmill: Command, tmp_path: Path) -> None:
    write_run(tmp_path / "half", ("ingest", "filter"))
    code, _, error = corpusmill("push", tmp_path / "half", "me/pages", "--yes")
    assert code == 2 and "only a finished run is published" in error
    code, _, error = corpusmill("push", tmp_path / "none", "me/pages", "--yes")
    assert code == 2 and "no such run" in error

    shutil.copytree(run, tmp_path / "stale")
    failed = {rule for path in (run / "filter/report").glob("*") for rules in pq.read_table(path)["failed"].to_pylist() for rule in rules}
    off = [word for rule in failed for word in ("--set", f"filter.thresholds.{rule}=off")]
    assert corpusmill("retune", tmp_path / "stale", *off)[0] == 0
    code, _, error = corpusmill("push", tmp_path / "stale", "me/pages", "--yes")
    assert code == 2 and "dedup is stale" in error
    assert corpusmill("push", tmp_path / "stale", "me/pages", "--yes", "--stale")[0] == 0
    assert "Stale: dedup" in hub.files["me/pages"]["README.md"].decode()
    assert not rows_of(hub, "removed/dedup/")
