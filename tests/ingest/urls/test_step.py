from collections.abc import Callable
from pathlib import Path

import pytest
from can_ada import parse
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.ingest.urls.filter import UrlFilter, UrlFilterConfig
from corpusmill.ingest.urls.lists import NAME, PLAIN, read_url, same_host
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


#: URLs of the web platform tests (url/resources/urltestdata.json, toascii.json), with the host that they expect.
BROWSERS = {
    "\0\x1b\x04\x12 http://example.com/\x1f \r ": "example.com",
    "h\tt\nt\rp://h\to\ns\rt:9\t0\n0\r0/p": "host",
    "http:example.com/": "example.com",
    "http:/example.com/": "example.com",
    "http://///example.com///": "example.com",
    "http:\\\\foo.com\\": "foo.com",
    "http://a:b@c\\": "c",
    "http://user@example.com@EXAMPLE.org:80/": "example.org",
    "https://test:@test@example:800\\path@end": "example",
    "http://foo:💩@example.com/bar": "example.com",
    "http://%25DOMAIN:foobar@foodomain.com/": "foodomain.com",
    "http://ex%41mple.com": "example.com",
    "http://GOO\u200b\u2060\ufeffgoo.com": "googoo.com",
    "http://a%C2%ADb": "ab",
    "http://www.foo。bar.com": "www.foo.bar.com",
    "http://Ｇｏ.com": "go.com",
    "http://你好你好": "xn--6qqa088eba",
    "https://faß.ExAmPlE/": "xn--fa-hia.example",
    "http://0Xc0.0250.01": "192.168.0.1",
    "http://０Ｘｃ０．０２５０．０１": "192.168.0.1",
    "http://%30%78%63%30%2e%30%32%35%30.01%2e": "192.168.0.1",
    "http://1.2.3.4./": "1.2.3.4",
    "http://192.168.257.": "192.168.1.1",
    "http://99999999": "5.245.224.255",
    "http://0xffffffff": "255.255.255.255",
    "http://192.168.257.com": "192.168.257.com",
    "http://[1:0::]": "[1::]",
    "http://[0:0:0:0:0:0:13.1.68.3]": "[::d01:4403]",
    "http://[::127.0.0.1]": "[::7f00:1]",
}
#: URLs that those tests refuse, with the host that is read from their text.
REFUSED = {
    "http://ho%20st/": "ho%20st",
    "http://％４１.com": "％４１.com",
    "http://%ef%bc%85%ef%bc%94%ef%bc%91.com": "%ef%bc%85%ef%bc%94%ef%bc%91.com",
    "http://Ho st/": "ho st",
    "http://f:99999/c": "f",
    "http://f:b/c": "f",
    "http://[google.com]": "[google.com]",
    "http://[::1.2.3.4x]": "[::1.2.3.4x]",
    "http://192.168.0.257": "192.168.0.257",
    "http://4294967296": "4294967296",
    "https://xn--zn7c.com": "xn--zn7c.com",
    "http://%zz%66%a.com": "%zz%66%a.com",
    "https://\u00ad/": "\u00ad",
}


@pytest.mark.parametrize(("url", "host"), [*BROWSERS.items(), *REFUSED.items()])
def test_hosts_are_read_as_the_tests_of_browsers_expect(url: str, host: str) -> None:
    assert read_url(url).host == host


PUNYCODE = st.text(st.characters(min_codepoint=128), min_size=1).map(lambda text: f"xn--{text.encode('punycode').decode().lower()}")


@given(st.from_regex(NAME, fullmatch=True) | PUNYCODE | st.sampled_from(["xn--bcher-kva.de", "xn--a", "a..b", "0x.a", "1.-"]))
def test_plain_hosts_need_no_parser(name: str) -> None:
    url = f"http://{name}:8/x"
    assert PLAIN.match(url)[1] == read_url(url).host == same_host(name) == name


@pytest.mark.parametrize(
    "url",
    [
        "http://%77orst.com/", " http://worst.com/", "http://worst.com\\@example.com/", "http:worst.com", "http:\\\\worst.com",
        "https:/worst.com", "http://wor\tst.com", "http://a@b@worst.com:8080", "//worst.com", "WORST.com:80/x", "foo://%77orst.com", "http://worst.com./",
        "http://worst.com:x/", "http://%77orst.com/\ud800", "http://b%C3%BCcher.com", "http://XN--BCHER-KVA.com",
        "http://3221225985/", "http://0xC0000201", "http://0300.0.0x2.01", "http://192.0.513.", "http://[::ffff:192.0.2.1]", "http://[0:0::FFFF:C000:201]:80/",
    ],
)  # fmt: skip
def test_what_browsers_would_open_is_dropped(both_presets, url: str) -> None:
    assert rules(both_presets[1], url) == ["url_domain"]


