"""Compares the preset `datatrove` with datatrove's own filter: the same verdict with the same reason on every URL."""

from collections import Counter
from contextlib import suppress

from fastwarc.warc import ArchiveIterator
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.ingest.urls.filter import DATATROVE_REASONS


def same(failures: list) -> str | None:
    """Translates this filter's reasons to datatrove's."""
    return DATATROVE_REASONS[failures[0].rule] if failures else None


def test_a_hundred_thousand_urls_have_the_same_reasons(many_urls, exact, oracle) -> None:
    urls = many_urls(100_000)
    theirs = [oracle(url) for url in urls]
    assert [(url, reason) for url, reason in zip(urls, theirs) if same(exact.failures(url)) != reason] == []
    counts = Counter(theirs)
    assert set(counts) == {None, *DATATROVE_REASONS.values()} and min(counts.values()) > 500  # each rule was used


def test_urls_of_real_crawls_have_the_same_reasons(shared_data, exact, oracle) -> None:
    urls: set[str | None] = set()
    for path in sorted((shared_data / "warc").rglob("*.warc.gz")):
        with open(path, "rb") as file, suppress(OSError):  # some are damaged on purpose
            urls |= {record.headers.get("WARC-Target-URI") for record in ArchiveIterator(file, parse_http=False)}
    found = sorted(filter(None, urls))
    assert len(found) > 100
    assert [url for url in found if same(exact.failures(url)) != oracle(url)] == []


HOSTS = ["http://", "https://", "//", "@", ":", "/", ".", "www.", "0-1sex.com", "0-puppy-0.tumblr.com", "co.uk", "1.54.99.33"]
WORDS = ["xn--", "[", "]", "sex", "XXX", "babes", "freesex", "free-sex", "-", "%20", "%78", "é", "。", "?", "#"]
URLS = st.lists(st.sampled_from(HOSTS + WORDS) | st.text(max_size=4), min_size=1, max_size=12).map("".join).filter(bool)


@given(URLS)
def test_whatever_stands_in_a_crawl_has_the_same_reason(exact, oracle, url: str) -> None:
    assert same(exact.failures(url)) == oracle(url)


@given(URLS)
def test_the_own_preset_only_looks_closer(exact, closer, url: str) -> None:
    """corpusmill's preset drops whatever datatrove drops, except for words that end where a percent-encoded letter begins."""
    rules = {failure.rule for failure in closer.failures(url)}
    if "%" not in url:
        assert not exact.failures(url) or rules
        assert {failure.rule for failure in exact.failures(url)} - {"url_domain", "url_subdomain"} <= rules
