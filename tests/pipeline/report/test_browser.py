"""The report in a real Chromium: as it looks, by keyboard, on paper, for screen readers, and with crawl text that attacks it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import DESK, PHONE, Seen, browser, needs_chromium, opened
from hostile_run import ATTACKS, write_hostile_run

from corpusmill.pipeline.report.html import write_report
from corpusmill.pipeline.report.safe import safe_line

pytestmark = needs_chromium
#: WCAG 2.2, levels A and AA; and what axe calls best practice.
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def report(run_folder: Path) -> str:
    return Path(write_report(str(run_folder))).as_uri()


@pytest.fixture(scope="module")
def desk(chromium: Any, report: str) -> Iterator[Seen]:
    """The page on a wide screen, for tests that leave it as it is."""
    with opened(chromium, report) as seen:
        yield seen


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> str:
    return Path(write_report(str(write_hostile_run(tmp_path_factory.mktemp("hostile") / "run")))).as_uri()


def until(seen: Seen, condition: str) -> None:
    """Waits for a JavaScript expression to be true (as a function: the page's policy lets no text be evaluated)."""
    seen.page.wait_for_function(f"() => {condition}")


def scroll_through(seen: Seen) -> None:
    """Shows each chart of the page, as somebody who reads all of it."""
    seen.page.evaluate("for (const closed of document.querySelectorAll('details')) closed.open = true")
    for chart in seen.page.locator(".chart").all():
        chart.scroll_into_view_if_needed()
    until(seen, "drawn.size === charts.length")


def quiet(seen: Seen, url: str) -> bool:
    """Whether the page said nothing on the console and asked for nothing but itself."""
    assert seen.console == []
    assert {request.partition(",")[0] for request in seen.requests} <= {url, "data:"}  # its icon is an empty data address
    return True


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_all_charts_are_drawn_in_the_colours_of_the_theme(chromium: Any, report: str, theme: str) -> None:
    with opened(chromium, report, theme=theme) as seen:
        first = seen.page.evaluate("[drawn.size, charts.length]")
        assert first[0] < first[1]  # only those in view
        scroll_through(seen)
        assert seen.page.locator(".chart .main-svg").count() >= first[1] > 10
        kept, page = seen.page.evaluate("[theme.color('kept'), getComputedStyle(document.body).backgroundColor]")
        assert (kept, page) == {"light": ("rgb(31, 111, 178)", "rgb(251, 251, 249)"), "dark": ("rgb(109, 179, 238)", "rgb(20, 24, 28)")}[
            theme
        ]
        assert seen.page.evaluate("color => document.querySelector('.chart').innerHTML.includes(color)", kept)
        assert quiet(seen, report)


def test_the_page_answers_before_plotly_is_there(run_folder: Path, report: str) -> None:
    page = (run_folder / "report.html").read_text("utf-8")
    assert 0 < page.index("const theme =") < page.index("<main") < page.index("const tables =") < page.index("plotly.js v")


def test_a_chosen_theme_stays(chromium: Any, report: str) -> None:
    with opened(chromium, report, theme="light") as seen:
        seen.page.select_option(".theme select", "dark")
        assert seen.page.evaluate("theme.color('page')") == "rgb(20, 24, 28)"
        until(seen, "document.querySelector('.chart').innerHTML.includes('rgb(109, 179, 238)')")
        seen.page.reload()
        assert seen.page.evaluate("[theme.color('page'), document.querySelector('.theme select').value]") == ["rgb(20, 24, 28)", "dark"]
        seen.page.select_option(".theme select", "")
        assert seen.page.evaluate("theme.color('page')") == "rgb(251, 251, 249)"
        assert seen.console == []


def test_without_storage(chromium: Any, report: str) -> None:
    """As in a browser that keeps nothing for pages from disk."""
    refuse = "Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('no storage', 'SecurityError'); }})"
    context = chromium.new_context()
    context.add_init_script(refuse)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(report)
    page.select_option(".theme select", "dark")
    assert page.evaluate("theme.color('page')") == "rgb(20, 24, 28)" and errors == []
    context.close()


def test_on_a_phone(chromium: Any, report: str) -> None:
    with opened(chromium, report, PHONE) as seen:
        scroll_through(seen)
        width = seen.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert width == [PHONE[0], PHONE[0]]
        menu = seen.page.locator("button.menu")
        assert not seen.page.locator("#section-list").is_visible()
        menu.press("Enter")
        assert menu.get_attribute("aria-expanded") == "true"
        seen.page.locator("#section-list a", has_text="Training").click()
        assert not seen.page.locator("#section-list").is_visible()
        below = "document.querySelector('#training').getBoundingClientRect().top - document.querySelector('#sections').getBoundingClientRect().bottom"
        until(seen, f"{below} >= -1 && {below} < 40")  # what was chosen is not behind the bar
        until(seen, "document.querySelector('button.menu').textContent === 'Training'")
        menu.press("Enter")
        menu.press("Escape")
        assert not seen.page.locator("#section-list").is_visible()
        wide = seen.page.locator(".scroll[tabindex='0']").first
        assert wide.get_attribute("role") == "region" and wide.get_attribute("aria-label")
        wide.focus()
        seen.page.keyboard.press("ArrowRight")
        until(seen, "document.activeElement.scrollLeft > 0")
        assert seen.page.locator(".scroll:not([tabindex])").count()  # what fits is no stop of the Tab key
        assert quiet(seen, report)


FOCUSED = """() => { const it = document.activeElement; const style = getComputedStyle(it);
  return [it.tagName, it.className, it.textContent.trim().slice(0, 60), style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2]; }"""


def test_by_keyboard(chromium: Any, report: str) -> None:
    with opened(chromium, report) as seen:
        seen.page.keyboard.press("Tab")
        assert seen.page.evaluate(FOCUSED)[2] == "Skip to the content"
        seen.page.keyboard.press("Enter")
        until(seen, "document.activeElement.id === 'main'")
        seen.page.evaluate(f"window.stops = []; addEventListener('focusin', () => stops.push(({FOCUSED})()))")
        seen.page.locator(".skip").focus()
        for _ in range(seen.page.evaluate("document.querySelectorAll('a, button, select, input, summary, [tabindex]').length")):
            seen.page.keyboard.press("Tab")
        stops = seen.page.evaluate("stops")
        kinds = {(tag, name) for tag, name, _, _ in stops}
        assert {("A", ""), ("SELECT", ""), ("BUTTON", "order"), ("SUMMARY", "")} <= kinds
        links = [text for tag, _, text, _ in stops if tag == "A"]
        assert links[:2] == ["Skip to the content", "Funnel"] and "Configuration and time" in links
        assert all(visible for *_, visible in stops), [stop for stop in stops if not stop[-1]]


ROWS = """rows => { const box = document.createElement('div'); box.className = 'scroll'; const table = box.appendChild(document.createElement('table'));
  const head = table.createTHead().insertRow(); for (const name of ['name', 'number']) head.appendChild(document.createElement('th')).textContent = name;
  const body = table.createTBody(); for (const row of rows) { const line = body.insertRow(); for (const cell of row) line.insertCell().textContent = cell; }
  table.id = `made${rows.length}`; document.querySelector('main').append(box); tables.improve(table); return '#' + table.id; }"""


def test_tables_sort(desk: Seen) -> None:
    table = desk.page.locator(desk.page.evaluate(ROWS, [["b10", "1,234"], ["b9", "–"], ["a", "12.5%"], ["c", "< 3"]]))

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
    assert desk.page.locator("main table button.order").count() > 20 and desk.console == []


def test_long_tables_are_short_at_first(desk: Seen) -> None:
    table = desk.page.evaluate(ROWS, [[str(row), "1"] for row in range(90)])
    assert desk.page.locator(f"{table} tbody tr:visible").count() == 20
    desk.page.get_by_role("button", name="Show all 90 rows").press("Enter")
    assert desk.page.locator(f"{table} tbody tr:visible").count() == 90
    assert desk.page.get_by_role("button", name="Show the first 20 rows").get_attribute("aria-expanded") == "true"


def test_a_chart_in_words_and_as_a_table(desk: Seen) -> None:
    words = desk.page.locator("figure:has(figcaption b:text-is('words'))").first
    about = words.locator(".chart").get_attribute("aria-label") or ""
    assert words.locator(".chart").get_attribute("role") == "img"
    assert "kept: 45 in all" in about and "dropped: 11 in all" in about and "marked: < 20" in about
    words.locator("summary", has_text="Show as table").press("Enter")
    cells = "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
    rows = words.locator(".as-table tr").evaluate_all(cells)
    assert rows[0] == ["value", "kept", "dropped"]
    assert [sum(int(row[place]) for row in rows[1:]) for place in (1, 2)] == [45, 11]
    loss = desk.page.locator("figure:has(figcaption b:text-is('Loss'))").first
    assert "5 at 0, 0.1 at 49; least 0.1 at 49, most 5 at 0" in (loss.locator(".chart").get_attribute("aria-label") or "")
    assert desk.page.locator(".chart").count() == desk.page.locator(".as-table").count()


def test_axe_finds_nothing(desk: Seen) -> None:
    from axe_playwright_python.sync_playwright import Axe

    for theme, only in (("light", {"type": "tag", "values": WCAG}), ("dark", {"type": "rule", "values": ["color-contrast"]})):
        desk.page.select_option(".theme select", theme)
        until(desk, "drawn.size > 0")
        found = Axe().run(desk.page, options={"runOnly": only, "resultTypes": ["violations"]}).response
        assert [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found["violations"]] == []
        assert "color-contrast" in {rule["id"] for rule in found["passes"]}


def test_headings_and_landmarks(desk: Seen) -> None:
    levels = desk.page.evaluate("[...document.querySelectorAll('h1, h2, h3, h4, h5')].map(heading => Number(heading.tagName[1]))")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))
    for landmark in ("banner", "navigation", "main", "contentinfo"):
        assert desk.page.get_by_role(landmark).count() == 1
    links = desk.page.evaluate("[...document.querySelectorAll('#sections a')].map(link => link.hash)")
    assert links == desk.page.evaluate("[...document.querySelectorAll('main h2')].map(heading => '#' + heading.id)")


