"""Provides datatrove's own filter as the oracle, and URLs of all kinds: of crawls, of its lists, and damaged ones."""

import random
import string
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from corpusmill.ingest.urls.filter import UrlFilter, UrlFilterConfig
from corpusmill.ingest.urls.lists import shipped_sources

#: Hosts and whole URLs that parsers read differently.
ODD_HOSTS = [
    "1.54.99.33", "[::1]", "[2001:db8::1]:8080", "localhost", "com", "co.uk", "a.b.c", "EXAMPLE.com", "example.com.", "..", ".com", "ck",
    "www.ck", "foo.bar.ck", "xn--bcher-kva.de", "bücher.de", "中国.中国", "例え。テスト", "xn--", "xn--a.com", "under_score.example.com",
    "user:pass@example.com", "example.com@0-1sex.com", "0-1sex.com@example.com", "0-1sex.com:80", "0-1sex.com:", "0-1sex.com:x", "-.com",
    "0-1SEX.com", "www.0-1sex.com", "a.0-puppy-0.tumblr.com", "0-puppy-0.tumblr.com", "256.1.1.1", "1.2.3", "0x7f.1", "example..com", "",
    "0-1sex.com。", "0-1sex。com", "blogspot.com", "x.blogspot.com", " 0-1sex.com", "0-1sex.com ", "0-1sex.com\t", "sex.com", "[0-1sex.com",
]  # fmt: skip
SCHEMES = [
    "http://",
    "https://",
    "HTTP://",
    "hTTps://",
    "ftp://",
    "//",
    "",
    "http:",
    "http:/",
    "http:///",
    "urn:x://",
    "1http://",
    "data:,",
    "://",
]
TAILS = [
    "",
    "/",
    "?q=1",
    "#f",
    "/a/b.html?x=//y@z:1#f",
    "/%73ex",
    "/SEX",
    "\\a",
    "/a b",
    "/é/ß/😀",
    "/" * 50,
    "/\0",
    "/\n",
    "/x@y",
    ":8080/p",
]


def spoilt(url: str, chance: random.Random) -> str:
    """Returns `url` with a few characters changed, inserted, removed or in the other case."""
    letters = list(url)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(letters) + 1)
        what = chance.randrange(4)
        if what == 0:
            letters[place:place] = chance.choice(string.printable + "éß。．İı\u200b")
        elif what == 1:
            letters[place : place + 1] = []
        elif what == 2:
            letters[place : place + 1] = chance.choice("/.:@?#%-_&=+") if place < len(letters) else ""
        else:
            letters[place : place + 9] = [letter.swapcase() for letter in letters[place : place + 9]]
    return "".join(letters)


class Entries:
    """The entries of datatrove's lists."""

    def __init__(self) -> None:
        domains, *others = shipped_sources()
        with domains.open() as file:  # millions: `entries` would take twice as long
            self.domains = [line for line in map(str.strip, file.read().decode().splitlines()) if line and line[0] != "#"]
        self.urls, self.hard, self.soft, self.subwords = (list(source.entries()) for source in others)


@pytest.fixture(scope="session")
def entries() -> Entries:
    return Entries()


def of_lists(entries: Entries, count: int, chance: random.Random) -> Iterator[str]:
    """Yields URLs whose host, words or whole are listed, or nearly so."""
    words = [*entries.hard, *entries.soft, *entries.soft, *entries.subwords, "page", "index", "essex", "2024", "Title"]
    for _ in range(count):
        host = (
            chance.choice(entries.domains)
            if chance.random() < 0.4
            else f"site{chance.randrange(999)}.{chance.choice(['com', 'co.uk', 'de'])}"
        )
        if chance.random() < 0.3:
            host = chance.choice(["www.", "m.", "a.b.", "WWW."]) + host
        if chance.random() < 0.1:
            host = host.partition(".")[2]
        path = chance.choice("/-_.+").join(chance.choice(words) for _ in range(chance.randrange(4)))
        if chance.random() < 0.1:
            path = chance.choice([str.upper, str.title, str.capitalize])(path)
        url = f"{chance.choice(SCHEMES[:2] if chance.random() < 0.9 else SCHEMES)}{host}/{path}"
        if chance.random() < 0.1:
            url = chance.choice(["", "http://", "https://"]) + chance.choice(entries.urls) + chance.choice(["", "", "/", "?a"])
        yield url if chance.random() < 0.7 else spoilt(url, chance)


@pytest.fixture(scope="session")
def many_urls(entries: Entries) -> Callable[[int], list[str]]:
    """Returns this many URLs, reproducibly: every odd host with every scheme and tail, then URLs made from the lists."""

    def make(count: int) -> list[str]:
        odd = [scheme + host + tail for scheme in SCHEMES for host in ODD_HOSTS for tail in TAILS if scheme + host + tail]
        odd += ["http://a.com/" + "xxx/" * 5000, "http://" + "a." * 3000 + "com/", "http://a.com/" + "é" * 9000]
        return odd + list(of_lists(entries, count - len(odd), random.Random(6)))

    return make


@pytest.fixture(scope="session")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str | None]:
    """Returns datatrove's reason for a URL, None where it keeps it; uses the suffixes that ship with tldextract, without fetching."""
    from datatrove.data import Document
    from datatrove.pipeline.filters import url_filter
    from tldextract import TLDExtract

    folder = tmp_path_factory.mktemp("datatrove")
    with tarfile.open(shipped_sources()[0].path) as archive:
        archive.extractall(folder, filter="data")
    Path(folder, "url_filterblacklistsv0_3_0.tar.gz.completed").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(url_filter, "cached_assets_path", lambda **_: folder)
        made = url_filter.URLFilter()
        made.tldextractor = TLDExtract(cache_dir=None, suffix_list_urls=())
        made.download_data()

    def reason(url: str) -> str | None:
        verdict = made.filter(Document(text="", id="", metadata={"url": url}))
        return None if verdict is True else verdict[1]

    return reason


@pytest.fixture(scope="session")
def url_filter(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., UrlFilter]:
    """Returns a filter with the options of a recipe, already set up; its lists are in the tests' own cache."""
    cache = tmp_path_factory.mktemp("cache")

    def make(**options: object) -> UrlFilter:
        made = UrlFilter(UrlFilterConfig.model_validate(options))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CORPUSMILL_CACHE", str(cache))
            made.setup()
        return made

    return make


@pytest.fixture(scope="session")
def exact(url_filter: Callable[..., UrlFilter]) -> UrlFilter:
    return url_filter(preset="datatrove")


@pytest.fixture(scope="session")
def closer(url_filter: Callable[..., UrlFilter]) -> UrlFilter:
    return url_filter(preset="corpusmill")
