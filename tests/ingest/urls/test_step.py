from pathlib import Path

import pytest

from corpusmill.ingest.urls.filter import UrlFilter, UrlFilterConfig
from corpusmill.pipeline.errors import InputError


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Makes a user's own small lists, as options."""
    folder = tmp_path_factory.mktemp("lists")
    (folder / "domains").write_text("bad.test.com\nworst.com\n192.0.2.1\nxn--bcher-kva.com\nbox.internal\n")
    (folder / "urls").write_text("blog.example.com/2015\nhttp://example.com/Page/\nhttps://exact.com/x\nwiki.internal/x\n")
    return {"domains": [str(folder / "domains")], "urls": [str(folder / "urls")]}


@pytest.fixture(scope="module")
def both_presets(url_filter, lists) -> tuple[UrlFilter, UrlFilter]:
    return url_filter(preset="datatrove", shipped_lists=False, **lists), url_filter(shipped_lists=False, **lists)


@pytest.fixture(scope="module")
def both_with_words(url_filter) -> tuple[UrlFilter, UrlFilter]:
    return url_filter(preset="datatrove", **WORDS), url_filter(**WORDS)


def rules(made: UrlFilter, url: str | None) -> list[str]:
    return [failure.rule for failure in made.failures(url)]


@pytest.mark.parametrize("preset", ["datatrove", "corpusmill"])
@pytest.mark.parametrize("url", [None, ""])
def test_no_url_fails_no_rule(url_filter, preset: str, url: str | None) -> None:
    assert url_filter(preset=preset, shipped_lists=False).failures(url) == []


@pytest.mark.parametrize(
    ("url", "exact", "closer"),
    [
        ("http://worst.com/", ["url_domain"], ["url_domain"]),
        ("http://www.worst.com:8080/", ["url_domain"], ["url_domain"]),
        ("http://WORST.com/", [], ["url_domain"]),
        ("http://bad.test.com/", ["url_subdomain"], ["url_subdomain"]),
        ("http://a.bad.test.com/", [], ["url_subdomain"]),  # neither the registered domain nor the whole host is listed
        ("http://192.0.2.1:80/", [], ["url_domain"]),
        ("http://Box.internal/", [], ["url_domain"]),  # no public suffix
        ("http://bücher.com/", [], ["url_domain"]),
        ("http://bücher.com@example.com/", [], []),
        ("https://exact.com/x", ["url_exact"], ["url_exact"]),
        ("http://exact.com/x/y", [], ["url_exact"]),
        ("http://blog.example.com/2015/03/a?b", [], ["url_exact"]),
        ("http://blog.example.com/2015", [], ["url_exact"]),  # its entry has no scheme, so it never equals a URL
        ("http://blog.example.com/20151", [], []),
        ("http://www.example.com/Page", [], ["url_exact"]),
        ("http://example.com/page", [], []),  # paths keep their case
    ],
)
def test_domains_and_urls(both_presets, url: str, exact: list[str], closer: list[str]) -> None:
    assert [rules(made, url) for made in both_presets] == [exact, closer]


ALL_WORDS = ["url_hard_word", "url_soft_words", "url_subword"]
WORDS = {"hard_words": ["vile"], "soft_words": ["meh", "hmm"], "subwords": ["two words"], "shipped_lists": False}


@pytest.mark.parametrize(
    ("url", "exact", "closer"),
    [
        ("http://a.com/vile", ["url_hard_word"], ["url_hard_word"]),
        ("http://a.com/VILE", [], ["url_hard_word"]),
        ("http://a.com/%76ile", [], ["url_hard_word"]),
        ("http://a.com/%C3%A9%ff%zzvile", [], []),
        ("http://a.com/reviled", [], []),
        ("http://a.com/meh?meh", [], []),  # one soft word, twice
        ("http://hmm.com/meh", ["url_soft_words"], ["url_soft_words"]),
        ("http://a.com/meh/vile/hmm/atwo/wordsb", ALL_WORDS, ALL_WORDS),
    ],
)
def test_words(both_with_words, url: str, exact: list[str], closer: list[str]) -> None:
    assert [rules(made, url) for made in both_with_words] == [exact, closer]


def test_reasons_name_what_it_was(url_filter, lists) -> None:
    made = url_filter(**lists, **WORDS)
    assert [failure.reason for failure in made.failures("http://A.bad.test.com/Vile-meh-hmm-twowords")] == [
        "the host bad.test.com is listed", "the URL has the word vile", "the URL has the words hmm, meh", "the URL contains twowords",
    ]  # fmt: skip
    assert [failure.reason for failure in made.failures("http://blog.example.com/2015/x")] == ["the URL blog.example.com/2015 is listed"]


def test_rules_and_numbers_of_a_recipe(url_filter) -> None:
    url = "http://hmm.com/vile/meh"
    assert rules(url_filter(**WORDS, rules=["url_soft_words"]), url) == ["url_soft_words"]
    assert rules(url_filter(**WORDS, soft_words_needed=3), url) == ["url_hard_word"]
    assert rules(url_filter(**WORDS, rules=[]), url) == []


def test_what_is_allowed_passes(url_filter, lists, tmp_path: Path) -> None:
    (tmp_path / "allow").write_text("good.worst.com\nhttp://a.com/vile/\n")
    made = url_filter(allow=[str(tmp_path / "allow")], **lists, **WORDS)
    assert made.failures("http://x.good.worst.com/") and made.allowed("http://X.good.worst.com/") == "good.worst.com"
    assert made.allowed("https://www.a.com/vile/page?x") == "a.com/vile"
    assert made.allowed("http://worst.com/") is None and made.allowed("http://a.com/vil") is None
    assert url_filter(shipped_lists=False, **lists).allowed("http://worst.com/") is None


@pytest.mark.parametrize("preset", ["datatrove", "corpusmill"])
def test_endless_hosts_are_neither_taken_apart_nor_remembered(url_filter, lists, tmp_path: Path, preset: str) -> None:
    (tmp_path / "allow").write_text("fine.com\n")
    made = url_filter(preset=preset, shipped_lists=False, allow=[str(tmp_path / "allow")], **lists)
    for host in ("a." * 50_000 + "worst.com", "xn--" + "a" * 100_000 + ".worst.com", "é." * 50_000 + "worst.com", "[" * 100_000):
        assert rules(made, f"http://{host}/x") == ([] if host.startswith("[") else ["url_domain"])
        assert made.allowed(f"http://{host}{'/x' * 50_000}") is None
    assert made.site.cache_info().currsize == 0


def test_workers_refuse_other_lists_than_the_run_began_with(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("CORPUSMILL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "domains").write_text("bad.test\n")
    made = UrlFilter(UrlFilterConfig(shipped_lists=False, domains=[str(tmp_path / "domains")]))
    made.setup()
    began = made.fingerprint()
    made.setup(began)
    (tmp_path / "domains").write_text("other.test\n")
    with pytest.raises(InputError, match="the lists of this worker are not those that the run was started with"):
        made.setup(began)