def test_on_paper(chromium: Any, report: str) -> None:
    """All charts are there, in light colours though the screen is dark, and the screen is as before afterwards."""
    with opened(chromium, report, theme="dark") as seen:
        seen.page.evaluate("""() => addEventListener('afterprint', () => {}, true) || addEventListener('beforeprint', () => {
            window.onPaper = [charts.filter(chart => chart.offsetParent && !chart.querySelector('.main-svg')).length,
                              document.querySelector('.chart').innerHTML.includes('rgb(31, 111, 178)')]; })""")
        assert seen.page.pdf().startswith(b"%PDF")
        assert seen.page.evaluate("window.onPaper") == [0, True]
        seen.page.emulate_media(media="print")
        assert seen.page.evaluate("[getComputedStyle(document.body).backgroundColor, theme.color('ink')]") == [
            "rgb(251, 251, 249)",
            "rgb(29, 35, 41)",
        ]
        for control in ("#sections", ".as-table", "button.all"):
            assert not any(each.is_visible() for each in seen.page.locator(control).all())
        seen.page.emulate_media(media="screen")
        until(seen, "document.querySelector('.chart').innerHTML.includes('rgb(109, 179, 238)')")
        assert quiet(seen, report)


def test_with_forced_colours_and_less_motion(chromium: Any, report: str) -> None:
    with opened(chromium, report, forced_colors="active", reduced_motion="reduce") as seen:
        assert seen.page.evaluate("theme.color('ink') !== theme.color('page')")
        assert seen.page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
        assert quiet(seen, report)


