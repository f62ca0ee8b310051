"""Tests the picture of a run's funnel: what it says, its file, and names that could be taken for formulas or paths."""

from pathlib import Path

import pytest

from corpusmill.pipeline.errors import InputError
from corpusmill.report.page import picture as module
from corpusmill.report.page.html import write_report
from corpusmill.report.queries.summary import read_summary

PNG = b"\x89PNG\r\n\x1a\n"


def test_the_picture_is_drawn_without_a_browser(run_folder: Path, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    pytest.importorskip("matplotlib")
    write_report(str(run_folder), str(tmp_path / "a.png"))
    write_report(str(run_folder), "")
    made = (tmp_path / "a.png").read_bytes()
    assert made.startswith(PNG) and made == (run_folder / "report.png").read_bytes()  # equal each time
    (run_folder / "report.png").unlink()
    with image.open(tmp_path / "a.png") as opened:
        assert opened.size == (1600, 900)
        colors = {color for count, color in opened.convert("RGB").getcolors(1 << 20) if count > 500}
    assert {(31, 111, 178), (184, 79, 20)} <= colors  # kept and dropped
    with pytest.raises(InputError, match="can't be written"):
        write_report(str(run_folder), str(tmp_path / "a.png" / "b.png"))


def test_names_are_drawn_as_they_are(run_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    summary = read_summary(str(run_folder))
    assert summary.page.steps is not None
    for step in summary.page.steps.rows:
        step["rule"] = r"$\frac{"
    assert module.picture(summary).startswith(PNG)  # else matplotlib would read a formula, and fail
