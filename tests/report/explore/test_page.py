"""Tests the explorer's page in Chromium against pandas and the API, and with hostile text."""

import re
from typing import Any

import pandas as pd
import pytest
from browser import Seen, needs_chromium, opened
from built_run import HOSTILE, HOSTILE_URL
from explored import answer, expect_counts, fired, only
from waiting import drawn, until

pytestmark = needs_chromium


def test_filters_give_the_counts_of_the_report(seen: Seen, decided: pd.DataFrame) -> None:
    page = seen.page
    page.get_by_label(re.compile("^dropped")).check()
    page.get_by_label(re.compile("^symbols")).check()
    page.get_by_label("only the chosen ones fired").check()
    expect_counts(page, decided, only(decided, "symbols"))
    page.get_by_role("button", name="Clear all", exact=True).click()
    expect_counts(page, decided, pd.Series(True, decided.index))
    page.locator("#language-list button", has_text="de").click()
    german, symbols = decided["language"] == "de", fired(decided, "symbols")
    expect_counts(page, decided, german)
    shares = f"{symbols[german].mean():.1%} of these, {symbols[~german].mean():.1%} of all others"
    page.locator("#rule-list li", has_text="symbols").get_by_text(shares).wait_for()
    kept = decided["kept"]
    page.get_by_text(f"{kept[german].mean():.1%} of them kept, {kept[~german].mean():.1%} of all others").wait_for()
    page.locator("#facet-host summary").click()
    page.locator("#host-list button", has_text="host1.test").click()
    page.fill("#url", "-4")
    wanted = (decided["language"] == "de") & (decided["host"] == "host1.test") & decided["url"].str.contains("-4", regex=False)
    expect_counts(page, decided, wanted)
    assert wanted.sum() not in (0, len(decided))
    page.fill("#url", "nowhere")
    page.wait_for_selector(".empty")


@pytest.mark.long
def test_sliders_show_what_the_api_says(seen: Seen, address: str, decided: pd.DataFrame) -> None:
    page = seen.page
    page.get_by_role("link", name="Thresholds").click()
    slider = page.get_by_label("Threshold of short", exact=True)
    until(page, "document.querySelectorAll('.slider .chart[data-drawn]').length >= 2")
    page.get_by_label("Threshold of short as a number").fill("37")
    slider.focus()
    for _ in range(3):
        slider.press("ArrowRight")
    others = fired(decided, "symbols") | fired(decided, "language")
    kept = ~others & (decided["words"] >= 40)
    until(page, f"document.getElementById('kept-share').textContent.includes('→ {kept.sum()},')")
    assert f"Kept {kept.mean():.1%}" in drawn(page).inner_text("#kept-share")
    card = page.locator(".slider[data-rule=short]")
    assert f"drops 5 → {int((decided['words'] < 40).sum())}" in card.locator(".counts").inner_text()
    page.get_by_role("button", name="would go").click()
    lost = decided.index[decided["kept"] & ~kept]
    page.wait_for_selector(".changed a")
    assert drawn(page).eval_on_selector_all("#changed .opener", "links => links.map(link => link.dataset.doc)") == [
        f"filter/{row}" for row in lost
    ]
    drawn(page).get_by_role("button", name="Recipe line").click()
    said = answer(address, "thresholds?stage=filter&set.short=40")
    assert [box.inner_text().strip() for box in page.locator("#recipe .command").all()] == [
        said[name].strip() for name in ("recipe", "command", "next")
    ]
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Reset").click()
    until(page, "!document.getElementById('kept-share').textContent.includes('was')")
    page.get_by_label("Rule symbols is on").uncheck()
    kept = decided["failed"].map(lambda failed: set(failed) <= {"symbols"})
    until(page, f"document.getElementById('kept-share').textContent.includes('→ {kept.sum()},')")
    assert "set.symbols=off" in drawn(page).url


def test_hostile_text_is_shown_and_does_nothing(seen: Seen, decided: pd.DataFrame) -> None:
    page = seen.page
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    number = decided.index[decided["url"] == HOSTILE_URL][0]
    page.locator(f"#list tr[data-doc='filter/{number}'] a").click()
    page.wait_for_selector("#document .text")
    shown = drawn(page).inner_text("#document .text")
    assert shown.startswith(
        "before<script>alert(1)</script><img src=x onerror=alert(2)> ESC[31mredESC]0;titleBEL RLOright to leftPDF after"
    )
    assert page.inner_text("#document h2") == 'http://evil.test/<b onmouseover=alert(3)>?q="RLOESC[2J'
    assert page.locator("#document .text .control").count() == 5
    page.hover("#document h2")
    assert page.locator("main script, img, iframe, main b[onmouseover], a[href^=http]").count() == 0
    assert not set(HOSTILE) & set("\x1b\u202e") & set(page.evaluate("document.body.innerText + document.body.outerHTML"))
    assert dialogs == []


def test_a_search_in_the_texts_marks_hits_and_goes_on(seen: Seen, decided: pd.DataFrame) -> None:
    page = seen.page
    page.fill("#text", "x80 ")
    until(page, "document.getElementById('searched').textContent.includes('that is all')")
    drawn(page).locator("#list a").first.click()
    page.wait_for_selector("#document mark")
    mark, box = (drawn(page).locator(part).bounding_box() for part in ("#document mark", "#document .text"))
    assert box["y"] <= mark["y"] <= box["y"] + box["height"] - mark["height"]  # the first hit is in sight
    page.fill("#text", "x2 ")
    drawn(page).get_by_role("button", name="Search on").click()
    until(page, "document.getElementById('searched').textContent.includes('that is all')")
    assert drawn(page).locator("#list tr").count() == len(decided) - 5  # texts of three words have no space after the third
    assert "51 documents" in page.inner_text("#count")
    page.locator("#list a").first.click()
    assert drawn(page).locator("#document mark").all_inner_texts() == ["x2 "]
    page.get_by_role("button", name="Next hit").click()
    assert "1 of 1" in drawn(page).inner_text(".hits")


@pytest.mark.long
def test_what_the_server_refuses_is_a_sentence(chromium: Any, address: str) -> None:
    with opened(chromium, f"{address}#stage=filter&rule=nope") as seen:
        seen.page.wait_for_selector("#error:not([hidden])")
        assert "has no rule 'nope'" in drawn(seen.page).inner_text("#error")
        seen.page.get_by_role("button", name="Take away: rule nope").click()
        seen.page.wait_for_selector("#error", state="hidden")
        assert drawn(seen.page).locator("#list tr").count() == 50
    with opened(chromium, f"{address}#stage=<b>x&low.words=many&view=nothing") as seen:
        seen.page.wait_for_selector("#error:not([hidden])")
        assert "There is no report of a stage <b>x here: this is filter." in drawn(seen.page).inner_text("#error")
