"""One pass by threads: all rows, in the report's order, whatever the sizes of shards; damage is told once and in order."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_run import write_random_run

from corpusmill.report.explore.scan import Batch, sample, scan
from corpusmill.report.facts import near as nearest
from corpusmill.report.facts import scan as scanning
from corpusmill.report.facts.lengths import EDGES, QUANTILES, Lengths
from corpusmill.report.facts.near import Near
from corpusmill.report.read import Rule, RunReader


class Seen:
    """A measure that writes down which rows it saw, and where they lie."""

    columns = ("id", "kept", "failed")

    def __init__(self) -> None:
        self.rows: list[tuple[str, int, str]] = []
        self.sizes: list[int] = []

    def measure(self, batch: Batch) -> Any:
        places = [batch.place(row) for row in range(len(batch))]
        return [(p.shard, p.first, id_) for p, id_ in zip(places, batch.table["id"].to_pylist(), strict=True)]

    def add(self, measured: Any) -> None:
        self.rows += measured
        self.sizes.append(len(measured))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    write_random_run(tmp_path_factory.mktemp("scan") / "run", rows=900, shards=9)
    return tmp_path_factory.getbasetemp() / "scan0" / "run"


def expected(folder: Path) -> list[tuple[str, int, str]]:
    shards = sorted((folder / "filter" / "report").iterdir())
    return [(f"report/{s.name}", row, id_) for s in shards for row, id_ in enumerate(pq.read_table(s)["id"].to_pylist())]


@pytest.mark.parametrize("rows", [1, 50, 200, 10_000])
def test_every_row_once_and_in_order(folder: Path, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanning, "ROWS", rows)
    seen = Seen()
    scan(RunReader(str(folder)), "filter", [seen])
    assert seen.rows == expected(folder)
    assert max(seen.sizes) <= max(rows, 100)


def test_large_shards_come_in_pieces(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    shutil.copytree(folder, tmp_path / "run")
    for shard in (tmp_path / "run" / "filter" / "report").iterdir():
        pq.write_table(pq.read_table(shard), shard, row_group_size=17)
    monkeypatch.setattr(scanning, "ROWS", 40)
    seen = Seen()
    scan(RunReader(str(tmp_path / "run")), "filter", [seen])
    assert seen.rows == expected(folder) and max(seen.sizes) <= 40
    some = sample(RunReader(str(tmp_path / "run")), "filter", ["words"], 300)
    assert some is not None and 0 < len(some) < 900


def test_damaged_shards_are_told_in_their_order(folder: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(folder, tmp_path / "run")
    for number in (6, 2):
        (tmp_path / "run" / "filter" / "report" / f"part-0000{number}.parquet").write_bytes(b"no parquet")
    reader, seen = RunReader(str(tmp_path / "run")), Seen()
    scan(reader, "filter", [seen])
    assert ["part-00002" in w or "part-00006" in w for w in reader.warnings] == [True, True]
    assert "part-00002" in reader.warnings[0]
    assert seen.rows == [row for row in expected(folder) if "part-00002" not in row[0] and "part-00006" not in row[0]]


def test_shards_of_other_versions_are_put_together() -> None:
    first = pa.table({"a": [1, 2], "b": ["x", "y"]})
    joined = scanning._joined([first, pa.table({"a": [1.5]}), pa.table({"a": ["text"], "b": ["z"]})])
    assert joined["b"].to_pylist() == ["x", "y", None, "z"] and joined["a"].to_pylist()[:2] == [1, 2]


@given(st.lists(st.integers(0, 600_000), min_size=1, max_size=60))
def test_quantiles_and_bins_of_lengths(values: list[int]) -> None:
    import duckdb

    lengths = Lengths("came in", "ingest", "chars_in", False)
    for part in np.array_split(np.array(values), 3):
        lengths.add(*np.unique(part, return_counts=True))
    query = ", ".join(f"quantile_disc(v, {share})" for share in QUANTILES)
    assert [tuple(lengths.quantiles())] == duckdb.sql(f"SELECT {query} FROM (SELECT unnest({values}) AS v)").fetchall()
    assert lengths.bins().tolist() == np.histogram(values, [*EDGES, 10**12])[0].tolist()
    assert (lengths.documents, lengths.characters) == (len(values), sum(values))


@given(st.lists(st.lists(st.tuples(st.sets(st.sampled_from("abcdyz"), max_size=4), st.integers(0, 9)), max_size=6), max_size=5))
def test_the_nearest_are_the_same_by_batches_however_many_rules_there_are(pieces: list[list[tuple[set[str], int]]]) -> None:
    """Where there is no room for all rules, the stage's own come first, then the first by name."""
    schema = pa.schema(
        [("kept", pa.bool_()), ("failed", pa.list_(pa.string())), ("id", pa.string()), ("url", pa.string()), ("v", pa.int64())]
    )
    numbered = [(place, number, *row) for place, piece in enumerate(pieces) for number, row in enumerate(piece)]
    rows = [
        {"kept": not failed, "failed": sorted(failed), "id": f"{place}-{number}", "url": "", "v": v}
        for place, number, failed, v in numbered
    ]
    rules = [Rule("s", name, "v", "<", 5) for name in "zy"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nearest, "MAX_RULES", 4)
        parts = Near(rules, schema)
        for place in range(len(pieces)):
            some = [row for row in rows if row["id"].startswith(f"{place}-")]
            batch = Batch(None, "s", pa.Table.from_pylist(some, schema), [scanning.Stretch(place, "shard", 0, len(some))])  # type: ignore[arg-type]
            parts.add(parts.measure(batch))
    whole = Near(rules, schema)
    stretches = [scanning.Stretch(place, "shard", 0, len(piece)) for place, piece in enumerate(pieces)]
    whole.add(whole.measure(Batch(None, "s", pa.Table.from_pylist(rows, schema), stretches)))  # type: ignore[arg-type]
    others = sorted(whole.dropped.keys() - {"z", "y"})[:2]
    assert parts.dropped == {name: whole.dropped[name] for name in whole.dropped if name in {"z", "y", *others}}
    assert parts.kept == whole.kept
