"""Tests the explorer's page with unusual runs: hostile names, half done, damaged, in progress."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from browser import needs_chromium, opened
from built_run import HOSTILE, RunBuilder, documents, report
from explored import explored
from waiting import until

pytestmark = [needs_chromium, pytest.mark.long]

#: Names that a recipe, a crawl or an upload could contain.
RULE = 'r"><img src=x onerror=alert(1)>\u202e'
COLUMN = "c'</script><script>alert(2)</script>\x1b[2J"
PROTOTYPE = "__proto__"


def hostile_names(folder: Path) -> None:
    """Makes a filter stage with hostile names of rules, columns, languages and sources; one rule, column and language is `__proto__`."""
    run = RunBuilder(folder)
    rules = [
        {"step": HOSTILE, "rule": RULE, "column": COLUMN, "comparison": "<", "threshold": 3},
        {"step": "s", "rule": PROTOTYPE, "column": PROTOTYPE, "comparison": ">", "threshold": 6},
    ]
    names = [(COLUMN, lambda n: n), (PROTOTYPE, lambda n: n)]
    rows = [
        {
            "id": f"{number:032d}", "url": f"javascript:alert({number})//{HOSTILE}", "text": f"{HOSTILE} {number}", "source": HOSTILE,
            "language": [HOSTILE, PROTOTYPE][number % 2], "kept": 3 <= number <= 6, "chars_in": 100, "chars_out": 100,
            "failed": [RULE] * (number < 3) + [PROTOTYPE] * (number > 6), **{name: value(number) for name, value in names},
        }
        for number in range(10)
    ]  # fmt: skip
    fields = [pa.field("source", pa.string()), pa.field("language", pa.string()), *(pa.field(name, pa.int64()) for name, _ in names)]
    run.json("run.json", {"inputs": [], "recipe": {"filter": {}}, "versions": {}})
    came = report([{**row, "kept": True, "failed": []} for row in rows], fields[:1])
    run.stage("ingest", [{"data/part-00000.parquet": documents(rows, []), "report/part-00000.parquet": came}])
    decided = report(rows, fields, {b"corpusmill.rules": json.dumps(rules).encode()})
    run.stage(
        "filter", [{"data/part-00000.parquet": documents(rows[3:7], []), "report/part-00000.parquet": decided}],
        warnings=(f"a page said {HOSTILE}",), read=["ingest/data/part-00000.parquet"],
    )  # fmt: skip


def test_hostile_names_are_names(chromium: Any, tmp_path: Path) -> None:
    hostile_names(tmp_path / "run")
    with explored(tmp_path / "run") as address, opened(chromium, address) as seen:
        page = seen.page
        dialogs: list[str] = []
        page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        page.wait_for_selector("#list tr")
        for place, documents in enumerate((3, 0)):  # no document failed both
            page.locator("#rule-list input").nth(place).check()
            until(page, f"document.getElementById('count').textContent.startsWith('{documents} ')")
        page.get_by_role("button", name="Clear all", exact=True).click()
        page.locator("#language-list button", has_text=PROTOTYPE).click()
        until(page, "document.getElementById('count').textContent.startsWith('5 ')")
        page.click("#columns > summary")
        for place in range(page.locator("#column-list input").count()):
            page.locator("#column-list input").nth(place).check()
        page.click("#ranges > summary")
        page.wait_for_selector("#range-chart[data-drawn]")
        page.select_option("#range-column", PROTOTYPE)
        page.fill("#range-low", "4")
        until(page, "document.getElementById('count').textContent.startsWith('3 ')")
        page.locator("#list a").first.click()
        page.wait_for_selector("#document .text")
        page.get_by_role("link", name="Thresholds").click()
        page.wait_for_selector(".slider .chart[data-drawn]")
        for number in page.locator(".slider input[type=number]").all():
            number.fill("5")
        until(page, "document.getElementById('kept-share').textContent.includes('4 → 1,')")
        page.get_by_role("button", name="Recipe line").click()
        assert page.locator("#recipe .command").count() == 2
        assert page.locator("main script, img, iframe, a[href^=javascript]").count() == 0
        assert {url.split("/")[2] for url in seen.requests} == {address.split("/")[2]}
        assert seen.console == dialogs == []


def running(done: int) -> dict[str, Any]:
    """Returns the output of `corpusmill status --json` for a run in the middle of its filter stage, with `done` of 8 tasks."""
    speed = {"tasks": done, "rows_per_second": 1234.0, "mb_per_second": 2.5}
    stages = [("ingest", "complete"), ("filter", "running"), ("dedup", "to come")]
    return {
        "run": "r", "state": "running", "sentence": "Running (host, process 7).", "seconds": 100.0, "warnings": 0, "training": None,
        "stages": [{"name": name, "status": status, "tasks": 2, "documents_in": None, "documents_out": None} for name, status in stages],
        "phase": {
            "stage": "filter", "phase": "", "workers": 2, "share": done / 8, "seconds_left": 75.0, "whole": speed, "latest": speed,
            "tasks": {"planned": 8, "before": 0, "done": done, "left": 8 - done},
        },
        "failures": {"count": 1, "last": [{"stage": "filter", "task": "part-00003", "message": f"no space {HOSTILE}"}], "sentence": None},
    }  # fmt: skip


def test_a_run_that_goes_on_is_followed(chromium: Any, address: str) -> None:
    """The test replaces the server's status, so that the run progresses at the test's speed."""
    said = [running(2), running(6), {**running(8), "state": "complete", "sentence": "Complete.", "phase": None}]
    said[2]["stages"] = [{**stage, "status": "complete"} for stage in said[2]["stages"]]
    asked: list[int] = []

    def answer(route: Any) -> None:
        asked.append(1)
        route.fulfill(json=said[min(len(asked), len(said)) - 1])

    def unfinished(route: Any) -> None:
        said = route.fetch().json()
        for stage in said["stages"]:
            stage["status"] = "unfinished" if stage["name"] == "filter" else "complete"
        route.fulfill(json=said)

    with opened(chromium, "about:blank") as seen:
        page = seen.page
        page.clock.install()
        page.route("**/api/status", answer)
        page.route("**/api/run", unfinished)
        page.goto(f"{address}#view=progress")
        page.wait_for_selector("#progress .wide")
        assert page.inner_text("#state") == "Running (host, process 7)."
        assert "25.0%: 2 of 8 tasks by 2 workers, 1,234 rows/s, 2.5 MB/s, 1 min 15 s left" in page.inner_text("#progress").replace(
            "1,235", "1,234"
        )
        assert "filter part-00003: no space before<script>alert(1)</script>" in page.inner_text("#progress .failed")
        assert page.locator("#progress progress").evaluate_all("bars => bars.map(bar => bar.value)") == [0.25, 1, 0.25, 0]
        assert "has gone on" not in page.inner_text("#progress")
        page.clock.fast_forward(2000)
        until(page, "document.querySelector('#progress .wide')?.value === 0.75")
        page.clock.fast_forward(2000)
        until(page, "document.getElementById('progress').innerText.includes('Complete.')")
        assert "The run has gone on since its reports were read" in page.inner_text("#progress")
        page.clock.fast_forward(60_000)
        assert len(asked) == 3 and seen.console == []
