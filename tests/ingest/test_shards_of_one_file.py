"""Tests a file of one stream or one row group: it becomes several shards of bounded size, with the same bytes however it is read."""

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpusmill.pipeline.engine import InlineEngine
from corpusmill.pipeline.manifest import Manifest
from corpusmill.pipeline.run import execute, new_plan
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.progress import Progress
from corpusmill.report.whole.verify import verify

MIB = 1 << 20


def texts(count: int, words: int) -> list[str]:
    """Makes texts of about 7 bytes a word; some are empty and give no document."""
    chance = random.Random(3)
    return ["" if number % 17 == 5 else " ".join(f"w{chance.randrange(99999):05}" for _ in range(words)) for number in range(count)]


def write(path: Path, found: list[str]) -> Path:
    lines = "".join(json.dumps({"url": f"http://x.test/{number}", "text": text}) + "\n" for number, text in enumerate(found)).encode()
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"text": found}), path, row_group_size=len(found), compression="zstd")
    else:
        path.write_bytes(gzip.compress(lines, 1))
    return path


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.parquet"])
def test_one_stream_gives_shards_of_bounded_size(tmp_path: Path, ingest, name: str) -> None:
    path = write(tmp_path / name, texts(700, 700))
    whole, cut = ingest(path, name="whole"), ingest(path, name="cut", shard_mb=1)
    assert [output.path for output in whole.rows[0].outputs] == ["data/part-00000.parquet", "report/part-00000.parquet"]
    (row,) = cut.rows
    names = [output.path for output in row.outputs]
    assert names == [f"{kind}/part-00000-{number:04}.parquet" for kind in ("data", "report") for number in range(4)]
    for kind in ("data", "report"):
        assert cut.tables[kind].equals(whole.tables[kind])
    for counted in ("rows_in", "kept", "dropped", "counts"):
        assert getattr(row, counted) == getattr(whole.rows[0], counted)
    sizes = [sum(map(len, pq.read_table(tmp_path / "cut/ingest" / name, columns=["text"])["text"].to_pylist())) for name in names[:4]]
    assert max(sizes) <= MIB and min(sizes[:-1]) > MIB - 10_000


def test_a_document_larger_than_a_shard_has_one_of_its_own(tmp_path: Path, ingest) -> None:
    small, large = "small" * 1000, "large" * 400_000
    found = ingest(write(tmp_path / "a.jsonl.gz", [small, large, small, small]), shard_mb=1)
    shards = [pq.read_table(tmp_path / "run/ingest" / output.path) for output in found.rows[0].outputs if output.path.startswith("data/")]
    assert [shard["text"].to_pylist() for shard in shards] == [[small], [large], [small, small]]


RECIPE = """
ingest: {shard_mb: 1}
filter: {steps: [{gopher_quality: {}}], thresholds: {gopher_enough_stop_words: 0}}
dedup: {minhash: {enabled: false}}
"""


@pytest.fixture(scope="module")
def one_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Makes a recipe, and an input of 4 MB of text in one stream."""
    folder = tmp_path_factory.mktemp("one_file")
    (folder / "recipe.yaml").write_text(RECIPE)
    return str(folder / "recipe.yaml"), str(write(folder / "a.jsonl.gz", texts(1200, 500)))


def perform(one_file: tuple[str, str], run: Path, last: str) -> None:
    plan = new_plan(str(run), one_file[0], [one_file[1]], last=last)
    execute(plan, InlineEngine(), Progress(False))


@pytest.fixture(scope="module")
def inline(one_file: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("inline") / "run"
    perform(one_file, run, "dedup")
    return run


def shards(run: Path, stage: str) -> list[str]:
    return sorted(path.name for path in (run / stage / "data").iterdir())


def test_later_stages_have_a_task_for_each_shard_and_all_is_whole(inline: Path) -> None:
    names = [f"part-00000-{number:04}.parquet" for number in range(4)]
    assert shards(inline, "ingest") == shards(inline, "filter") == shards(inline, "dedup") == names
    checks = verify(str(inline))
    assert {check.name: check.tasks for check in checks}["filter"] == 4
    assert not [fault for check in checks for fault in check.faults]


def test_killed_between_two_shards_the_task_is_done_again_with_the_same_bytes(
    one_file: tuple[str, str], inline: Path, tmp_path: Path, tree: Callable[[Path], dict[str, str]]
) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "corpusmill", "run", *one_file, "--output", str(run), "--engine", "inline", "--to", "ingest"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    there = run / "ingest/data/part-00000-0001.parquet"
    deadline = time.monotonic() + 120
    while not there.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = list(Manifest(Storage(str(run / "ingest")), read_only=True).tasks)
    assert 0 < len(shards(run, "ingest")) < 4 and not done, "it was killed too late"
    (run / "ingest/data/part-00000-0007.parquet").write_bytes(b"of a run with smaller shards")
    perform(one_file, run, "ingest")
    assert tree(run / "ingest") == tree(inline / "ingest")


@pytest.mark.long
@pytest.mark.parametrize("name", ["a.jsonl.gz", pytest.param("a.parquet", marks=pytest.mark.long)])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, ingest, name: str) -> None:
    """Compares the reader process and the writer, each by itself, for a file with three times as much text (24 and 8 shards)."""
    peaks = []
    for times in (2, 6):
        (tmp_path / str(times)).mkdir()
        path = write(tmp_path / str(times) / name, texts(600, 1000) * times)
        command = [sys.executable, "-m", "corpusmill", "run", tmp_path / "recipe.yaml", path, "--output", tmp_path / f"run-{times}"]
        (tmp_path / "recipe.yaml").write_text("ingest: {shard_mb: 1}\n")
        subprocess.run([*command, "--engine", "inline", "--to", "ingest"], check=True, capture_output=True)
        (row,) = [json.loads(line) for line in (tmp_path / f"run-{times}" / "metrics.jsonl").read_text().splitlines()]
        assert row["rows_in"] == 600 * times
        peaks.append((row["peak_mb"] - row["children_mb"], row["children_mb"]))
    for small, large in zip(*peaks, strict=True):
        assert large - small < 12, peaks  # for 16 MB more text
