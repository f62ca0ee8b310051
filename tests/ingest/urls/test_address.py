import pytest

from corpusmill.ingest.urls.lists import same_address, same_host, split_url


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://www.Example.COM/A/b/?q=1#f", "example.com/A/b/?q=1"),
        ("https://user:pass@example.com:8080/a//", "example.com/a"),
        ("//example.com", "example.com"),
        ("http://[2001:db8::1]:80/x", "[2001:db8::1]/x"),
        ("https://bücher.example./x", "xn--bcher-kva.example/x"),
        ("http://example.com?u=http://other.test/", "example.com?u=http://other.test"),
        ("https-www-x.ru/http-y", "https-www-x.ru/http-y"),
    ],
)
def test_the_form_in_which_urls_are_equal(url: str, address: str) -> None:
    host, tail = split_url(url)
    assert same_address(same_host(host), tail) == address
