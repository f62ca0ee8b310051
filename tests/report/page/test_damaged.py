"""Tests damaged runs: their page reports it first, and opens in a browser without an error."""

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest
from browser import browser, needs_chromium, opened
from damaged_runs import DAMAGED
from waiting import until

from corpusmill.report.page.html import write_report
from corpusmill.report.page.page import words


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    return tmp_path_factory.mktemp("damaged")


@pytest.mark.parametrize("name", DAMAGED)
def test_the_page_says_what_is_wrong(folder: Path, name: str) -> None:
    make, said = DAMAGED[name]
    make(folder / name)
    page = Path(write_report(str(folder / name))).read_text("utf-8")
    assert f"<h1>{words(name)}</h1>" in page
    head = unescape(page[page.index("<header>") : page.index("</header>")])
    assert 'id="run"' in page
    for word in said:
        assert word in head
    assert len(page) < 1_500_000


def test_sections_that_do_not_apply_are_one_sentence(folder: Path) -> None:
    page = (folder / "only trained" / "report.html").read_text("utf-8")
    assert "The run has nothing to show of: decisions about documents, languages and sources, duplicates, a tokenizer, tokens." in page
    main = page[page.index("<main") : page.index("</main>")]
    assert re.findall(r'<h2 id="([a-z]+)"', main) == ["progress", "training", "evaluation", "run"] and 'class="flow"' not in page
    sections = page[page.index('<nav id="sections"') : page.index("</nav>")]
    assert "Training" in sections and "Evaluation" in sections and "Funnel" not in sections and "Duplicates" not in sections


@needs_chromium
@pytest.mark.long
def test_they_open_in_a_browser(folder: Path) -> None:
    """Opens only the most different runs, because each costs a second."""
    names = ("damaged inside", "ten thousand rules", "only trained", "odd characters")
    with browser() as chromium, opened(chromium, "about:blank") as seen:
        for name in names:
            if not (folder / name).exists():  # those tests were not selected
                DAMAGED[name][0](folder / name)
                write_report(str(folder / name))
            seen.page.goto((folder / name / "report.html").as_uri())
            until(seen.page, "charts.every(chart => !chart.checkVisibility() || chart.querySelector('svg'))")
            assert (name, seen.console) == (name, [])
            assert seen.page.locator("h1").is_visible()
