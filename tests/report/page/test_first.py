"""Tests what the page says first: the run, its work, commands that can be pasted, and warnings by weight."""

import json
import re
import shlex
import shutil
from html import unescape
from pathlib import Path

import pytest

from corpusmill.pipeline.run import Plan, describe, new_plan
from corpusmill.report.page.html import render, write_report
from corpusmill.report.queries.summary import Summary, read_summary


@pytest.fixture
def copy(run_folder: Path, tmp_path: Path) -> Path:
    """Returns a copy of the small run in a folder whose name needs quotes in a shell."""
    return Path(shutil.copytree(run_folder, tmp_path / "it's a run"))


def said(summary: Summary) -> str:
    """Returns the first screen as text in one line."""
    page = render(summary)
    head = page[page.index("<header>") : page.index("</header>")].replace("<wbr>", "")
    head = re.sub(r'<div class="query".*?</div>', "", head, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", head)).replace(" ,", ",").split())


def test_the_title_is_the_run(copy: Path) -> None:
    described = json.loads((copy / "run.json").read_text())
    inputs = [f"crawl/{place}.warc.gz" for place in range(5)]
    (copy / "run.json").write_text(json.dumps({**described, "inputs": inputs, "recipe_name": "small", "versions": {"corpusmill": "1.2"}}))
    (copy / "progress.json").write_text(json.dumps({"began": "2026-01-01T23:00:00+00:00", "ended": "2026-01-02T00:10:00+00:00"}))
    lines = [{"stage": stage, "phase": "", "seconds": seconds} for stage, seconds in (("ingest", 3600), ("filter", 100), ("filter", 20.4))]
    (copy / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = said(read_summary(str(copy)))
    named = "recipe small · crawl/0.warc.gz, crawl/1.warc.gz, crawl/2.warc.gz and 2 more inputs"
    assert text.startswith(f"it's a run {named} · 2026-01-02 · 1 h 2 min of work · corpusmill 1.2")
    assert "<title>it&#39;s a run: corpusmill report</title>" in render(read_summary(str(copy)))


def test_commands_can_be_pasted(copy: Path) -> None:
    page = unescape(re.sub("<wbr>", "", Path(write_report(str(copy))).read_text()))
    commands = [shlex.split(command) for command in re.findall(r"<code>(corpusmill [^<]*)</code>", page)]
    assert {command[1] for command in commands} >= {"retune", "explore", "why", "query", "clusters"}
    assert {command[2] for command in commands} == {str(copy)}
    named = {
        command[2]
        for command in map(shlex.split, re.findall(r"<code>(corpusmill [^<]*)</code>", unescape(render(read_summary(str(copy)), "RUN"))))
    }
    assert named == {"RUN"}  # as in a published report: no path of this machine


def test_it_answers_in_this_order(run_folder: Path) -> None:
    text = said(read_summary(str(run_folder)))
    parts = ["pages in 60", "kept 42 70.0%", "after filter 75.0%", "short words < 20", "characters each", "bits per byte, align 1.500",
             "preferences right, align 75.0%", "What align wrote", "warnings", "corpusmill retune"]  # fmt: skip
    places = [text.find(part) for part in parts]
    assert -1 not in places and places == sorted(places), list(zip(parts, places, strict=True))


def test_a_run_remembers_the_name_of_its_recipe(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("ingest: {}\n")
    plans = [new_plan(str(tmp_path / "run"), str(tmp_path / "mine.yaml"), ["in.jsonl"]), Plan(str(tmp_path / "run"), {}, [])]
    first = json.loads(describe(plans[0]))
    assert first["recipe_name"] == "mine"
    assert json.loads(describe(plans[1], first))["recipe_name"] == "mine"  # a later command that names only the run
    assert "recipe_name" not in json.loads(describe(plans[1]))
