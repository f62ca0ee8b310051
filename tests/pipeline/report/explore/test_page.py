"""The explorer's page in Chromium: what it shows against pandas and the API, the keyboard, links, hostile text."""

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pandas as pd
import pyarrow.parquet as pq
import pytest
from browser import DESK, PHONE, Seen, needs_chromium
from browser import opened as opened_slowly
from built_run import HOSTILE, HOSTILE_URL

pytestmark = needs_chromium


@pytest.fixture(scope="session")
def decided(run_folder: Path) -> pd.DataFrame:
    """The filter stage's report."""
    report = pd.concat([pq.read_table(path).to_pandas() for path in sorted((run_folder / "filter/report").iterdir())], ignore_index=True)
    return report.assign(host=report["url"].str.extract("//([^/]+)/", expand=False))


@pytest.fixture
def seen(chromium: Any, address: str) -> Iterator[Seen]:
    """The page as it opens; whatever a test did, it said nothing on the console and asked nobody else."""
    with opened(chromium, address) as seen:
        seen.page.wait_for_selector("#list tr")
        yield seen
        assert seen.console == []
        assert [url for url in seen.requests if not url.startswith(address)] == []


@contextmanager
def opened(chromium: Any, address: str, size: tuple[int, int] = DESK, **options: Any) -> Iterator[Seen]:
    """A page of this machine is there soon, or never."""
    with opened_slowly(chromium, address, size, **options) as seen:
        seen.page.set_default_timeout(6000)
        yield seen


def until(page: Any, condition: str, seconds: float = 6) -> None:
    """Waits for a condition of JavaScript (Playwright's own way of waiting needs `eval`, which the page's policy refuses)."""
    over = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < over, f"not in {seconds} s: {condition}; {page.inner_text('#error')}"
        time.sleep(0.02)


def answer(address: str, path: str) -> Any:
    with urlopen(f"{address}api/{path}") as response:
        return json.load(response)


def fired(decided: pd.DataFrame, *rules: str) -> pd.Series:
    return decided["failed"].map(lambda failed: set(rules) <= set(failed))


def only(decided: pd.DataFrame, rule: str) -> pd.Series:
    return decided["failed"].map(lambda failed: list(failed) == [rule])


def expect_counts(page: Any, decided: pd.DataFrame, wanted: pd.Series) -> None:
    """The sentence over the list, the listed keys and the counts of rules are those of the rows that are wanted."""
    rows = decided[wanted]
    until(page, 
        f"document.getElementById('count').textContent.startsWith('{len(rows)} document') && "
        "!document.querySelector('[aria-busy]') && document.documentElement.dataset.busy === 'false'"
    )
    said = page.inner_text("#count")
    if len(rows):
        share = "100.0 %" if rows["kept"].all() else f"{rows['kept'].mean():.1%}".replace("%", " %")
        assert f"{share} of them kept" in said
    listed = [f"filter/{number}" for number in rows.index[:50]]
    assert page.eval_on_selector_all("#list tr", "rows => rows.map(row => row.dataset.doc)") == listed
    counts = {rule: (int(fired(rows, rule).sum()), int(only(rows, rule).sum())) for rule in ("short", "symbols", "language")}
    for rule, (both, alone) in counts.items():
        shown = page.locator("#rule-list li", has=page.get_by_text(rule, exact=True)).locator(".number").inner_text()
        assert shown == f"{both} ({alone})"


