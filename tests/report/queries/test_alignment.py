"""Tests what the page says of alignment's dropped pairs."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from built_run import report
from printed_queries import not_reproduced

from corpusmill.report.queries.alignment import read_alignment
from corpusmill.report.query.run import Run

HOSTILE = "<script>alert(1)</script><img src=x> \x1b[31mred \u202eright to left"


@pytest.fixture
def aligned(tmp_path: Path, builder: Any) -> Path:
    run = builder(tmp_path / "run", ("ingest",))
    both = {"url": "", "chars_in": 1, "chars_out": 1}
    rows = [{**both, "id": "own.jsonl:7", "kept": False, "failed": ["no_pair"], "note": f"no pair: {HOSTILE}"},
            {**both, "id": "d", "kept": True, "failed": [], "note": None}]  # fmt: skip
    run.stage("align", [{"report/part-00000.parquet": report(rows, [pa.field("note", pa.string())])}])
    return tmp_path / "run"


def test_read(aligned: Path) -> None:
    found = read_alignment(Run(str(aligned)))
    assert found is not None and found["dropped"].rows == [{"rule": "no_pair", "pairs": 1}]
    assert [row["id"] for row in found["notes"].rows] == ["own.jsonl:7"]


def test_a_run_without_it_has_no_section(tmp_path: Path, builder: Any) -> None:
    builder(tmp_path / "run", ("ingest",))
    assert read_alignment(Run(str(tmp_path / "run"))) is None


def test_the_queries_give_all_that_the_page_says_of_it(aligned: Path) -> None:
    assert not_reproduced(str(aligned)) == []
