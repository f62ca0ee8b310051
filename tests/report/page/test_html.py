"""Tests the page: its numbers, its safety, and half done, damaged or empty runs."""

import base64
import hashlib
import json
import shutil
from pathlib import Path

import pytest
from damaged_runs import half_done
from selectolax.lexbor import LexborHTMLParser

from corpusmill.report.page.html import write_report
from corpusmill.report.page.page import script_json
from corpusmill.report.queries.summary import read_summary


class Reader:
    """The page's tags with their attributes, its scripts and styles, the cells of its table rows, and its text."""

    def __init__(self, html: str):
        tree = LexborHTMLParser(html)
        self.tags = [(node.tag, node.attributes) for node in tree.css("*")]
        self.inline = [(node.tag, node.text()) for node in tree.css("script, style")]
        tree.strip_tags(["script", "style"])
        self.rows = [[cell.text() for cell in row.css("td, th")] for row in tree.css("tr")]
        self.text = tree.root.text()


@pytest.fixture(scope="module")
def page(run_folder: Path) -> str:
    return Path(write_report(str(run_folder))).read_text()


@pytest.fixture(scope="module")
def read(page: str) -> Reader:
    return Reader(page)


def test_the_numbers_of_the_funnel_and_rules(read: Reader) -> None:
    assert ["after ingest", "93.3%", "56", "93.3%"] in read.rows
    rows = {row[0]: row for row in reversed(read.rows) if row}  # the first of each name
    assert rows["ingest"][1:4] == ["60", "56", "4"]
    assert ["filter", "56", "45", "11"] in [row[:4] for row in read.rows]
    assert ["dedup", "45", "42", "3"] in [row[:4] for row in read.rows]
    rules = {row[0].strip(): row[1:] for row in read.rows if len(row) == 4}  # the name, below it the condition and its meaning
    assert rules["shortwords < 20: fewer than 20 words"] == ["4", "5", "8.9% 8.9%"]
    assert ["bits per byte (less is better)", "1.235", "1.500"] in read.rows and ["preferences ranked right", "", "75.0%"] in read.rows
    assert rules["symbolssymbol_ratio > 0.1: more than 10% of <b>symbols</b>"] == ["3", "4", "7.1% 7.1%"]
    assert rules["languagelanguage_score < 0.65"][0] == "3"
    assert "ingest: 4 of 60 records dropped" in read.text and "filter: 11 of 56 documents dropped" in read.text
    assert rows["English (en)"][1:] and rows["German (de)"][1] == "11"
    assert "1 rule never fired" in read.text
    assert "personal data (the step pii has not run, so nobody has looked for any)" in read.text


def test_the_policy_names_exactly_what_the_page_holds(read: Reader) -> None:
    policy = next(a["content"] for tag, a in read.tags if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy") or ""
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy and "http" not in policy
    data = next(content for kind, content in read.inline if kind == "script" and content.startswith("["))
    for _, content in read.inline:
        if content != data:
            hashed = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
            assert f"'sha256-{hashed}'" in policy
    assert not any(a.get("src") or (a.get("href") or "#")[0] not in "#d" for _, a in read.tags)
    assert not any("style" in a for _, a in read.tags)


def test_equal_runs_give_equal_pages(run_folder: Path, tmp_path: Path, page: str) -> None:
    assert Path(write_report(str(run_folder))).read_text() == page
    copy = tmp_path / run_folder.name
    shutil.copytree(run_folder, copy)
    assert Path(write_report(str(copy))).read_text().replace(str(copy), str(run_folder)) == page  # commands name the run by its path


def test_script_json_cannot_end_its_element() -> None:
    value = ["</script><!--", "\u2028&"]
    assert not set("<>&\u2028") & set(script_json(value))
    assert json.loads(script_json(value)) == value


def test_an_unfinished_stage_counts_what_is_there(tmp_path: Path) -> None:
    half_done(tmp_path / "run")
    manifest = tmp_path / "run" / "filter" / "manifest.jsonl"
    before = manifest.read_bytes()
    assert [row.documents_in for row in read_summary(str(tmp_path / "run")).rows] == [60, 28]
    assert manifest.read_bytes() == before
