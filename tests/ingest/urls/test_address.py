import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.ingest.urls.lists import PLAIN, HostReader, address_prefixes, same_address, same_host, split_url


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://www.Example.COM/A/b/?q=1#f", "example.com/A/b/?q=1"),
        ("https://user:pass@example.com:8080/a//", "example.com/a"),
        ("example.com/a", "example.com/a"),
        ("//example.com", "example.com"),
        ("http://[2001:db8::1]:80/x", "[2001:db8::1]/x"),
        ("https://bücher.example./x", "xn--bcher-kva.example/x"),
        ("http://example.com?u=http://other.test/", "example.com?u=http://other.test"),
        ("example.com?u=http://other.test/", "example.com?u=http://other.test"),
        ("https-www-x.ru/http-y", "https-www-x.ru/http-y"),
    ],
)
def test_the_form_in_which_urls_are_equal(url: str, address: str) -> None:
    host, tail = split_url(url)
    assert same_address(same_host(host), tail) == address


def test_what_a_list_may_hold_of_an_address() -> None:
    assert address_prefixes("a.test/b/c?q", 5) == ["a.test/b", "a.test/b/c", "a.test/b/c?q"]
    assert address_prefixes("a.test/b/c", 1) == ["a.test/b", "a.test/b/c"]
    assert address_prefixes("a.test", 3) == ["a.test"]
    assert len(address_prefixes("a.test" + "/x" * 100_000, 4)) == 5  # never one lookup for each of very many slashes


@given(st.from_regex(r"https?://[a-z0-9._-]{1,20}(:[0-9]{0,4})?([/?#](?s:.){0,8})?", fullmatch=True))
def test_a_plain_host_is_read_as_the_whole_url_is(url: str) -> None:
    found = PLAIN.match(url)
    assert found is not None
    assert READER.read(found[1]) == READER.read(url)
    assert split_url(url) == (found[1], found[2] or "")


READER = HostReader()


@given(st.text(max_size=30))
def test_any_host_has_a_form(host: str) -> None:
    assert same_host(host) == same_host(host.upper()).lower() or not host.isascii()