def test_plotly_sets_no_style_that_the_policy_refuses(desk: Seen) -> None:
    """Powers of ten, bold labels, images of heat maps: plotly.js writes style attributes for them."""
    figure = [
        [{"y": [1, 1e30], "x": ["<b>a</b>", "x<sup>2</sup>"]}, {"z": [[1, 2], [3, 4]], "type": "heatmap"}],
        {"yaxis": {"type": "log", "exponentformat": "power"}, "title": {"text": "<span style='color:red'>red</span>"}},
    ]
    draw = "([data, layout]) => Plotly.newPlot(document.querySelector('main').appendChild(document.createElement('div')), data, layout)"
    desk.page.evaluate(draw, figure)
    assert "red" in desk.page.locator("main > div:last-child .gtitle tspan").first.evaluate("it => it.style.cssText")
    assert desk.console == []


def test_attacks_are_text(chromium: Any, hostile: str) -> None:
    with opened(chromium, hostile, offline=True) as seen:
        scroll_through(seen)
        for place in range(0, 3000, 100):  # plotly's own labels under the mouse
            seen.page.mouse.move(300 + place % 700, 300 + place % 500)
        seen.page.evaluate("for (const closed of document.querySelectorAll('details')) closed.open = true")
        assert seen.page.evaluate("window.ran") is None
        assert (
            seen.page.evaluate(
                "document.querySelectorAll('main iframe, main img, main svg[onload], main style, main script, main a, main [onclick]').length"
            )
            == 0
        )
        assert seen.page.locator("main").is_visible()
        text = seen.page.evaluate("document.querySelector('main').textContent + document.querySelector('header').textContent")
        for attack in ATTACKS:
            assert text.count(safe_line(attack)) > 20, attack
        labels = seen.page.evaluate("[...document.querySelectorAll('.chart')].map(chart => chart.getAttribute('aria-label')).join()")
        assert "window.ran=1" in labels and not set("\u202e\u2066\x1b\x07") & set(text + labels)
        assert quiet(seen, hostile)


