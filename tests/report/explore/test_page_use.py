"""Tests use of the explorer's page: links, keyboard, screen reader, phone, theme, a newcomer's way, hostile names, a run in progress."""

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from browser import PHONE, Seen, expect_accessible, needs_chromium, opened
from built_run import HOSTILE, HOSTILE_URL, RunBuilder
from explored import expect_counts, explored, fired
from waiting import drawn, until

pytestmark = [needs_chromium, pytest.mark.long]


def test_back_forward_and_links_bring_a_view_again(seen: Seen, chromium: Any, decided: pd.DataFrame) -> None:
    page = seen.page
    page.get_by_label(re.compile("^dropped")).check()
    page.get_by_label(re.compile("^short")).check()
    expect_counts(page, decided, fired(decided, "short"))
    assert "kept" not in page.inner_text("#count")  # of dropped documents none is kept
    page.locator("#list a").first.click()
    page.wait_for_selector("#document .text")
    with opened(chromium, page.url) as other:
        expect_counts(other.page, decided, fired(decided, "short"))
        other.page.wait_for_selector("#document .text")
        assert drawn(other.page).get_by_label(re.compile("^short")).is_checked()
    page.go_back()
    page.wait_for_selector("#document .guide")
    page.go_back()
    expect_counts(page, decided, ~decided["kept"])
    assert not page.get_by_label(re.compile("^short")).is_checked()
    page.go_forward()
    expect_counts(page, decided, fired(decided, "short"))


def test_the_keyboard_is_enough(seen: Seen, decided: pd.DataFrame) -> None:
    page = seen.page

    def focused() -> str:
        return str(page.evaluate("document.activeElement.dataset.doc ?? document.activeElement.id"))

    for key, place in (("j", 0), ("j", 1), ("ArrowDown", 2), ("k", 1)):
        page.keyboard.press(key)
        until(page, f"document.activeElement.dataset.doc === 'filter/{place}'")
    page.keyboard.press("Enter")
    page.wait_for_selector("#document .text")
    assert drawn(page).inner_text("#announcement").startswith("Opened http://")
    assert focused() == "filter/1"  # the list is drawn anew, and the focus stays
    page.keyboard.press("Escape")
    page.wait_for_selector("#document .guide")
    drawn(page).keyboard.press("/")
    until(page, "document.activeElement.id === 'text'")
    page.keyboard.type("word30x0 j?")
    assert page.input_value("#text") == "word30x0 j?"  # in a text box, letters are text
    page.keyboard.press("Escape")
    drawn(page).keyboard.press("?")
    page.wait_for_selector("#help[open]")
    page.keyboard.press("Escape")
    page.wait_for_selector("#help", state="hidden")
    page.keyboard.press("t")
    page.wait_for_selector("#thresholds:not([hidden])")
    page.locator("#skip").press("Enter")  # the list of documents is hidden here
    assert page.evaluate("document.activeElement.id") == "main"
    page.keyboard.press("t")
    reached = set()
    drawn(page).evaluate("document.body.focus(), document.activeElement.blur()")
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(focused())
    assert {"skip", "theme", "help-open", "decision-", "url", "text", "alone"} <= reached


def test_axe_finds_nothing(chromium: Any, address: str, decided: pd.DataFrame) -> None:
    number = decided.index[decided["url"] == HOSTILE_URL][0]
    chosen = f"#stage=filter&decision=dropped&rule=short&col=words&doc=filter/{number}"
    there = {"Documents": "#document .text", "Thresholds": ".slider .chart[data-drawn]", "Progress": "#progress td"}
    with opened(chromium, f"{address}{chosen}", bypass_csp=True) as seen:
        for view, part in there.items():
            seen.page.locator("#views a", has_text=view).click()
            seen.page.wait_for_selector(part)
            expect_accessible(drawn(seen.page), view)
    assert seen.console == []


def test_a_phone_scrolls_only_up_and_down(chromium: Any, address: str, decided: pd.DataFrame) -> None:
    number = decided.index[decided["url"] == HOSTILE_URL][0]
    with opened(chromium, f"{address}#stage=filter&doc=filter/{number}", size=PHONE, is_mobile=True, has_touch=True) as seen:
        for view in ("Documents", "Thresholds", "Progress"):
            seen.page.locator("#views a", has_text=view).click()
            seen.page.wait_for_selector(f"#{view.lower()}:not([hidden])")
            seen.page.wait_for_selector("#document .text")
            assert drawn(seen.page).evaluate("document.documentElement.scrollWidth") <= PHONE[0]
        seen.page.locator("#views a", has_text="Documents").click()
        seen.page.locator("#filters summary").first.click()
        seen.page.get_by_label(re.compile("^dropped")).check()
        until(seen.page, "document.getElementById('count').textContent.startsWith('11 ')")


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
    rows = [
        {
            "id": f"{number:032d}", "url": f"javascript:alert({number})//{HOSTILE}", "text": f"{HOSTILE} {number}", "source": HOSTILE,
            "language": [HOSTILE, PROTOTYPE][number % 2], "failed": [RULE] * (number < 3) + [PROTOTYPE] * (number > 6),
            COLUMN: number, PROTOTYPE: number,
        }
        for number in range(10)
    ]  # fmt: skip
    kinds = {"source": pa.string(), "language": pa.string(), COLUMN: pa.int64(), PROTOTYPE: pa.int64()}
    fields = [pa.field(*column) for column in kinds.items()]
    run.json("run.json", {"inputs": [], "recipe": {"filter": {}}, "versions": {}})
    run.decide("ingest", [[{**row, "failed": []} for row in rows]], fields[:1])
    read = ["ingest/data/part-00000.parquet"]
    run.decide("filter", [rows], fields, rules=rules, warnings=(f"a page said {HOSTILE}",), read=read)


def test_hostile_names_are_names(chromium: Any, tmp_path: Path) -> None:
    hostile_names(tmp_path / "run")
    with explored(tmp_path / "run") as address, opened(chromium, address) as seen:
        page = seen.page
        dialogs: list[str] = []
        page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        drawn(page)
        for place, documents in enumerate((3, 0)):  # no document failed both
            page.locator("#rule-list input").nth(place).check()
            until(page, f"document.getElementById('count').textContent.startsWith('{documents} ')")
        drawn(page).get_by_role("button", name="Clear all", exact=True).click()
        page.locator("#language-list button", has_text=PROTOTYPE).click()
        until(page, "document.getElementById('count').textContent.startsWith('5 ')")
        page.click("#columns > summary")
        page.wait_for_selector("#column-list input")
        for place in range(drawn(page).locator("#column-list input").count()):
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
        drawn(page)
        for number in page.locator(".slider input[type=number]").all():
            number.fill("5")
        until(page, "document.getElementById('kept-share').textContent.includes('4 → 1,')")
        drawn(page).get_by_role("button", name="Recipe line").click()
        assert page.locator("#recipe .command").count() == 2
        assert page.locator("main script, img, iframe, a[href^=javascript]").count() == 0
        assert {url.split("/")[2] for url in seen.requests} == {address.split("/")[2]}
        assert seen.console == dialogs == []