def test_filters_give_the_counts_of_the_report(seen: Seen, decided: pd.DataFrame) -> None:
    page, wanted = seen.page, pd.Series(True, decided.index)
    expect_counts(page, decided, wanted)
    page.get_by_label(re.compile("^dropped")).check()
    wanted &= ~decided["kept"]
    expect_counts(page, decided, wanted)
    page.get_by_label(re.compile("^symbols")).check()
    expect_counts(page, decided, wanted & fired(decided, "symbols"))
    page.get_by_label("only the chosen ones fired").check()
    expect_counts(page, decided, wanted & only(decided, "symbols"))
    page.get_by_role("button", name="Clear all", exact=True).click()
    expect_counts(page, decided, pd.Series(True, decided.index))
    page.locator("#language-list button", has_text="de").click()
    wanted = decided["language"] == "de"
    expect_counts(page, decided, wanted)
    page.locator("#facet-host summary").click()
    page.locator("#host-list button", has_text="host1.test").click()
    wanted &= decided["host"] == "host1.test"
    expect_counts(page, decided, wanted)
    page.fill("#url", "-4")
    wanted &= decided["url"].str.contains("-4", regex=False)
    expect_counts(page, decided, wanted)
    assert wanted.sum() not in (0, len(decided))
    page.fill("#url", "nowhere")
    page.wait_for_selector(".empty")
    expect_counts(page, decided, pd.Series(False, decided.index))


def test_a_range_is_typed_or_drawn_with_the_mouse(seen: Seen, decided: pd.DataFrame) -> None:
    page = seen.page
    page.click("#ranges > summary")
    page.select_option("#range-column", "words")
    page.wait_for_selector("#range-chart[data-drawn]")
    said = answer(page.url.split("#")[0], "histogram?stage=filter&column=words")
    assert f"{sum(said['kept'])} kept and {sum(said['dropped'])} dropped" in page.inner_text("#range-said")
    page.fill("#range-low", "40")
    page.fill("#range-high", "60")
    expect_counts(page, decided, decided["words"].between(40, 60))
    place = page.locator("#range-chart .nsewdrag")
    place.scroll_into_view_if_needed()
    box = place.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + 30, steps=4)
    page.mouse.up()
    until(page, "document.getElementById('range-low').value !== '40'")
    low, high = (float(page.input_value(f"#range-{end}")) for end in ("low", "high"))
    assert low == int(low) and high == int(high) and 40 < low < high
    expect_counts(page, decided, decided["words"].between(low, high))


def test_the_list_is_ordered_and_shows_chosen_values(seen: Seen, decided: pd.DataFrame) -> None:
    page = seen.page
    page.click("#columns > summary")
    page.get_by_label("symbol_ratio").check()
    page.get_by_role("button", name="symbol_ratio").click()
    page.get_by_role("button", name="symbol_ratio").click()
    page.wait_for_selector("th[aria-sort=descending]")
    until(page, "document.documentElement.dataset.busy === 'false'")
    shown = page.eval_on_selector_all("#list tr", "rows => rows.map(row => Number(row.lastElementChild.textContent))")
    assert shown == sorted(decided["symbol_ratio"], reverse=True)[:50]
    page.get_by_role("button", name="Show 6 more").click()
    until(page, f"document.querySelectorAll('#list tr').length === {len(decided)}")


def test_sliders_show_what_the_api_says(seen: Seen, address: str, decided: pd.DataFrame) -> None:
    page = seen.page
    page.get_by_role("link", name="Thresholds").click()
    slider = page.get_by_label("Threshold of short", exact=True)
    slider.focus()
    until(page, "document.querySelectorAll('.slider .chart[data-drawn]').length >= 2")
    for _ in range(14):
        slider.press("ArrowRight")
    others = fired(decided, "symbols") | fired(decided, "language")
    kept = ~others & (decided["words"] >= 34)
    until(page, f"document.getElementById('kept-share').textContent.includes('→ {kept.sum()},')")
    assert f"Kept {kept.mean():.1%}".replace("%", " %") in page.inner_text("#kept-share")
    card = page.locator(".slider[data-rule=short]")
    assert f"drops 5 → {int((decided['words'] < 34).sum())}" in card.locator(".counts").inner_text()
    page.get_by_role("button", name="would go").click()
    lost = decided.index[decided["kept"] & ~kept]
    page.wait_for_selector(".changed a")
    assert page.eval_on_selector_all("#changed .opener", "links => links.map(link => link.dataset.doc)") == [
        f"filter/{row}" for row in lost
    ]
    page.get_by_role("button", name="Recipe line").click()
    said = answer(address, "thresholds?stage=filter&set.short=34")
    assert [box.inner_text().strip() for box in page.locator("#recipe .command").all()] == [said["recipe"].strip(), said["command"].strip()]
    assert "34" in said["recipe"] and "34" in said["command"]
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Reset").click()
    until(page, "!document.getElementById('kept-share').textContent.includes('was')")
    assert slider.get_attribute("aria-valuetext") == "20"


