"""Main content, tidy text, and pages that would hold a worker for minutes."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.pipeline.ingest.extraction import TooDeep, extract_page, tidy

PAGE = """<html><head><title> A  title
</title></head><body><nav><a href="/">Home</a> <a href="/x">Products</a></nav>
<main><h1>Heading</h1><p>First paragraph of the article, long enough to count as its text.</p>
<p>Second paragraph of the article.<br>With a line break.</p><img alt="alternative"><noscript>no script</noscript></main>
<div class="comments"><p>first!!!</p></div><footer>Imprint</footer></body></html>"""


def test_main_content_and_title() -> None:
    page = extract_page(PAGE, True, 1000)
    assert page.title == "A title"
    assert page.text.split("\n\n") == [
        "Heading",
        "First paragraph of the article, long enough to count as its text.",
        "Second paragraph of the article.\nWith a line break.",
    ]
    assert "Home" in extract_page(PAGE, False, 1000).text


@pytest.mark.parametrize("page", ["", "<p></p>", "<script>var x</script>", "\ufffd" * 10, "<title></title>"])
def test_pages_without_text(page: str) -> None:
    found = extract_page(page, True, 1000)
    assert found.title is None and len(found.text) <= 10


@pytest.mark.parametrize("page", ["<div>" * 50_000 + "x" + "</div>" * 50_000, "</p>" * 30_000 + "<div>" * 30_000, "<ul><li>" * 20_000])
def test_deep_pages_are_refused_quickly(page: str) -> None:
    started = time.perf_counter()
    with pytest.raises(TooDeep):
        extract_page(page, True, 1000)
    assert time.perf_counter() - started < 10


def test_many_elements_that_do_not_nest_are_no_reason() -> None:
    assert extract_page("<div><p>word</p></div>" * 2000, False, 1000).text.count("word") == 2000
    assert "x" in extract_page("<div>" * 900 + "x" + "</div>" * 900, False, 1000).text


@given(st.text(alphabet="ab \t\n\u00a0\r\0", max_size=60))
def test_tidy(text: str) -> None:
    found = tidy(text)
    assert found == found.strip() and "\n\n\n" not in found and "\0" not in found
    assert all(line == line.rstrip() for line in found.split("\n"))
    assert found.split() == text.replace("\0", "").split()
