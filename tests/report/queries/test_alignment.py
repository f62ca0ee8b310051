"""Tests the page's section on pairs from scores and judged answers."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from built_run import report
from printed_queries import not_reproduced

from corpusmill.report.page.html import render
from corpusmill.report.queries.alignment import read_alignment
from corpusmill.report.queries.summary import read_summary
from corpusmill.report.query.run import Run

HOSTILE = "<script>alert(1)</script><img src=x> \x1b[31mred \u202eright to left"
SOURCE = {
    "column": "toxicity", "unit": "continuations", "high_is_good": False, "scored": 900, "good": 0.25, "bad": 0.75, "wanted": 100,
    "pairs": 40, "chosen": 450, "rejected": 90, "chosen_chars": 150.2, "rejected_chars": 149.8,
}  # fmt: skip
COMPARED = {
    "texts": 2, "not_scored": 0, "threshold": 0.5, "high_is_good": False, "before": 0.7, "after": 0.2, "difference": -0.5, "low": -0.6,
    "high": -0.4, "worse_before": {"value": 1.0, "low": 0.34, "high": 1.0}, "worse_after": {"value": 0.0, "low": 0.0, "high": 0.66},
    "equal_length": {"texts": 2, "difference": -0.375},
}  # fmt: skip
JUDGED: dict[str, Any] = {
    "prompts": 2, "tokens_before": 20.0, "tokens_after": 18.5,
    "scores": {"quality": {"texts": 0, "not_scored": 2}, "toxicity": COMPARED},
    "answers": [
        {"document": "d1", "prompt": "Go on", "before": {"text": "mild", "toxicity": 0.6}, "after": {"text": "kind", "toxicity": 0.1}},
        {"document": "d2", "prompt": HOSTILE, "before": {"text": HOSTILE, "toxicity": 0.8}, "after": {"text": HOSTILE, "toxicity": 0.3}},
    ],
}  # fmt: skip


@pytest.fixture
def aligned(tmp_path: Path, builder: Any) -> Path:
    run = builder(tmp_path / "run", ("ingest",))
    both = {"url": "", "chars_in": 1, "chars_out": 1}
    rows = [{**both, "id": "own.jsonl:7", "kept": False, "failed": ["no_pair"], "note": f"no pair: {HOSTILE}"},
            {**both, "id": "d", "kept": True, "failed": [], "note": None}]  # fmt: skip
    run.stage("align", [{"report/part-00000.parquet": report(rows, [pa.field("note", pa.string())])}])
    run.json("align/pair_sources.json", {"toxicity": SOURCE})
    run.json("align/judged.json", JUDGED)
    return tmp_path / "run"


def test_read(aligned: Path) -> None:
    found = read_alignment(Run(str(aligned)))
    assert found is not None and (found.judged.tokens_before, found.judged.tokens_after) == (20.0, 18.5)
    assert [answer.document for answer in found.judged.answers] == ["d2", "d1"]  # the worst after alignment first
    assert found.dropped == {"no_pair": 1} and [place for place, _ in found.notes] == ["own.jsonl:7"]
    assert [(name, c.texts, c.equal_length.difference) for name, c in found.judged.scores.items()] == [
        ("quality", 0, None),
        ("toxicity", 2, -0.375),
    ]


def test_page(aligned: Path) -> None:
    page = render(read_summary(str(aligned)))
    begin = page.index("align: pairs from scores")
    section = page[begin : page.index("</main>", begin)]
    for shown in ("900 continuations", "up to 0.25", "from 0.75", "-0.500", "(-0.600 to -0.400)", "-0.375", "100%", "(34% to 100%)"):
        assert shown in section
    assert "no_pair 1" in section and "own.jsonl:7" in section and "no answer could be scored" in section
    assert "20.0 tokens on average before and 18.5 after" in section
    assert "<script" not in section and "<img" not in section and "\x1b" not in section and "\u202e" not in section
    assert "&lt;script&gt;" in section


def test_a_run_without_it_has_no_section(tmp_path: Path, builder: Any) -> None:
    builder(tmp_path / "run", ("ingest",))
    assert read_alignment(Run(str(tmp_path / "run"))) is None


@pytest.mark.parametrize(
    ("name", "content"),
    [("judged.json", '{"scores": {"toxicity": {}}, "answers": []}'), ("judged.json", "no"), ("pair_sources.json", "[1]")],
)
def test_a_damaged_file_is_a_warning(aligned: Path, name: str, content: str) -> None:
    (aligned / "align" / name).write_text(content)
    run = Run(str(aligned))
    found = read_alignment(run)
    assert any(f"align/{name}" in warning for warning in run.warnings)
    assert found is not None and (found.judged.scores == {} if name == "judged.json" else found.sources == [])


def test_not_every_number_need_be_there(aligned: Path) -> None:
    bare = {**COMPARED, "threshold": None, "equal_length": {"texts": 0}}
    del bare["worse_before"], bare["worse_after"]
    (aligned / "align/judged.json").write_text(json.dumps({**JUDGED, "scores": {"toxicity": bare}, "tokens_after": None}))
    (aligned / "align/pair_sources.json").write_text(json.dumps({"q": {**SOURCE, "good": None, "bad": None, "chosen_chars": None}}))
    assert "-0.500" in render(read_summary(str(aligned)))


def test_the_queries_give_all_that_the_page_says_of_it(aligned: Path) -> None:
    assert not_reproduced(str(aligned)) == []
