from pathlib import Path
from typing import Any

import pytest
from printing import printed

from corpusmill.pipeline.events import Event
from corpusmill.report.answers.terminal import closing_lines, render_report, stage_summary


def cells(text: str, first: str) -> list[str]:
    return next(line.split() for line in text.splitlines() if line.split()[:1] == [first])


def test_the_tables_have_the_runs_numbers(run_folder: Path) -> None:
    text = printed(render_report, str(run_folder))
    assert cells(text, "ingest")[:7] == ["ingest", "60", "56", "4", "93.3%", "93.3%", "31,791"]
    assert cells(text, "dedup")[:4] == ["dedup", "45", "42", "3"]
    assert cells(text, "short") == ["short", "5", "8.9%", "4"]
    assert cells(text, "near_duplicate") == ["near_duplicate", "3", "6.7%", "3"]
    assert cells(text, "bits")[-2:] == ["1.235", "1.500"] and cells(text, "preferences")[-1] == "75.0%"
    assert "filter: why 11 of 56 documents were dropped" in text
    assert "Warning: ingest: crawl-0.warc.gz: cut short" in text
    assert all(len(line) <= 80 for line in text.splitlines() if "corpusmill" not in line)
    said = " ".join(text.split())
    assert "most: short (words < 20): fewer than 20 words. 5 documents fail it (8.9%), 4 of them no other rule." in said
    assert text.splitlines()[-3:] == [
        f"Documents that it dropped: corpusmill sample {run_folder} --rule short --alone --near",
        f"All about one: corpusmill why {run_folder} URL-OR-WORDS",
        f"Without it 4 more are kept: corpusmill retune {run_folder} --set filter.thresholds.short=off --dry-run",
    ]


@pytest.mark.parametrize("stages", [(), ("ingest",)])
def test_half_a_run(tmp_path: Path, builder: Any, stages: tuple[str, ...]) -> None:
    builder(tmp_path / "run", stages)
    text = printed(render_report, str(tmp_path / "run"))
    assert ("Funnel" in text) == bool(stages)


def test_a_stage_is_summed_up(run_folder: Path) -> None:
    end = Event("stage_end", "filter", fields={"performed": 2, "work_seconds": 2.0, "summary": {"model": "lid.176"}})
    text = printed(stage_summary, str(run_folder), end)
    assert "filter  56 documents in, 45 documents kept (80.4%), 11 dropped" in text
    assert "short 5, symbols 4, language 3" in text
    assert "model: lid.176" in text
    assert "2.0 s, 28 documents/s, 2.0 MB/s, peak 321 MB" in text
    assert "finished before" in printed(stage_summary, str(run_folder), Event("stage_end", "filter", fields={"performed": 0}))


def test_the_last_lines_are_harmless(run_folder: Path) -> None:
    text = printed(closing_lines, str(run_folder), "RUN/report.html", width=200)
    assert "RUN/report.html" in text and "What the align model says" in text and "text: x before<script>" in text
    assert not any(c in text for c in "\x1b\u202e")
