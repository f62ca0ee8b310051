"""The counts of the report beside counts that pyarrow makes of whole tables."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pytest

from corpusmill.report.facts.decisions import SAMPLES, read_decisions
from corpusmill.report.facts.histogram import as_floats, measured_columns, plan
from corpusmill.report.page.figures import histogram_figure
from corpusmill.report.page.html import caption
from corpusmill.report.read import DATA_STAGES, Rule, RunReader


@pytest.mark.parametrize("stage", DATA_STAGES)
def test_counts_equal_those_of_the_whole_table(run_folder: Path, stage: str) -> None:
    table = ds.dataset(run_folder / stage / "report").to_table()
    found = read_decisions(RunReader(str(run_folder)), stage)
    assert found is not None
    assert (found.rows, found.kept) == (table.num_rows, pc.sum(table["kept"]).as_py())
    assert (found.chars_in, found.chars_out) == (pc.sum(table["chars_in"]).as_py(), pc.sum(table["chars_out"]).as_py())
    flat = pc.value_counts(pc.list_flatten(table["failed"])).to_pylist()
    assert {r.name: r.fired for r in found.by_removal()} == {pair["values"]: pair["counts"] for pair in flat}
    alone = table.filter(pc.equal(pc.list_value_length(table["failed"]), 1))
    flat = pc.value_counts(pc.list_flatten(alone["failed"])).to_pylist()
    assert {r.name: r.alone for r in found.by_removal() if r.alone} == {pair["values"]: pair["counts"] for pair in flat}


def test_known_counts(run_folder: Path) -> None:
    found = read_decisions(RunReader(str(run_folder)), "filter")
    assert found is not None
    assert [(r.name, r.fired, r.alone) for r in found.by_removal()] == [("short", 5, 4), ("symbols", 4, 3), ("language", 3, 3)]
    assert found.together == {("short", "symbols"): 1}
    assert found.rules["never"].fired == 0


@pytest.mark.parametrize("stage", DATA_STAGES)
def test_histograms_hold_every_value(run_folder: Path, stage: str) -> None:
    table = ds.dataset(run_folder / stage / "report").to_table()
    found = read_decisions(RunReader(str(run_folder)), stage)
    assert found is not None
    for column, histogram in found.histograms.items():
        values = as_floats(table, column)
        assert histogram.missing == int(np.isnan(values).sum())
        assert histogram.values == int((~np.isnan(values)).sum())
        kept = table["kept"].to_numpy()
        inside = (values >= histogram.edges[0]) & (values <= histogram.edges[-1])
        for counts, mask in ((histogram.kept, kept), (histogram.dropped, ~kept)):
            expected, _ = np.histogram(values[mask & inside], histogram.edges)
            assert counts.tolist() == expected.tolist(), column


def test_thresholds_are_always_drawn() -> None:
    histogram = plan("words", np.array([10.0, 20.0, 30.0]), [50.0, 5.0])
    assert histogram.edges[0] <= 5.0 and histogram.edges[-1] >= 50.0


@pytest.mark.parametrize("values", [[], [0.0], [7.0] * 5, [0.0, 1e12], [-1.5, 2.5], [1e-9, 1e9], list(range(1000)), [0.1, 0.1, 1000.0]])
def test_edges_ascend(values: list[float]) -> None:
    histogram = plan("x", np.array(values, np.float64), [])
    assert (np.diff(histogram.edges) > 0).all()
    histogram.add(np.array(values, np.float64), np.ones(len(values), bool))
    assert histogram.values == len(values)


def test_zeros_that_would_hide_everything_are_not_drawn_but_counted() -> None:
    values = np.array([0.0] * 900 + [3.0, 40.0, 500.0, 6000.0] * 10)
    histogram = plan("cut", values, [])
    histogram.add(values, np.arange(940) >= 5)
    assert histogram.mostly_zeros
    kept, dropped = histogram_figure(histogram, [])["data"]
    assert (sum(kept["y"][:-1]), sum(dropped["y"][:-1]), kept["x"][0]) == (40, 0, 3.0)
    assert caption(histogram, False) == "940 values; 900 below 3 (5 dropped) not drawn"
    rule = Rule("step", "much", "cut", ">", 100.0)
    assert sum(histogram_figure(histogram, [rule])["data"][0]["y"][:-1]) == 935  # a threshold needs all that it judges
    assert caption(histogram, True) == "940 values"
    few = plan("cut", values[800:], [])
    few.add(values[-80:], np.ones(80, bool))
    assert few.logarithmic and not few.mostly_zeros and "not drawn" not in caption(few, False)


def test_places_and_item_numbers_are_not_measured() -> None:
    schema = pa.schema(
        [("chars_in", pa.int64()), ("similarity", pa.float64()), ("contaminated_item", pa.int64()), ("lines_cut", pa.int64())]
    )
    assert measured_columns(schema, "dedup") == ["chars_in", "lines_cut"]
    assert measured_columns(schema, "filter") == ["chars_in", "similarity", "contaminated_item", "lines_cut"]


def test_samples_are_nearest_to_the_threshold(run_folder: Path) -> None:
    found = read_decisions(RunReader(str(run_folder)), "filter")
    assert found is not None
    table = ds.dataset(run_folder / "filter" / "report").to_table().filter(pc.field("kept"))
    nearest = sorted(abs(v - 20) for v in table["words"].to_pylist())[:SAMPLES]
    assert [abs(s.value - 20) for s in found.just_kept["short"]] == nearest
    assert all(s.rank[0] == 0 for s in found.just_dropped["short"])  # those that this rule alone dropped come first


def test_a_report_without_rows() -> None:
    from corpusmill.pipeline.schemas import REPORT
    from corpusmill.report.facts.failures import Failures

    empty = Failures.of(REPORT.empty_table()["failed"])
    assert empty.names == () and len(empty.passing) == 0
    assert as_floats(pa.table({"a": pa.array(["x"])}), "a").tolist() != [0.0]
