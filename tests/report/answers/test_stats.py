"""Compares `stats` with numpy and pandas over the same reports."""

import csv
import io
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from built_run import report, write_run

from corpusmill.report.answers.stats import QUANTILES, Spread, read_columns
from corpusmill.report.query.run import open_run


def frame(run: Path, stage: str, kind: str = "report") -> pd.DataFrame:
    return ds.dataset(run / stage / kind).to_table().to_pandas()


def same(spread: Spread, values: pd.Series) -> None:
    """Compares with numpy, value by value."""
    numbers = values.astype(float).to_numpy()
    present = numbers[~np.isnan(numbers)]
    assert (spread.count, spread.missing) == (len(present), len(numbers) - len(present))
    if not len(present):
        assert spread.mean is None and spread.minimum is None and spread.quantiles == (None,) * len(QUANTILES)
        return
    assert (spread.minimum, spread.maximum) == (present.min(), present.max())
    assert spread.mean == pytest.approx(present.mean(), rel=1e-12)
    assert spread.quantiles == pytest.approx(np.quantile(present, QUANTILES), rel=1e-12)
    if len(present) == 1:
        assert spread.deviation is None
    else:
        assert spread.deviation == pytest.approx(present.std(ddof=1), rel=1e-9)


@pytest.mark.parametrize("stage", ["filter", "dedup"])
def test_each_column_is_as_numpy_has_it(run_folder: Path, stage: str) -> None:
    found, columns = read_columns(open_run(str(run_folder)), stage)
    table = frame(run_folder, stage)
    assert found == stage and columns and {"id", "kept", "failed", "url"}.isdisjoint(column.name for column in columns)
    for column in columns:
        same(column.kept, table.loc[table["kept"], column.name])
        same(column.dropped, table.loc[~table["kept"], column.name])


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Makes a report with every value that is no plain number."""
    chance = np.random.default_rng(3)
    values = {
        "floats": [*chance.normal(1e6, 1e-3, 500), math.nan, math.inf, -math.inf, None],
        "whole": [*chance.integers(-5, 5, 503).tolist(), None],
        "flag": [*(chance.random(503) < 0.3).tolist(), None],
        'a "quoted" name': chance.random(504).tolist(),
        "nothing": [None] * 504,
    }
    rows = [{"id": f"{n}", "kept": n % 3 > 0, "failed": [] if n % 3 else ["r", "r"], "chars_in": 3, "chars_out": 3,
             **{name: column[n] for name, column in values.items()}} for n in range(504)]  # fmt: skip
    types = [pa.float64(), pa.int32(), pa.bool_(), pa.float32(), pa.float64()]
    run = write_run(tmp_path_factory.mktemp("odd") / "run", ())
    run.stage("filter", [{"report/part-00000.parquet": report(rows, list(map(pa.field, values, types)))}])
    return run.folder


def test_values_that_are_no_numbers(odd: Path) -> None:
    """NaN and null are missing, true is 1, and infinite values count in all statistics but the deviation."""
    table = frame(odd, "filter")
    columns = {column.name: column for column in read_columns(open_run(str(odd)), "filter")[1]}
    for name in ("whole", "flag", 'a "quoted" name', "nothing"):
        same(columns[name].kept, table.loc[table["kept"], name])
        same(columns[name].dropped, table.loc[~table["kept"], name])
    floats = table.loc[table["kept"], "floats"].to_numpy()
    spread = columns["floats"].kept
    assert spread.missing == int(np.isnan(floats).sum()) and spread.maximum == np.nanmax(floats)
    assert spread.deviation == pytest.approx(floats[np.isfinite(floats)].std(ddof=1), rel=1e-6)


def test_all_columns_are_of_the_same_shards(run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns are read by several queries; where the last one's pages are damaged, the first leave out that shard, too."""
    run = Path(shutil.copytree(run_folder, tmp_path / "run"))
    shard = run / "filter/report/part-00000.parquet"
    column = pq.ParquetFile(shard).metadata.row_group(0).column(pq.ParquetFile(shard).schema_arrow.names.index("language_score"))
    content = bytearray(shard.read_bytes())
    begin = column.data_page_offset
    content[begin : begin + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    shard.write_bytes(content)
    monkeypatch.setattr("corpusmill.report.answers.stats.VALUES", 1)
    opened = open_run(str(run))
    _, columns = read_columns(opened, "filter")
    rest = pq.read_table(run / "filter/report/part-00001.parquet").to_pandas()
    assert opened.warnings and len(columns) > 3
    for found in columns:
        same(found.kept, rest.loc[rest["kept"], found.name])
        same(found.dropped, rest.loc[~rest["kept"], found.name])


def test_the_terminal(corpusmill, run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for arguments in ((), ("--stage", "dedup")):
        code, out, _ = corpusmill("stats", run_folder, *arguments)
        assert code == 0 and all(len(line) <= 80 for line in out.decode().splitlines())
    _, out, _ = corpusmill("stats", run_folder, "--column", "words")
    text = out.decode()
    kept = frame(run_folder, "filter").query("kept")["words"]
    assert "fails if < 20 (short), or > 100,000 (never)" in text and f"{kept.median():,.4g}" in text


def test_csv_and_json_have_the_same_figures(corpusmill, run_folder: Path) -> None:
    _, out, _ = corpusmill("stats", run_folder, "--csv")
    rows: list[dict[str, Any]] = list(csv.DictReader(io.StringIO(out.decode())))
    _, out, _ = corpusmill("stats", run_folder, "--json")
    columns = json.loads(out)["columns"]
    assert [(row["column"], row["decision"]) for row in rows] == [(c["column"], d) for c in columns for d in ("kept", "dropped")]
    for row, figures in zip(rows, [c[d] for c in columns for d in ("kept", "dropped")], strict=True):
        for name, value in figures.items():
            assert row[name] == "" if value is None else float(row[name]) == value


def test_what_programs_read_tells_of_damage_too(tmp_path: Path, corpusmill: Any) -> None:
    """The message on missing data is on standard error, because it is no row."""
    run = write_run(tmp_path / "run", ("ingest", "filter"))
    shard = run.folder / "filter" / "report" / "part-00001.parquet"
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    filtered = ("--stage", "filter", "--json")
    for name, *options in (("inspect", *filtered), ("sample", *filtered), ("stats", *filtered), ("query", "FROM filter_report", "--csv")):
        code, out, error = corpusmill(name, run.folder, *options)
        assert code == 0 and out and b"Note" not in out
        assert "Note: " in error and "part-00001.parquet" in error
