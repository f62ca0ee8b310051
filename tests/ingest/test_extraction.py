"""Tests both extractors, on small pages and on pages with known main text."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.ingest.config import ExtractionConfig
from corpusmill.ingest.html import Extracted
from corpusmill.ingest.html.trafilatura import tidy
from corpusmill.ingest.pages import EXTRACTORS, extract_page

WORDS = "It is long enough to count as a part of the text, as paragraphs of articles mostly are, and it ends with a full stop."
PAGE = f"""<html><head><title> A  title
</title><meta name="author" content="Jane Doe"></head><body><nav><a href="/">Home</a> <a href="/x">Products</a></nav>
<main><article><h1>Heading of this article</h1><p>First paragraph. {WORDS}</p>
<p>Second paragraph. {WORDS}</p><img alt="alternative"><noscript>no script</noscript><p>Third paragraph. {WORDS}</p></article></main>
<div class="comments"><p>Commentary! {WORDS}</p></div><footer><a href="/i">Imprint</a></footer></body></html>"""


def extract(page: str, **options: object) -> Extracted:
    return extract_page(page, None, ExtractionConfig(**options))


@pytest.mark.parametrize("extractor", EXTRACTORS)
def test_main_content_and_what_the_page_says_of_itself(extractor: str) -> None:
    page = extract(PAGE, extractor=extractor)
    assert page.title in ("A title", "Heading of this article") and page.author == "Jane Doe"
    for word in ("First", "Second", "Third"):
        assert f"{word} paragraph. {WORDS}" in page.text
    for word in ("Home", "Commentary", "Imprint", "no script", "alternative"):
        assert word not in page.text


def test_everything_where_it_is_asked_for() -> None:
    text = extract(PAGE, main_content=False).text
    assert text.startswith("Home Products\n\nHeading of this article\n\nFirst") and text.endswith("Imprint")
    assert "Commentary" in extract(PAGE, comments=True, keep_score=0).text
    assert len(extract(PAGE, keep_score=1).text) < len(extract(PAGE).text)


@pytest.mark.parametrize("page", ["", "<script>var x</script><title></title>", "\ufffd" * 10, "<frameset><frame></frameset>"])
@pytest.mark.parametrize("extractor", EXTRACTORS)
def test_pages_without_text(page: str, extractor: str) -> None:
    found = extract(page, extractor=extractor)
    assert found.title is None and len(found.text) <= 10


POSTS = """{"@type":"QAPage","mainEntity":{"@type":"Question","name":"How?","text":"I do <b>not</b> know &amp; ask.",
"author":{"name":"Ann"},"datePublished":"2024-01-01","acceptedAnswer":[{"text":"So it is.","author":"Bob"},{"text":3}]}}"""
THREAD = "How?\n\nAnn, 2024-01-01\n\nI do not know & ask.\n\nBob\n\nSo it is."
PROSE = "This sentence is long enough to be text and not a label, and so it comes out."


@pytest.mark.parametrize(
    ("page", "text", "origin", "rule"),
    [
        (f"<script type='application/ld+json'>{POSTS}</script>", THREAD, "JSON-LD", None),
        (f"<div></div><template><p>{PROSE}</p></template>", PROSE, "templates", None),
        (f'<script type="application/json">{{"a":["/x/y",{{"b":"<p>{PROSE}</p>"}}]}}</script>', PROSE, "the data of its program", None),
        (f"<meta name=description content='{PROSE}'><body><script>x</script>", PROSE, "its description", None),
        ("<body><script>x</script><noscript>Turn it on.</noscript>", "", None, "only_scripts"),
        ("<body><!-- nothing -->", "", None, None),
    ],
)  # fmt: skip
def test_text_where_the_markup_holds_none(page: str, text: str, origin: str | None, rule: str | None) -> None:
    found = extract(page)
    assert (found.text, found.origin, found.empty_by) == (text, origin, rule)


def test_notes_for_browsers_without_scripts_are_text_where_nothing_else_is() -> None:
    post = f"<div class=post><h3>Ann</h3><p>{WORDS}</p></div>"
    found = extract(f"<body><div id=app></div><noscript><h1>A thread</h1>{post * 4}</noscript>")
    assert found.text.count(WORDS) == 4 and found.page_type is not None and 0 < (found.page_type_score or 0) <= 1


def test_many_elements_that_do_not_nest_are_no_reason() -> None:
    assert extract("<div><p>word</p></div>" * 2000, main_content=False).text.count("word") == 2000
    assert "x" in extract("<div>" * 900 + "x" + "</div>" * 900, main_content=False).text


@given(st.text(alphabet="ab \t\n\u00a0\r\0", max_size=60))
def test_tidy(text: str) -> None:
    found = tidy(text)
    assert found == found.strip() and "\n\n\n" not in found and "\0" not in found
    assert all(line == line.rstrip() for line in found.split("\n"))
    assert found.split() == text.replace("\0", "").split()


@pytest.mark.rounding
def test_main_text_of_known_pages(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scorer was fitted to these pages, so this only shows that features, net and selection give what they gave;
    benchmarks/extraction.py measures sites that it has not seen.
    """
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
    import gold

    pages = [page for page in gold.load(shared_data / "realweb") if page.set == "scrapinghub"]
    scores = [gold.agreement(extract(page.html).text, page.text or "")[0] for page in pages]
    assert sum(scores) / len(scores) == pytest.approx(0.9776, abs=0.0005)
