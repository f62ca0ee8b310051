"""Tests use of the explorer's page: links, keyboard, screen reader, phone, theme, a newcomer's way, hostile names, a run in progress."""

import re
from typing import Any

import pandas as pd
import pytest
from browser import PHONE, Seen, expect_accessible, needs_chromium, opened
from built_run import HOSTILE_URL
from explored import expect_counts, fired
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
    page.keyboard.press("j")  # so that a label is given to the document that is read
    until(page, "location.hash.includes('doc=filter%2F2') && document.querySelector('#list [aria-current]')?.dataset.doc === 'filter/2'")
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
