"""Tests the report in a real Chromium: layout, keyboard, print, screen readers, and hostile crawl text."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import PHONE, Seen, browser, expect_accessible, needs_chromium, opened
from hostile_run import ATTACKS, write_hostile_run
from report_page import FOCUSED, ROWS, quiet, scroll_through, visit
from waiting import until

from corpusmill.pipeline.safe import safe_line
from corpusmill.report.page.html import write_report
from corpusmill.report.queries.summary import read_summary

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def tab(chromium: Any) -> Iterator[Seen]:
    """Opens one tab for all tests."""
    with opened(chromium, "about:blank") as seen:
        yield seen


@pytest.fixture(scope="module")
def page(chromium: Any, report: str) -> Iterator[Any]:
    """Opens the report once, for tests that change nothing of the page that stays, except which details are open."""
    with opened(chromium, report) as seen:
        yield seen.page
        assert quiet(seen, report)


@pytest.fixture(scope="module")
def report(run_folder: Path) -> str:
    return Path(write_report(str(run_folder))).as_uri()


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> str:
    return Path(write_report(str(write_hostile_run(tmp_path_factory.mktemp("hostile") / "run")))).as_uri()


@pytest.mark.long
def test_on_a_phone(tab: Seen, report: str) -> None:
    page = visit(tab, report, PHONE)
    scroll_through(page)
    assert page.evaluate("[document.documentElement.scrollWidth, innerWidth]") == [PHONE[0], PHONE[0]]
    menu, sections = page.locator("button.menu"), page.locator("#section-list")
    assert not sections.is_visible()
    menu.press("Enter")
    assert menu.get_attribute("aria-expanded") == "true"
    sections.locator("a", has_text="Training").click()
    assert not sections.is_visible()
    top, bar = (f"document.querySelector('{name}').getBoundingClientRect()" for name in ("#training", "#sections"))
    until(page, f"{top}.top >= {bar}.bottom - 1 && {top}.top < {bar}.bottom + 40")  # the bar does not cover the chosen section
    until(page, "document.querySelector('button.menu').textContent === 'Training'")
    menu.press("Enter")
    menu.press("Escape")
    assert not sections.is_visible()
    wide = page.locator(".scroll[tabindex='0']").first
    assert wide.get_attribute("role") == "region" and wide.get_attribute("aria-label")
    wide.focus()
    page.keyboard.press("ArrowRight")
    until(page, "document.activeElement.scrollLeft > 0")
    assert page.locator(".scroll:not([tabindex])").count()  # a table that fits is no stop of the Tab key
    assert quiet(tab, report)


@pytest.mark.long
def test_by_keyboard(tab: Seen, report: str) -> None:
    page = visit(tab, report)
    page.keyboard.press("Tab")
    assert page.evaluate(FOCUSED)[2] == "Skip to the content"
    page.keyboard.press("Enter")
    until(page, "document.activeElement.id === 'main'")
    page.evaluate(f"window.stops = []; addEventListener('focusin', () => stops.push(({FOCUSED})()))")
    page.locator(".skip").focus()
    for _ in range(page.evaluate("document.querySelectorAll('a, button, select, input, summary, [tabindex]').length")):
        page.keyboard.press("Tab")
    stops = page.evaluate("stops")
    assert {("A", ""), ("SELECT", ""), ("BUTTON", "order"), ("SUMMARY", "")} <= {(tag, name) for tag, name, _, _ in stops}
    links = [text for tag, _, text, _ in stops if tag == "A"]
    assert links[:2] == ["Skip to the content", "Funnel"] and "Configuration and time" in links
    assert [stop for stop in stops if not stop[-1]] == []


@pytest.mark.long
def test_tables_sort_and_long_ones_scroll_in_their_box(page: Any) -> None:
    table = page.locator(page.evaluate(ROWS, [["b10", "1,234"], ["b9", "–"], ["a", "12.5%"], ["c", "< 3"]]))

    def column(place: int) -> list[str]:
        return table.locator(f"tbody td:nth-child({place})").all_inner_texts()

    name, number = table.locator("thead th").all()
    number.locator("button").press("Enter")
    assert column(2) == ["1,234", "12.5%", "< 3", "–"] and number.get_attribute("aria-sort") == "descending"
    number.locator("button").press("Enter")
    assert column(2) == ["< 3", "12.5%", "1,234", "–"] and number.get_attribute("aria-sort") == "ascending"
    name.locator("button").press("Enter")
    assert column(1) == ["a", "b9", "b10", "c"] and name.get_attribute("aria-sort") == "ascending"
    assert number.get_attribute("aria-sort") is None and name.get_attribute("scope") == "col"
    assert page.locator("main table button.order").count() > 20
    table.evaluate("table => table.closest('.scroll').remove()")
    long = page.locator(page.evaluate(ROWS, [[str(row), "1"] for row in range(90)]))
    box = long.evaluate("table => { const box = table.closest('.scroll'); return [box.clientHeight, box.scrollHeight]; }")
    assert box[0] < 600 < box[1] and long.locator("tbody tr").count() == 90  # a long table scrolls in its box, below its heads
    page.evaluate("document.querySelectorAll('main > .scroll:has(#made), main > .scroll:has(#made) + .all').forEach(it => it.remove())")


def test_a_chart_in_words(page: Any) -> None:
    words = page.locator("details.fold:has(summary b:text-is('words'))").first
    about = words.locator(".chart").get_attribute("aria-label") or ""
    assert words.locator(".chart").get_attribute("role") == "img"
    assert "kept: 45 in all" in about and "dropped: 11 in all" in about and "marked: < 20" in about
    loss = page.locator("figure:has(figcaption b:text-is('Loss'))").first
    assert "5 at 0, 0.1 at 49; least 0.1 at 49, most 5 at 0" in (loss.locator(".chart").get_attribute("aria-label") or "")


def test_a_link_opens_what_it_leads_to(page: Any) -> None:
    near = page.locator("details[id^=near-filter]").first
    assert near.get_attribute("open") is None
    page.evaluate("id => { location.hash = id; }", near.get_attribute("id"))
    until(page, "document.querySelector('details[id^=near-filter]:target')?.open")
    assert near.locator(".sample").first.is_visible()
    links = page.evaluate("[...document.querySelectorAll('#sections a')].map(link => link.hash)")
    assert links == page.evaluate("[...document.querySelectorAll('main h2')].map(heading => '#' + heading.id)")


def test_axe_finds_nothing(tab: Seen, report: str) -> None:
    """In the light theme; test_theme.py computes the contrast of both."""
    page = visit(tab, report)
    until(page, "document.querySelector('.chart svg')")
    expect_accessible(page, themes=("light",))


STACKED = {"kind": "steps", "x": [0, 1, 2, 3], "stack": True, "fill": True}
FIGURES = {
    "stacked steps": {"series": [{**STACKED, "name": "kept", "color": "kept", "y": [4, 0, 2]},
                                 {**STACKED, "name": "dropped", "color": "dropped", "y": [1, 3, 0]}],
                      "x": {"title": "words"}, "y": {"title": "documents", "zero": True}, "marks": [{"x": 1.5, "text": "< 1.5"}]},
    "bars by name": {"series": [{"kind": "bars", "name": "own", "color": "series0", "x": [], "y": [4.5, 1.25]}],
                     "x": {"names": ["en", "<b>de"]}, "y": {"zero": True}, "legend": True},
    "a curve over powers of ten": {"series": [{"kind": "line", "name": "loss", "color": "series0", "x": [0, 5, 10], "y": [100, 10, 1]}],
                                   "x": {"title": "step"}, "y": {"log": True}},
}  # fmt: skip
#: Draws a figure in a box of 400 pixels; returns what it shows in the units of its axes, read off their marks.
READ_OFF = """figure => {
  const box = document.querySelector('main').appendChild(document.createElement('div'));
  box.className = 'chart'; box.style.width = '400px'; box.id = 'drawn';
  const { svg } = plot.draw(box, figure);
  const value = (it, at) => Number(it.getAttribute(at));
  const number = text => Number(text.replace(/k$/, 'e3'));
  const labels = [...svg.querySelectorAll('text:not(.title, .mark)')];
  const of = anchor => labels.filter(it => it.getAttribute('text-anchor') === anchor && Number.isFinite(number(it.textContent)));
  const unit = (marks, at, log) => {  // the line through the first and the last mark of an axis
    const on = value => log ? Math.log10(value) : value;
    const [first, last] = [marks[0], marks.at(-1)].map(it => [value(it, at) - (at === 'y' ? 4 : 0), on(number(it.textContent))]);
    const from = pixel => first[1] + (pixel - first[0]) / (last[0] - first[0]) * (last[1] - first[1]);
    return pixel => log ? 10 ** from(pixel) : from(pixel);
  };
  const up = unit(of('end'), 'y', figure.y.log);
  const along = figure.x.names ? null : unit(of('middle'), 'x', figure.x.log);
  const round = value => Math.round(value * 20) / 20;
  const corners = path => path.getAttribute('d').match(/-?[\\d.]+,-?[\\d.]+/g).map(pair => pair.split(',').map(Number));
  return {
    steps: [...svg.querySelectorAll('path[fill=none]')].map(path => corners(path).map(([x, y]) => [round(along(x)), round(up(y))])),
    bars: [...svg.querySelectorAll('rect:not(.chosen)')].map(it => round(up(value(it, 'y')))),
    points: [...svg.querySelectorAll('circle')].map(it => [round(along(value(it, 'cx'))), round(up(value(it, 'cy')))]),
    marks: [...svg.querySelectorAll('line.mark')].map(it => round(along(value(it, 'x1')))),
    text: box.innerText,
  };
}"""


def test_charts_draw_their_numbers_and_tell_them_under_the_mouse(tab: Seen, report: str) -> None:
    """What is drawn is read off the axes, as a reader does."""
    page = visit(tab, report)
    found = {name: page.evaluate(READ_OFF, figure) for name, figure in FIGURES.items()}
    kept, dropped = found["stacked steps"]["steps"]
    assert kept == [[0, 4], [1, 4], [1, 0], [2, 0], [2, 2], [3, 2]]
    assert dropped == [[0, 5], [1, 5], [1, 3], [2, 3], [2, 2], [3, 2]] and found["stacked steps"]["marks"] == [1.5]
    assert found["bars by name"]["bars"] == [4.5, 1.25] and "<b>de" in found["bars by name"]["text"]
    assert found["a curve over powers of ten"]["points"] == [[0, 100], [5, 10], [10, 1]]
    chart = page.locator("#drawn").first
    box = chart.locator("svg").bounding_box()
    chart.locator("svg").hover(position={"x": box["width"] / 4, "y": 100})
    assert chart.locator(".tip").inner_text().splitlines() == ["0 to 1", "kept: 4", "dropped: 1"]
    page.mouse.move(0, 0)
    assert not chart.locator(".tip").is_visible() and tab.console == []


@pytest.mark.long
def test_the_slider_answers_the_keys(tab: Seen, random_run: Path) -> None:
    page, changes = visit(tab, Path(write_report(str(random_run))).as_uri()), read_summary(str(random_run)).page.changes["ratio"]
    slider = page.locator(".slider", has=page.get_by_label("Threshold of ratio", exact=True))
    page.locator("details.fold", has=slider).locator("summary").click()
    assert "now" in slider.locator("output").inner_text() and slider.locator("code").inner_text() == ""
    slider.locator("input").focus()
    page.keyboard.press("Home")
    first, said = changes.every[0], slider.locator("output").inner_text()
    assert f"{first['documents']:,} documents" in said and f"−{-first['more']:,}" in said and f"{first['characters']:,} characters" in said
    assert slider.locator("code").inner_text() == f"filter.thresholds.ratio={first['threshold']}"
    assert slider.locator("input").get_attribute("aria-valuetext") == said
    figure = page.locator("figure", has=slider)
    page.keyboard.press("End")
    figure.locator("svg text.mark", has_text=f">= {changes.every[-1]['threshold']:g}").wait_for()
    told = json.loads(slider.get_attribute("data-changes"))
    assert told["documents"] == [change["documents"] for change in changes.every] and tab.console == []


def test_attacks_are_text(tab: Seen, hostile: str) -> None:
    tab.page.context.set_offline(True)
    page = visit(tab, hostile)
    scroll_through(page)
    for place in range(0, 3000, 300):  # the labels under the mouse
        page.mouse.move(300 + place % 700, 300 + place % 500)
    assert page.evaluate("window.ran") is None and page.locator("main").is_visible()
    made = page.locator("main").locator(
        "iframe, img, svg[onload], style, script, object, embed, form, [onclick], [onerror], [href^='javascript']"
    )
    assert made.count() == 0
    text = page.locator("header").text_content() + page.locator("main").text_content()
    for attack in ATTACKS:
        assert text.count(safe_line(attack)) > 20, attack
    labels = str(page.locator(".chart").evaluate_all("charts => charts.map(chart => chart.getAttribute('aria-label'))"))
    assert "window.ran=1" in labels and not set("\u202e\u2066\x1b\x07") & set(text + labels)
    assert quiet(tab, hostile)
    tab.page.context.set_offline(False)


INJECTED = {
    "script-src-elem": "const it = document.createElement('script'); it.textContent = 'window.ran = 1'; document.body.append(it)",
    "script-src-attr": "document.body.insertAdjacentHTML('beforeend', '<img src=\"data:,\" onerror=\"window.ran = 1\">')",
    "style-src-elem": "const it = document.createElement('style'); it.textContent = 'main { display: none }'; document.head.append(it)",
    "connect-src": "fetch('https://example.test/').catch(() => null)",
    "img-src": "new Image().src = 'https://example.test/x.png'",
    "frame-src": "const it = document.createElement('iframe'); it.src = 'https://example.test/'; document.body.append(it)",
    "form-action": "const it = document.createElement('form'); it.action = 'https://example.test/'; document.body.append(it); it.submit()",
}


def test_the_policy_is_in_force(tab: Seen, report: str) -> None:
    page = visit(tab, report)
    finished: list[str] = []
    page.on("requestfinished", lambda request: finished.append(request.url) if not request.url.startswith("data:") else None)
    page.evaluate("addEventListener('securitypolicyviolation', event => { (window.refused ||= []).push(event.effectiveDirective); })")
    for attempt in INJECTED.values():
        page.evaluate(f"() => {{ {attempt} }}")
    until(page, f"new Set(window.refused).size >= {len(INJECTED)}")
    assert set(page.evaluate("refused")) == set(INJECTED)
    assert page.evaluate("window.ran") is None and page.locator("main").is_visible() and finished == []
    assert str(tab.console).count("Content Security Policy") >= len(INJECTED)
