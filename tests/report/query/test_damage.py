"""Tests damaged shards: the others are answered, and missing data is reported."""

import random
import shutil
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from corpusmill.pipeline.errors import InputError
from corpusmill.report.query.run import open_run

SHARD = "filter/report/part-00000.parquet"


@pytest.fixture
def run(run_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run_folder, tmp_path / "run"))


def rest(run: Path) -> list[str]:
    """Returns the ids of the other shard."""
    return pq.read_table(run / "filter/report/part-00001.parquet")["id"].to_pylist()


def overwrite(shard: Path, byte: int = 0xFF) -> None:
    """Overwrites every page of a shard, and leaves its footer whole."""
    content = bytearray(shard.read_bytes())
    end = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    content[4:end] = bytes([byte]) * (end - 4)
    shard.write_bytes(content)


def test_a_shard_that_is_cut_short_is_known_when_the_run_is_opened(run: Path) -> None:
    (run / SHARD).write_bytes((run / SHARD).read_bytes()[:-20])
    opened = open_run(str(run))
    assert len(opened.warnings) == 1 and "a shard is left out" in opened.warnings[0] and SHARD in opened.warnings[0]
    assert [id_ for (id_,) in opened.sql("SELECT id FROM filter_report").fetchall()] == rest(run)


def test_pages_that_are_damaged_show_when_they_are_read(run: Path) -> None:
    overwrite(run / SHARD)
    opened = open_run(str(run))
    assert not opened.warnings
    with pytest.raises(duckdb.Error):
        opened.table("filter_report").df()
    assert [id_ for (id_,) in opened.rows("SELECT id FROM filter_report")] == rest(run)
    assert opened.table("filter_report").pl()["id"].to_list() == rest(run)
    assert len(opened.warnings) == 1 and f"{SHARD}: damaged" in opened.warnings[0]
    assert opened.tables["filter_report"].files == ("filter/report/part-00001.parquet",)


def test_a_table_whose_shards_are_all_damaged(run: Path) -> None:
    for number in (0, 1):
        overwrite(run / f"filter/report/part-0000{number}.parquet")
    opened = open_run(str(run))
    with pytest.raises(InputError, match="there is no table 'filter_report'"):
        opened.rows("SELECT sum(words) FROM filter_report")
    assert len(opened.warnings) == 2 and "filter_report" not in opened.names
    assert len(opened.table("ingest_report")) == 60


def test_bits_that_flip_anywhere(run: Path) -> None:
    """For any flipped bit, the query is answered or names the unreadable shard; `verify` finds every one."""
    whole = (run / SHARD).read_bytes()
    first = pq.read_table(run / SHARD)["id"].to_pylist()
    chance = random.Random(7)
    found = 0
    for _ in range(6):
        content = bytearray(whole)
        content[chance.randrange(4, len(content) - 4)] ^= 1 << chance.randrange(8)
        (run / SHARD).write_bytes(content)
        opened = open_run(str(run))
        ids = [row[0] for row in opened.rows("SELECT id, COLUMNS(* EXCLUDE id) FROM filter_report")]
        assert ids[-len(rest(run)) :] == rest(run)
        assert len(ids) == len(rest(run)) + (0 if opened.warnings else len(first))
        found += bool(opened.warnings)
        verified = open_run(str(run), verify=True)
        assert len(verified.warnings) == 1 and verified.table("filter_report").to_arrow_table()["id"].to_pylist() == rest(run)
    assert found


def test_a_mistake_in_a_query_is_no_damage(run: Path) -> None:
    opened = open_run(str(run))
    with pytest.raises(InputError, match="boom"):
        opened.rows("SELECT error('boom') FROM filter_report")
    assert not opened.warnings and len(opened.table("filter_report")) == 56


def test_a_manifest_that_is_damaged(run: Path) -> None:
    (run / "filter/manifest.jsonl").write_bytes(b"\xff\xfe{\n")
    opened = open_run(str(run))
    assert "its manifest can't be read" in opened.warnings[0] and len(opened.table("dedup_report")) == 45
