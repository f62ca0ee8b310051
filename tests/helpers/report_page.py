"""Actions and JavaScript expressions of browser tests on the report's page."""

from typing import Any

from browser import DESK, Seen
from waiting import until

#: The focused element: its tag, its class, its text, and whether the focus is visible.
FOCUSED = """() => {
  const it = document.activeElement, style = getComputedStyle(it);
  const text = it.textContent.trim().slice(0, 60);
  return [it.tagName, it.className, text, style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2];
}"""
#: Adds a table with these rows (name, number) to the page; returns its selector.
ROWS = """rows => {
  const box = document.querySelector('main').appendChild(document.createElement('div'));
  box.className = 'scroll';
  const table = box.appendChild(document.createElement('table'));
  const head = table.createTHead().insertRow();
  for (const name of ['name', 'number']) head.appendChild(document.createElement('th')).textContent = name;
  const body = table.createTBody();
  for (const row of rows) {
    const line = body.insertRow();
    for (const cell of row) line.insertCell().textContent = cell;
  }
  table.id = 'made';
  tables.improve(table);
  return '#made';
}"""


def visit(tab: Seen, url: str, size: tuple[int, int] = DESK, **media: str) -> Any:
    """Loads the page anew; `media` are arguments of Playwright's `emulate_media`."""
    tab.page.set_viewport_size({"width": size[0], "height": size[1]})
    tab.page.emulate_media(**{"media": "screen", "color_scheme": "light", "forced_colors": "none", "reduced_motion": "reduce", **media})
    tab.console.clear()
    tab.requests.clear()
    tab.page.goto(url)
    return tab.page


def scroll_through(page: Any) -> None:
    """Scrolls to each chart of the page, as a reader does."""
    page.evaluate("for (const closed of document.querySelectorAll('details')) closed.open = true")
    for chart in page.locator(".chart").all():
        chart.scroll_into_view_if_needed()
    until(page, "charts.every(chart => !chart.checkVisibility() || chart.querySelector('svg'))")


def quiet(tab: Seen, url: str) -> bool:
    """Whether the page printed nothing to the console and requested only itself."""
    assert tab.console == []
    assert {request.partition(",")[0] for request in tab.requests} <= {url, "data:"}  # its icon is an empty data address
    return True