@pytest.mark.parametrize(
    "url", ["http://example.com\\@worst.com/", "http://worst.com%2f.example.com/", "http://[::192.0.2.1]", "http://192.0.2.1.com"]
)
def test_what_they_would_not_open_passes(both_presets, url: str) -> None:
    assert rules(both_presets[1], url) == []


LETTERS: list[Callable[[str], str]] = [
    str, str.upper, lambda c: f"%{ord(c):02x}", lambda c: f"%{ord(c):02X}", lambda c: chr(ord(c) + 0xFEE0), lambda c: f"\n{c}\t",
    lambda c: f"{c}\xad",
]  # fmt: skip


@st.composite
def addresses(draw: st.DrawFn) -> str:
    """Returns a notation of 192.0.2.1."""
    octets = bytes([192, 0, 2, 1])
    split = draw(st.integers(0, 3))
    numbers = [*octets[:split], int.from_bytes(octets[split:])]
    return ".".join(draw(st.sampled_from(["{}", "{:#x}", "0X{:06X}", "0{:o}"])).format(number) for number in numbers)


@st.composite
def hidden(draw: st.DrawFn) -> str:
    """Returns a URL that browsers open at a listed host."""
    host = "".join(
        draw(st.sampled_from(LETTERS))(letter) for letter in draw(st.sampled_from(["worst.com", "xn--bcher-kva.com"]) | addresses())
    )
    parts = [
        ["", " ", "\x01", "\t\r\n"], ["http:", "HTTPS:", "h\nttp:", "ftp:"], ["//", "\\\\", "/", "///", "/\\", ""],
        ["", "a@", "a:b@example.com:80@"], [host],
        ["", ".", "%2E"], ["", ":", ":80", ":0443"], ["", "/", "\\", "\\@example.com", "/@example.com", "?@example.com", "#@example.com"],
        ["", "\0", " "],
    ]  # fmt: skip
    return "".join(draw(st.sampled_from(part)) for part in parts)


@given(hidden())
def test_no_notation_hides_a_listed_host(both_presets, url: str) -> None:
    parse(url)
    assert rules(both_presets[1], url) == ["url_domain"]


def test_lists_may_have_any_notation(url_filter, tmp_path: Path) -> None:
    (tmp_path / "domains").write_text("Bücher.com.\n0xC0000201\n::FFFF:192.0.2.2\n2001:DB8:0::1\n[2001:db8::2]\nA b.com\nc.com/x\n")
    (tmp_path / "urls").write_text("http:\\\\%65xample.com\\a/../b c/é\n//[::ffff:192.0.2.3]/\n")
    made = url_filter(shipped_lists=False, domains=[str(tmp_path / "domains")], urls=[str(tmp_path / "urls")])
    for host in ("xn--bcher-kva.com", "192.0.2.1", "192.0.2.2", "[2001:db8::1]", "[2001:db8::2]", "a b.com"):
        assert rules(made, f"http://{host}/") == ["url_domain"]
    for url in ("http://example.com/b%20c/%C3%A9?x", "http://www.example.com/b%20c/./é/d", "http://192.0.2.3/"):
        assert rules(made, url) == ["url_exact"]
    assert rules(made, "http://c.com/x") == []


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
        ("http://a.com/vi\tle", [], ["url_hard_word"]),
        ("http://ｖｉｌｅ.com/", [], ["url_hard_word"]),
        ("http://hmm.com/%6Deh\t", [], ["url_soft_words"]),
        ("http://a.com/http://two\twords", ["url_subword"], ["url_subword"]),
        ("http://a.com/meh?meh", [], []),  # one soft word, twice
        ("http://hmm.com/meh", ["url_soft_words"], ["url_soft_words"]),
        ("http://a.com/meh/vile/hmm/atwo/wordsb", ALL_WORDS, ALL_WORDS),
    ],
)
def test_words(both_with_words, url: str, exact: list[str], closer: list[str]) -> None:
    assert [rules(made, url) for made in both_with_words] == [exact, closer]


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