INJECTED = {
    "script-src-elem": "const it = document.createElement('script'); it.textContent = 'window.ran = 1'; document.body.append(it)",
    "script-src-attr": "document.body.insertAdjacentHTML('beforeend', '<img src=\"data:,\" onerror=\"window.ran = 1\">')",
    "style-src-elem": "const it = document.createElement('style'); it.textContent = 'main { display: none }'; document.head.append(it)",
    "connect-src": "fetch('https://example.test/').catch(() => null)",
    "img-src": "new Image().src = 'https://example.test/x.png'",
    "frame-src": "const it = document.createElement('iframe'); it.src = 'https://example.test/'; document.body.append(it)",
    "form-action": "const it = document.createElement('form'); it.action = 'https://example.test/'; document.body.append(it); it.submit()",
}


def test_the_policy_is_in_force(chromium: Any, report: str) -> None:
    with opened(chromium, report) as seen:
        seen.page.evaluate(
            "addEventListener('securitypolicyviolation', event => { (window.refused ||= []).push(event.effectiveDirective); })"
        )
        finished: list[str] = []
        seen.page.on("requestfinished", lambda request: finished.append(request.url) if not request.url.startswith("data:") else None)
        for attempt in INJECTED.values():
            seen.page.evaluate(f"() => {{ {attempt} }}")
        until(seen, f"new Set(window.refused).size >= {len(INJECTED)}")
        assert set(seen.page.evaluate("window.refused")) == set(INJECTED)
        assert seen.page.evaluate("window.ran") is None and seen.page.locator("main").is_visible()
        assert finished == []
        assert json.dumps(seen.console).count("Content Security Policy") >= len(INJECTED)
