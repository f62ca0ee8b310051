"""Compares histograms, lengths and personal data with numpy's results on the same values."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pytest

from corpusmill.report.page.figures import histogram_figure
from corpusmill.report.page.html import caption
from corpusmill.report.queries.rules import read_decisions
from corpusmill.report.queries.summary import HELD
from corpusmill.report.queries.values import (
    EDGES,
    QUANTILES,
    Histogram,
    plan,
    read_histograms,
    read_lengths,
    read_personal_data,
)  # fmt: skip
from corpusmill.report.query.run import Run
from corpusmill.report.read import DATA_STAGES


def floats_of(table: pa.Table, column: str) -> np.ndarray:
    """Returns a column as float64 with NaN for nulls."""
    values = table[column].cast(pa.int8()) if pa.types.is_boolean(table[column].type) else table[column]
    return np.asarray(pc.cast(values, pa.float64(), safe=False).to_numpy(zero_copy_only=False), np.float64)


@pytest.mark.parametrize("stage", DATA_STAGES)
def test_histograms_hold_every_value(run_folder: Path, random_run: Path, stage: str) -> None:
    for folder in (run_folder, random_run):
        with Run(str(folder)) as run:
            run.hold(HELD)
            d = read_decisions(run, stage)
            if d is None:
                continue
            table = ds.dataset(folder / stage / "report").to_table()
            for column, histogram in read_histograms(run, d).items():
                values, kept = floats_of(table, column), table["kept"].to_numpy()
                assert histogram.missing == int(np.isnan(values).sum())
                assert histogram.values == int((~np.isnan(values)).sum())
                edges = np.array(histogram.bins.edges)
                inside = (values >= edges[0]) & (values <= edges[-1])
                assert (histogram.below, histogram.above) == (int((values < edges[0]).sum()), int((values > edges[-1]).sum()))
                for counts, mask in ((histogram.kept, kept), (histogram.dropped, ~kept)):
                    expected, _ = np.histogram(values[mask & inside], edges)
                    on_edges = int(np.isin(values, edges).sum())  # where the last digit decides
                    assert np.abs(np.cumsum(counts) - np.cumsum(expected)).max() <= on_edges, column
                    assert sum(counts) == expected.sum()


def test_thresholds_are_always_drawn() -> None:
    edges = plan(np.array([10.0, 20.0, 30.0]), [50.0, 5.0]).edges
    assert edges[0] <= 5.0 and edges[-1] >= 50.0


def counted(values: np.ndarray, kept: np.ndarray) -> Histogram:
    bins = plan(values, [])
    counts = (np.histogram(values[some], bins.edges)[0].tolist() for some in (kept, ~kept))
    return Histogram("cut", bins, *counts, above=int((values > bins.edges[-1]).sum()))


def test_zeros_that_would_hide_everything_are_not_drawn_but_counted() -> None:
    values = np.array([0.0] * 900 + [3.0, 40.0, 500.0, 6000.0] * 10)
    histogram = counted(values, np.arange(940) >= 5)
    assert histogram.mostly_zeros
    kept, dropped = histogram_figure(histogram, [])["series"]
    assert (sum(kept["y"]), sum(dropped["y"]), kept["x"][0]) == (40, 0, 3.0)
    assert caption(histogram) == "940 values; 900 below 3 (5 dropped) not drawn"
    few = counted(values[-80:], np.ones(80, bool))
    assert few.bins.logarithmic and not few.mostly_zeros and "not drawn" not in caption(few)


def test_lengths(opened_random_run: Run) -> None:
    sets, _ = read_lengths(opened_random_run, ["ingest", "filter"])
    assert [each.name for each in sets] == ["came in", "after ingest", "after filter"]
    for each, (stage, column) in zip(sets, [("ingest", "chars_in"), ("ingest", "chars_out"), ("filter", "chars_out")], strict=True):
        table = pa.concat_tables([table for _, table in opened_random_run.reader.groups(stage, "report", ["kept", "failed", column])])
        pages = np.array(["record_type" not in failed for failed in table["failed"].to_pylist()])
        values = np.sort(table[column].to_numpy()[table["kept"].to_numpy() | ((column == "chars_in") & pages)])
        assert (each.documents, each.characters) == (len(values), values.sum())
        assert each.quantiles == np.quantile(values, QUANTILES, method="inverted_cdf").tolist()
        assert each.bins == np.histogram(values[values > 0], [*EDGES, 10**12])[0].tolist() and each.empty == int((values == 0).sum())


def test_personal_data(opened_random_run: Run) -> None:
    found = read_personal_data(opened_random_run)
    assert found is not None
    emails, phones = found.kinds
    assert (emails["placeholder"], emails["known"], phones["placeholder"], phones["known"]) == ("email@example.com", True, None, True)
    rows = pa.concat_tables(
        [table for _, table in opened_random_run.reader.groups("filter", "report", ["pii_emails", "pii_phones", "kept"])]
    ).to_pylist()
    assert emails["finds"] == sum(row["pii_emails"] for row in rows)
    assert emails["kept_documents"] == sum(row["pii_emails"] > 0 and row["kept"] for row in rows)
    touched = [row["kept"] for row in rows if row["pii_emails"] or row["pii_phones"]]
    assert tuple(found.query.first[name] for name in ("rows", "touched", "kept_touched")) == (len(rows), len(touched), sum(touched))
