"""Compares the preset `datatrove` with datatrove's own filter: the same verdict with the same reason on every URL. The lists that it
ships take seconds to build, so all tests that need them are in this file.
"""

import random
import re
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from fastwarc.warc import ArchiveIterator
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.ingest.urls.filter import DATATROVE_REASONS, UrlFilter
from corpusmill.pipeline.errors import InputError

pytestmark = pytest.mark.long


def same(failures: list) -> str | None:
    """Translates this filter's reasons to datatrove's."""
    return DATATROVE_REASONS[failures[0].rule] if failures else None


def test_urls_made_of_the_lists_have_the_same_reasons(entries, exact, oracle) -> None:
    """Tests listed hosts, words and whole URLs, alone and together, so that each rule is used."""
    chance = random.Random(6)
    words = [*entries.hard, *entries.soft, *entries.subwords, "page", "index", "essex", "2024", "Title"]
    urls = [chance.choice(["", "http://", "https://"]) + url + chance.choice(["", "/"]) for url in chance.sample(entries.urls, 700)]
    for _ in range(3_000):
        host = chance.choice(entries.domains) if chance.random() < 0.4 else f"site{chance.randrange(999)}.co.uk"
        path = chance.choice("/-_.+").join(chance.choice(words) for _ in range(chance.randrange(4)))
        urls.append(f"http://{chance.choice(['', '', 'www.', 'a.b.'])}{host}/{path}")
    theirs = [oracle(url) for url in urls]
    assert [(url, reason) for url, reason in zip(urls, theirs) if same(exact.failures(url)) != reason] == []
    counts = Counter(theirs)
    assert set(counts) == {None, *DATATROVE_REASONS.values()} and min(counts.values()) > 20


def test_urls_of_real_crawls_have_the_same_reasons(shared_data, exact, oracle) -> None:
    urls: set[str | None] = set()
    for path in sorted((shared_data / "warc").rglob("*.warc.gz")):
        with open(path, "rb") as file, suppress(OSError):  # some are damaged on purpose
            urls |= {record.headers.get("WARC-Target-URI") for record in ArchiveIterator(file, parse_http=False)}
    found = sorted(filter(None, urls))
    assert len(found) > 100
    assert [url for url in found if same(exact.failures(url)) != oracle(url)] == []


#: Hosts and whole URLs that parsers read differently.
ODD_HOSTS = [
    "1.54.99.33", "[::1]", "[2001:db8::1]:8080", "localhost", "com", "co.uk", "EXAMPLE.com", "example.com.", "..", ".com", "ck",
    "www.ck", "foo.bar.ck", "xn--bcher-kva.de", "bücher.de", "例え。テスト", "xn--", "xn--a.com", "under_score.example.com",
    "example.com@0-1sex.com", "0-1sex.com@example.com", "0-1sex.com:80", "0-1sex.com:x", "-.com", "0-1SEX.com", "www.0-1sex.com",
    "a.0-puppy-0.tumblr.com", "0-puppy-0.tumblr.com", "256.1.1.1", "0x7f.1", "example..com", "", "0-1sex.com。", "blogspot.com",
    "x.blogspot.com", " 0-1sex.com", "0-1sex.com ", "0-1sex.com\t", "[0-1sex.com",
]  # fmt: skip
SCHEMES = ["http://", "https://", "HTTP://", "ftp://", "//", "", "http:", "http:///", "urn:x://", "1http://", "data:,", "://"]
TAILS = [
    "", "/", "?q=1", "#f", "/a/b.html?x=//y@z:1#f", "/%73ex", "/SEX", "\\a", "/a b", "/é", "/\0", "/\n", "/x@y", ":8080/p", "/xxx" * 5000,
]  # fmt: skip
PIECES = ["@", ":", "/", ".", "www.", "xn--", "[", "]", "sex", "XXX", "babes", "free-sex", "-", "%20", "%78", "é", "。", "?", "#"]
URLS = st.one_of(
    st.tuples(*map(st.sampled_from, (SCHEMES, ODD_HOSTS, TAILS))).map("".join),
    st.lists(st.sampled_from([*SCHEMES[:2], *ODD_HOSTS, *PIECES]) | st.text(max_size=4), min_size=1, max_size=12).map("".join),
).filter(bool)


@settings(max_examples=max(300, settings.default.max_examples))
@given(URLS)
def test_whatever_stands_in_a_crawl_has_the_same_reason(exact, oracle, url: str) -> None:
    assert same(exact.failures(url)) == oracle(url)


@pytest.fixture(scope="module")
def closer(url_filter) -> UrlFilter:
    return url_filter(preset="corpusmill")


@pytest.mark.long
@given(URLS)
def test_the_own_preset_only_looks_closer(exact, closer, url: str) -> None:
    """corpusmill's preset drops whatever datatrove drops, except for words that end where a percent-encoded letter begins, and for hosts
    that end at a backslash."""
    rules = {failure.rule for failure in closer.failures(url)}
    if "%" not in url and "\\" not in url:
        assert not exact.failures(url) or rules
        assert {failure.rule for failure in exact.failures(url)} - {"url_domain", "url_subdomain"} <= rules


def test_every_domain_that_datatrove_ships_is_found(exact, entries) -> None:
    (lists,) = exact.lists
    assert len(entries.domains) == len(lists.domains.values) == 4_558_940  # no two have the same hash
    assert len(lists.urls.values) == 19_587
    chance = random.Random(1)
    assert all(domain in lists.domains for domain in chance.sample(entries.domains, 20_000))
    assert not any(domain + "x" in lists.domains for domain in chance.sample(entries.domains, 20_000) if not domain.endswith("e"))
    assert [len(lists.words[kind]) for kind in ("hard_words", "soft_words", "subwords")] == [203, 87, 134]


def test_own_lists_come_on_top_of_the_shipped_ones(url_filter, tmp_path: Path) -> None:
    (tmp_path / "domains").write_text("worst.com\n")
    made = url_filter(preset="datatrove", domains=[str(tmp_path / "domains")])
    assert len(made.lists) == 2
    (tmp_path / "worse.com").write_text("listed.com\n")
    literal = url_filter(shipped_lists=False, domains=["worst.com", "10.0.0.1", str(tmp_path / "worse.com")], allow=["fine.worst.com"])
    failing = [bool(literal.failures(f"http://{host}/")) for host in ("a.worst.com", "10.0.0.1", "listed.com", "worse.com", "best.com")]
    assert failing == [True, True, True, False, False] and literal.allowed("http://fine.worst.com/x") == "fine.worst.com"
    for wrong in ("blocked.txt", "*.worst.com", "lists/worst.com"):
        with pytest.raises(InputError, match=rf"ingest.url_filter.domains: {re.escape(wrong)}: no such file; nor is it a domain"):
            url_filter(shipped_lists=False, domains=[wrong])
    assert [[failure.rule for failure in made.failures(f"http://{host}/")] for host in ("worst.com", "0-1sex.com")] == [["url_domain"]] * 2
