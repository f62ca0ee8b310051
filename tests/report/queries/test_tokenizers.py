"""Tests the evaluation of the tokenizer, on the terminal and on the page."""

from pathlib import Path

from corpusmill.report.page.html import render
from corpusmill.report.queries.summary import read_summary
from corpusmill.report.queries.tokens import judged_text, read_judgement
from corpusmill.report.read import RunReader


def test_read(run_folder: Path) -> None:
    found = read_judgement(RunReader(str(run_folder)))
    assert found is not None and [t.name for t in found.tokenizers] == ["this run", "gpt2", "<i>other/tokenizer.json"]
    assert (found.unused, found.unused_bytes, found.below, found.rare, found.never_produced) == (7, 5, 100, 30, 1)
    assert found.groups("host") == ["host.test", "evil<script>"]
    assert judged_text(found) == "10 documents that it was not trained on, 0.0 MB of text"


def test_a_damaged_file_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "run.json").write_text("{}")
    for content in ('{"tokenizers": {}, "judged": {}}', '{"tokenizers": {"a": 1}, "judged": {"held_out": true}}', "[1]", "no"):
        (tmp_path / "tokenizer/quality.json").write_text(content)
        reader = RunReader(str(tmp_path))
        assert read_judgement(reader) is None and any("tokenizer/quality.json" in warning for warning in reader.warnings)
    assert 'id="tokenizer"' not in render(read_summary(str(tmp_path)))
