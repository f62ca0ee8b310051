"""Tests the list of runs, the comparison, saved files and the token in Chromium."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asking import Row
from browser import PHONE, Seen, expect_accessible, needs_chromium, opened
from built_run import HOSTILE, write_run
from explored import consoled, decisions, explored
from hostile_run import ATTACKS, write_hostile_run
from many_runs import write_many_runs
from waiting import drawn, until

from corpusmill.report.explore import parameters, server

pytestmark = needs_chromium
NAMES = "[...document.querySelectorAll('#list .opener')].map(link => link.textContent)"
COMPARED = "#view=compare&compare=first&compare=group%2Fsecond"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with explored(write_many_runs(tmp_path_factory.mktemp("runs"))) as address:
        yield address


@pytest.fixture
def listed(chromium: Any, runs: str) -> Iterator[Seen]:
    """Opens the list; after the test, the page must have printed nothing and asked only its server."""
    with opened(chromium, runs) as seen:
        until(seen.page, "document.querySelectorAll('#list .opener').length === 3")
        until(seen.page, "document.getElementById('count').textContent === '3 runs'")  # all of them are read
        drawn(seen.page)
        yield seen
        assert seen.console == []
        assert [url for url in seen.requests if not url.startswith(runs)] == []


def test_the_list_is_sorted_and_filtered_as_one_types(listed: Seen) -> None:
    page = listed.page
    assert page.evaluate(NAMES) == ["damaged", "first", "group/second"]
    assert "run.json: not readable JSON" in page.locator("#list tr").first.inner_text()
    for order in ("ascending", "descending"):  # a run without a share comes last in both
        page.get_by_role("button", name="Kept").click()
        page.wait_for_selector(f"th[aria-sort={order}]")
        until(page, f"{NAMES}[2] === 'damaged'")
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_role("button", name="Run", exact=True).click()
    until(page, f"String({NAMES}) === 'group/second,first,damaged'")
    page.keyboard.press("/")
    page.keyboard.type("GROUP sec")
    until(page, f"String({NAMES}) === 'group/second'")
    assert drawn(page).inner_text("#count") == "1 of 3 runs"
    assert "find=GROUP+sec" in page.url


def test_a_row_opens_its_run_and_back_returns(listed: Seen) -> None:
    page = listed.page
    page.locator("#list tr", has_text="first").locator("td").nth(3).click()
    until(page, "document.getElementById('run').textContent.endsWith('/first')")
    assert drawn(page).url.split("#")[1].startswith("run=first")
    page.locator("#list tr").nth(2).locator(".number").last.click()  # the whole row of a document opens it
    page.wait_for_selector("#document .text")
    drawn(page).get_by_role("link", name="All runs").click()
    until(page, f"{NAMES}.includes('damaged')")
    drawn(page).locator("#list a", has_text="damaged").click()
    until(page, "document.getElementById('error').textContent.includes('no stage of this run has a report yet')")
    drawn(page)
    listed.console.clear()  # Chromium prints the answer's status


class Noted(parameters.Asked):
    words: str


@pytest.mark.long
def test_the_token_leaves_the_address_and_an_action_carries_it(
    chromium: Any, run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(run_folder, tmp_path / "run")
    monkeypatch.setitem(server.ACTIONS, "note", (Noted, lambda _, body: {"said": body.words}))
    act = f"import('/static/api.js').then(api => api.act('note', {{ words: {json.dumps(HOSTILE)} }})).catch(error => error.message)"
    with consoled(tmp_path / "run", write=True) as (console, address):
        with opened(chromium, f"{address}#token={console.token}&stage=filter") as seen:
            drawn(seen.page)
            assert console.token not in seen.page.url and "stage=filter" in seen.page.url
            assert not any(console.token in url.split("#")[0] for url in seen.requests)
            assert seen.page.evaluate(act) == {"said": HOSTILE}
            seen.page.reload()
            assert drawn(seen.page).evaluate(act) == {"said": HOSTILE} and seen.console == []
        with opened(chromium, address) as seen:  # another tab
            assert "may not change anything" in drawn(seen.page).evaluate(act)
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert [line["message"] for line in lines if line["event"] == "action"] == ["explore: note"] * 2


def hostile_runs(folder: Path) -> list[str]:
    """Writes runs whose names, recipes and inputs are attacks, and returns their names."""
    names = [attack.replace("/", "\u2215").replace("\0", "")[:100] for attack in ATTACKS[:6]]
    for name in names:
        write_run(folder / name, ("ingest", "filter"))
        described: Row = {"inputs": list(ATTACKS), "recipe": {"filter": {"preset": HOSTILE, "steps": [{ATTACKS[0]: {}}]}}, "versions": {}}
        (folder / name / "run.json").write_text(json.dumps(described))
    write_hostile_run(folder / "hostile")
    return sorted(names)


@pytest.mark.long
def test_hostile_names_of_runs_do_nothing(chromium: Any, tmp_path: Path) -> None:
    names, hostile = hostile_runs(tmp_path), tmp_path / "hostile"
    with explored(tmp_path) as address, opened(chromium, address) as seen:
        page = seen.page
        until(page, f"document.getElementById('count').textContent === '{len(names) + 1} runs'")
        drawn(page).get_by_label("Compare hostile").check()
        page.locator("#list input").first.check()
        page.get_by_role("button", name="Compare 2 runs").click()
        page.wait_for_selector("#compare-keys table")
        page.wait_for_selector("#compare-columns h3")
        drawn(page).go_back()
        drawn(page).locator("#list .opener", has_text="hostile").click()
        page.wait_for_selector("#stages button")
        for box in drawn(page).locator("#rule-list input").all():
            box.check()
        drawn(page).get_by_role("button", name="Clear all", exact=True).click()
        drawn(page).locator("#language-list button", has_text="__proto__").click()
        until(page, f"document.getElementById('count').textContent.startsWith('{(decisions(hostile)['language'] == '__proto__').sum()} ')")
        page.click("#columns > summary")
        for box in drawn(page).locator("#column-list input").all():
            box.check()
        drawn(page).locator("#list a").first.click()
        page.wait_for_selector("#document .text")
        page.get_by_role("link", name="Thresholds").click()
        page.wait_for_selector(".slider .chart[data-drawn]")
        drawn(page).locator(".slider input[type=number]").first.fill("5")
        page.get_by_role("button", name="Recipe line").click()
        assert drawn(page).evaluate("window.ran") is None
        assert page.locator("main script, img, iframe, main a[href^=javascript], main style").count() == 0
        assert {url.split("/")[2] for url in seen.requests} == {address.split("/")[2]} and seen.console == []


@pytest.mark.long
@pytest.mark.parametrize("fragment", ["", COMPARED])
def test_axe_finds_nothing_and_a_phone_scrolls_only_up_and_down(chromium: Any, runs: str, fragment: str) -> None:
    with opened(chromium, runs + fragment, size=PHONE, bypass_csp=True) as seen:
        seen.page.wait_for_selector("#compare-columns article" if fragment else "#list tr")
        if fragment:
            seen.page.locator("#compare-columns article").first.scroll_into_view_if_needed()
            seen.page.wait_for_selector("#compare-columns .chart[data-drawn]")
        assert drawn(seen.page).evaluate("document.documentElement.scrollWidth") <= PHONE[0]
        for size in (PHONE, (1280, 900)):
            seen.page.set_viewport_size({"width": size[0], "height": size[1]})
            expect_accessible(seen.page, size)
