"""Tests everyday use of the explorer's page: links, keyboard, screen reader, phone, theme, and a newcomer's way."""

import re
from typing import Any

import pandas as pd
import pytest
from browser import PHONE, Seen, needs_chromium, opened
from built_run import HOSTILE_URL
from explored import expect_counts, fired, only
from waiting import until

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
        assert other.page.get_by_label(re.compile("^short")).is_checked()
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
    assert page.inner_text("#announcement").startswith("Opened http://")
    assert focused() == "filter/1"  # the list is drawn anew, and the focus stays
    page.keyboard.press("Escape")
    page.wait_for_selector("#document .guide")
    page.keyboard.press("/")
    until(page, "document.activeElement.id === 'text'")
    page.keyboard.type("word30x0 j?")
    assert page.input_value("#text") == "word30x0 j?"  # in a text box, letters are text
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("Escape")
    page.wait_for_selector("#help", state="hidden")
    page.keyboard.press("t")
    page.wait_for_selector("#thresholds:not([hidden])")
    page.keyboard.press("t")
    reached = set()
    page.evaluate("document.body.focus(), document.activeElement.blur()")
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(focused())
    assert {"skip", "theme", "help-open", "decision-", "url", "text", "alone"} <= reached


def test_a_newcomer_finds_the_rule_a_page_and_the_change(seen: Seen, decided: pd.DataFrame) -> None:
    page = seen.page
    guide = page.locator("#document .guide")
    page.wait_for_selector(".examples a")
    assert "short removed most of filter: 5 documents (8.9%), 4 of them alone." in guide.inner_text()
    alone = decided.index[only(decided, "short")]
    guide.get_by_role("button", name="All 4").click()
    expect_counts(page, decided, decided.index.isin(alone))
    page.locator("#list a").first.click()
    page.get_by_role("button", name="Move the threshold").click()
    until(page, "document.activeElement.getAttribute('aria-label') === 'Threshold of short'")


def test_axe_finds_nothing(chromium: Any, address: str, decided: pd.DataFrame) -> None:
    from axe_playwright_python.sync_playwright import Axe

    options = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"], "resultTypes": ["violations"]}
    number = decided.index[decided["url"] == HOSTILE_URL][0]
    chosen = f"#stage=filter&decision=dropped&rule=short&col=words&doc=filter/{number}"
    there = {"Documents": "#document .text", "Thresholds": ".slider .chart[data-drawn]", "Progress": "#progress td"}
    with opened(chromium, f"{address}{chosen}", bypass_csp=True) as seen:
        for view, part in there.items():
            seen.page.locator("#views a", has_text=view).click()
            seen.page.wait_for_selector(part)
            for theme in ("light", "dark"):
                seen.page.emulate_media(color_scheme=theme)
                found = Axe().run(seen.page, options=options).response["violations"]
                assert [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found] == [], (view, theme)
    assert seen.console == []


def test_a_phone_scrolls_only_up_and_down(chromium: Any, address: str, decided: pd.DataFrame) -> None:
    number = decided.index[decided["url"] == HOSTILE_URL][0]
    with opened(chromium, f"{address}#stage=filter&doc=filter/{number}", size=PHONE, is_mobile=True, has_touch=True) as seen:
        for view in ("Documents", "Thresholds", "Progress"):
            seen.page.locator("#views a", has_text=view).click()
            seen.page.wait_for_selector(f"#{view.lower()}:not([hidden])")
            seen.page.wait_for_selector("#document .text")
            assert seen.page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
        seen.page.locator("#views a", has_text="Documents").click()
        seen.page.locator("#filters summary").first.click()
        seen.page.get_by_label(re.compile("^dropped")).check()
        until(seen.page, "document.getElementById('count').textContent.startsWith('11 ')")


def test_the_theme_can_be_chosen_and_stays(seen: Seen) -> None:
    page, shade = seen.page, "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(shade)
    page.select_option("#theme", "dark")
    assert page.evaluate(shade) != light
    page.reload()
    page.wait_for_selector("#list tr")
    assert page.evaluate(shade) != light and page.input_value("#theme") == "dark"
