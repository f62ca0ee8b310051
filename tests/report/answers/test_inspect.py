import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from built_run import pages
from printing import printed

from corpusmill.report.answers.choose import Choice
from corpusmill.report.answers.inspect import RowOptions, inspect


def look(target: Path | str, width: int = 80, stage: str | None = None, as_json: bool = False, limit: int = 100, **options: Any) -> str:
    names = {"columns", "order", "descending", "offset"}
    given = {name: value for name, value in options.items() if name in names}
    choice = Choice(**{name: value for name, value in options.items() if name not in names})
    return printed(inspect, str(target), stage, RowOptions(choice, limit=limit, as_json=as_json, **given), width=width)


def test_the_stage_follows_from_the_rule(run_folder: Path) -> None:
    assert look(run_folder, rules=("near_duplicate",)).startswith("dedup: report")
    assert look(run_folder, rules=("never",)).strip() == "No such rows."


def test_one_file(run_folder: Path) -> None:
    assert "word4x0" in look(run_folder / "ingest" / "data" / "part-00000.parquet", limit=1)


def test_a_choice_that_no_row_can_meet_is_told(run_folder: Path) -> None:
    assert "a document that fails a rule is dropped" in look(run_folder, rules=("short",), kept=True)
    assert "there are 56, and --offset is 70" in look(run_folder, offset=70)


def rows_of(target: Path | str, capsys: pytest.CaptureFixture[str], **options: Any) -> list[dict[str, Any]]:
    look(target, as_json=True, **options)
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


CHOICES: list[tuple[dict[str, Any], Any]] = [
    ({"rules": ("short", "symbols")}, lambda r: {"short", "symbols"} <= set(r["failed"])),
    ({"alone": True}, lambda r: len(r["failed"]) == 1),
    ({"where": "language = 'de'"}, lambda r: r["language"] == "de"),
    ({"where": "contains(url, 'page-2') OR language = 'de'"}, lambda r: "page-2" in r["url"] or r["language"] == "de"),
    ({"where": "id IN (SELECT id FROM ingest_report WHERE source = 'crawl-1.warc.gz')"}, lambda r: r["number"] % 2 == 1),
    ({"where": "words BETWEEN 40 AND 50 AND symbol_ratio <= 0.019"}, lambda r: 40 <= r["words"] <= 50 and r["symbol_ratio"] <= 0.019),
    ({"kept": False, "where": "language = 'de'"}, lambda r: not r["kept"] and r["language"] == "de"),
]


@pytest.mark.parametrize(("options", "test"), CHOICES)
def test_choices_are_those_of_the_rows(
    run_folder: Path, capsys: pytest.CaptureFixture[str], options: dict[str, Any], test: Callable[[dict[str, Any]], bool]
) -> None:
    numbers = {page["id"]: page["number"] for page in pages()}
    table = ds.dataset(run_folder / "filter" / "report").to_table().to_pylist()
    expected = [row for row in table if test({**row, "number": numbers[row["id"]]})]
    assert rows_of(run_folder, capsys, stage="filter", **options) == expected and expected


def test_order_columns_and_a_part(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = ds.dataset(run_folder / "filter" / "report").to_table().to_pylist()
    wanted = sorted(table, key=lambda row: -row["symbol_ratio"])[2:5]
    found = rows_of(run_folder, capsys, order="symbol_ratio", descending=True, offset=2, limit=3, columns=("words", "id"))
    assert found == [{"words": row["words"], "id": row["id"]} for row in wanted]
    assert len(rows_of(run_folder, capsys, limit=0)) == 56


def test_what_is_not_a_number_is_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = [math.inf, math.nan, 2.0, None, -math.inf]
    pq.write_table(pa.table({"value": pa.array(values, pa.float64()), "at": range(5)}), tmp_path / "a.parquet")
    for descending, expected in ((False, [4, 2, 0]), (True, [0, 2, 4])):
        found = rows_of(tmp_path / "a.parquet", capsys, order="value", descending=descending)
        assert [row["at"] for row in found] == [*expected, 1, 3]
    assert [row["value"] for row in rows_of(tmp_path / "a.parquet", capsys)] == ["inf", None, 2.0, None, "-inf"]