def test_a_rule_is_switched_off_and_a_threshold_typed(seen: Seen, decided: pd.DataFrame) -> None:
    page = seen.page
    page.get_by_role("link", name="Thresholds").click()
    page.get_by_label("Rule symbols is on").uncheck()
    page.get_by_label("Threshold of language as a number").fill("0.4")
    kept = ~fired(decided, "short") & ~(decided["language_score"] < 0.4)
    until(page, f"document.getElementById('kept-share').textContent.includes('→ {kept.sum()},')")
    page.get_by_label("Threshold of language as a number").blur()
    assert "set.symbols=off" in page.url and "set.language=0.4" in page.url


def test_a_document_opens_with_its_text_values_copies_and_tokens(seen: Seen, decided: pd.DataFrame) -> None:
    page = seen.page
    number = decided.index[decided["url"].str.endswith("page-14.html")][0]
    page.locator(f"#list tr[data-doc='filter/{number}'] a").click()
    page.wait_for_selector("#document .text")
    row = decided.loc[number]
    assert page.inner_text("#document .text") == " ".join(f"word14x{place}" for place in range(3))
    failed = page.locator("#document .failed li").all_inner_texts()
    assert [line.split(" failed")[0] for line in failed] == ["✗ filter: short", "✗ filter: symbols"]
    assert "words is 3; it drops when that is below 20" in failed[0]
    page.locator(".stage summary", has_text="filter").click()
    values = page.locator(".stage[open] .values tbody tr").all_inner_texts()
    assert f"symbol_ratio\t{row['symbol_ratio']}\t✗ symbols failed: drops when it is above 0.1" in values
    assert page.locator("#list tr[aria-current]").get_attribute("data-doc") == f"filter/{number}"

    number = decided.index[decided["url"].str.endswith("page-43.html")][0]
    page.locator(f"#list tr[data-doc='filter/{number}'] a").click()
    page.wait_for_selector(".cluster")
    members = page.locator(".cluster li")
    assert members.count() == 4 and "(this one stays)" in members.filter(has_text="page-43.html").inner_text()
    assert "similarity 0.84" in members.filter(has_text="page-42.html").inner_text()
    tokens = "".join(page.locator(".token").all_text_contents())
    assert tokens.startswith("word43x0·word43x1·word43x2")
    assert any("corpusmill why" in command for command in page.locator("#document .command").all_inner_texts())


def test_hostile_text_is_shown_and_does_nothing(seen: Seen, decided: pd.DataFrame) -> None:
    page = seen.page
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    number = decided.index[decided["url"] == HOSTILE_URL][0]
    page.locator(f"#list tr[data-doc='filter/{number}'] a").click()
    page.wait_for_selector("#document .text")
    shown = page.inner_text("#document .text")
    assert shown.startswith(
        "before<script>alert(1)</script><img src=x onerror=alert(2)> ESC[31mredESC]0;titleBEL RLOright to leftPDF after"
    )
    assert page.inner_text("#document h2") == 'http://evil.test/<b onmouseover=alert(3)>?q="RLOESC[2J'
    assert page.locator("#document .text .control").count() == 5
    page.hover("#document h2")
    assert page.locator("main script, img, iframe, main b[onmouseover], a[href^=http]").count() == 0
    assert not set(HOSTILE) & set("\x1b\u202e") & set(page.evaluate("document.body.innerText + document.body.outerHTML"))
    assert dialogs == []


