"""Compares addresses with the examples of RFC 3986 and Python's own resolution of references."""

from urllib.parse import urljoin, urlsplit

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from corpusmill.dedup.signatures import normalised_url

URLS = st.text(alphabet="htp:/%4a1~Z?#@[]. \t\x00é", max_size=24) | st.text(max_size=12)
PATHS = st.lists(st.sampled_from(["a", "b", ".", "..", "", "...", ".b", "%2e"]), max_size=7).map(lambda parts: "/" + "/".join(parts))


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        # section 6.2.2
        ("example://a/b/c/%7Bfoo%7D", "example://a/b/c/%7Bfoo%7D"),
        ("eXAMPLE://a/./b/../b/%63/%7bfoo%7d", "example://a/b/c/%7Bfoo%7D"),
        # section 6.2.2.1
        ("HTTP://www.EXAMPLE.com/", "http://www.example.com/"),
        # section 6.2.3
        ("http://example.com", "http://example.com/"),
        ("http://example.com:/", "http://example.com/"),
        ("http://example.com:80/", "http://example.com/"),
        ("https://example.com:443?q", "https://example.com/?q"),
        ("ftp://h:21/f", "ftp://h/f"),
        ("http://example.com:443/", "http://example.com:443/"),
        ("http://example.com/?", "http://example.com/?"),  # an empty query differs from none
        # section 1.1.2
        ("ldap://[2001:DB8::7]/c=GB?objectClass?one", "ldap://[2001:db8::7]/c=GB?objectClass?one"),
        ("mailto:John.Doe@example.com", "mailto:John.Doe@example.com"),
        ("telnet://192.0.2.16:80/", "telnet://192.0.2.16:80/"),
        ("urn:oasis:names:specification:docbook:dtd:xml:4.1.2", "urn:oasis:names:specification:docbook:dtd:xml:4.1.2"),
        # the rest
        ("http://User:Pass@Host/P?Q#F", "http://User:Pass@host/P?Q"),
        ("http://a/%7euser/%41%2f%20", "http://a/~user/A%2F%20"),
        ("http://a/?a=%7e&b=%c3%a9#x", "http://a/?a=~&b=%C3%A9"),
        (" http://a/b\n", "http://a/b"),
        ("http://a/b/../../../c/.", "http://a/c/"),
        ("http://a/x?y=/../z", "http://a/x?y=/../z"),
        ("../relative/./path", "../relative/./path"),
        ("http://[::1", "http://[::1/"),
        ("doc-17", "doc-17"),
        ("", ""),
    ],
)
def test_normal_forms(url: str, normal: str) -> None:
    assert normalised_url(url) == normal


@given(URLS)
@example("%4%31")
@example("%%34%31")
@example("http:////x")
@example("http:/.//x")
@example("\x00\xa0http://a")
@example("http://[::1")
@example("a:%2e%2e/b")
def test_any_text_has_a_normal_form_that_is_its_own(url: str) -> None:
    normal = normalised_url(url)
    assert normalised_url(normal) == normal
    assert "#" not in normal


@settings(deadline=None)
@given(PATHS)
def test_dots_are_resolved_as_a_reference_is(path: str) -> None:
    decoded = path.replace("%2e", ".")
    joined = urljoin("http://h/", "http://h" + decoded)
    expected = urljoin("http://other/", urlsplit(joined)._replace(scheme="", netloc="").geturl()) if "//" not in decoded else None
    if expected is not None:
        assert normalised_url("http://h" + path) == expected.replace("http://other", "http://h")
