"""Compares the preset `datatrove` with datatrove's own filter: the same verdict with the same reason on every URL."""

import random
import re
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from fastwarc.warc import ArchiveIterator
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.ingest.urls.filter import DATATROVE_REASONS


def same(failures: list) -> str | None:
    """Translates this filter's reasons to datatrove's."""
    return DATATROVE_REASONS[failures[0].rule] if failures else None


def test_thirty_thousand_urls_have_the_same_reasons(many_urls, exact, oracle) -> None:
    urls = many_urls(30_000)
    theirs = [oracle(url) for url in urls]
    assert [(url, reason) for url, reason in zip(urls, theirs) if same(exact.failures(url)) != reason] == []
    counts = Counter(theirs)
    assert set(counts) == {None, *DATATROVE_REASONS.values()} and min(counts.values()) > 100  # each rule was used


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


# ---- The lists that datatrove ships. They take seconds to build, so all tests that need them are in this file.


def test_every_domain_that_datatrove_ships_is_found(exact, entries) -> None:
    (lists,) = exact.lists
    assert len(entries.domains) == len(lists.domains.values) == 4_558_940  # no two have the same hash
    assert len(lists.urls.values) == 19_587
    chance = random.Random(1)
    assert all(domain in lists.domains for domain in chance.sample(entries.domains, 20_000))
    assert not any(domain + "x" in lists.domains for domain in chance.sample(entries.domains, 20_000) if not domain.endswith("e"))
    assert [len(lists.words[kind]) for kind in ("hard_words", "soft_words", "subwords")] == [203, 87, 134]


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux tells what is mapped")
def test_the_lists_of_datatrove_are_shared_and_not_copied(exact) -> None:
    (lists,) = exact.lists
    found = re.findall(rf"{lists.name}\.arrow\n(?:.*:.*\n)+", Path("/proc/self/smaps").read_text())
    assert found
    for mapping in found:
        assert re.search(r"Private_Dirty: +0 kB", mapping) and re.search(r"Anonymous: +0 kB", mapping)


def test_own_lists_come_on_top_of_the_shipped_ones(url_filter, tmp_path: Path) -> None:
    (tmp_path / "domains").write_text("worst.com\n")
    made = url_filter(domains=[str(tmp_path / "domains")])
    assert len(made.lists) == 2
    assert [[failure.rule for failure in made.failures(f"http://{host}/")] for host in ("worst.com", "0-1sex.com")] == [["url_domain"]] * 2