def test_back_forward_and_links_bring_a_view_again(seen: Seen, chromium: Any, decided: pd.DataFrame) -> None:
    page = seen.page
    page.get_by_label(re.compile("^dropped")).check()
    page.get_by_label(re.compile("^short")).check()
    expect_counts(page, decided, fired(decided, "short"))
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
    assert focused() == "filter/1"  # the list is drawn anew, and the focus is where it was
    page.keyboard.press("Escape")
    page.wait_for_selector("#document .guide")
    page.keyboard.press("/")
    until(page, "document.activeElement.id === 'text'")
    page.keyboard.type("word30x0 j?")
    assert page.input_value("#text") == "word30x0 j?"  # in a box, letters are letters
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("t")
    page.wait_for_selector("#thresholds:not([hidden])")
    page.keyboard.press("t")
    reached = set()
    page.evaluate("document.body.focus(), document.activeElement.blur()")
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(focused())
    assert {"skip", "theme", "help-open", "decision-", "url", "text", "alone"} <= reached


def test_a_search_in_the_texts_marks_hits_and_goes_on(seen: Seen, decided: pd.DataFrame) -> None:
    page = seen.page
    page.fill("#text", "x2 ")
    until(page, "document.getElementById('searched').textContent.includes('searched')")
    page.get_by_role("button", name="Search on").click()
    until(page, "document.getElementById('searched').textContent.includes('that is all')")
    assert page.locator("#list tr").count() == len(decided) - 5  # texts of three words have no space behind the third
    assert "51 documents" in page.inner_text("#count")
    page.locator("#list a").first.click()
    page.wait_for_selector("#document mark")
    assert page.locator("#document mark").all_inner_texts() == ["x2 "]
    page.get_by_role("button", name="Next hit").click()
    assert "1 of 1" in page.inner_text(".hits")


def test_a_newcomer_finds_the_rule_a_page_and_the_change(seen: Seen, decided: pd.DataFrame) -> None:
    page = seen.page
    guide = page.locator("#document .guide")
    page.wait_for_selector(".examples a")
    assert "short removed most of filter: 5 documents (8.9 %), 4 of them alone." in guide.inner_text()
    alone = decided.index[only(decided, "short")]
    guide.get_by_role("button", name="All 4").click()
    expect_counts(page, decided, decided.index.isin(alone))
    page.locator("#list a").first.click()
    page.get_by_role("button", name="Move the threshold").click()
    until(page, "document.activeElement.getAttribute('aria-label') === 'Threshold of short'")


def test_what_the_server_refuses_is_a_sentence(chromium: Any, address: str) -> None:
    with opened(chromium, f"{address}#stage=filter&rule=nope") as seen:
        seen.page.wait_for_selector("#error:not([hidden])")
        assert "has no rule 'nope'" in seen.page.inner_text("#error")
        seen.page.get_by_role("button", name="Take away: rule nope").click()
        seen.page.wait_for_selector("#error", state="hidden")
        assert seen.page.locator("#list tr").count() == 50
    with opened(chromium, f"{address}#stage=<b>x&low.words=many&view=nothing") as seen:
        seen.page.wait_for_selector("#list tr")
        assert "There is no report of a stage <b>x here: this is filter." in seen.page.inner_text("#error")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing(chromium: Any, address: str, decided: pd.DataFrame, theme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    options = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}
    number = decided.index[decided["url"] == HOSTILE_URL][0]
    with opened(
        chromium, f"{address}#stage=filter&decision=dropped&rule=short&col=words&doc=filter/{number}", theme=theme, bypass_csp=True
    ) as seen:
        for view in ("", "thresholds", "progress"):
            if view:
                seen.page.locator("#views a", has_text=view.title()).click()
            seen.page.wait_for_selector({"": "#list tr", "thresholds": ".slider .chart[data-drawn]", "progress": "#progress td"}[view])
            found = Axe().run(seen.page, options=options).response["violations"]
            assert [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found] == []
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
