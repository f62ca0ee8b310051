"""Fuzzes lists of domains, URLs and words: entries and answers, or one sentence."""

import contextlib
import gzip
from functools import cache

from fuzzing import choose, choosing, scratch

from corpusmill.ingest.urls.filter import UrlFilter, UrlFilterConfig
from corpusmill.ingest.urls.lists import ListFile, build, read_lists
from corpusmill.pipeline.errors import InputError

PRESETS = ["corpusmill", "datatrove"]
NAMES = ["domains.txt", "urls.txt.gz", "url"]
LIST = b"\xef\xbb\xbfexample.com\n# a comment\n\nEXAMPLE.org/path?x=1#y\nm\xc3\xbcnchen.de\nhttp://user@host.test:80/a/../b\n"


def seeds() -> list[bytes]:
    urls = [b"http://www.example.com/", b"https://[::1]:8/%2e%2e/\xc3\xa9", b"//host", b"http://" + b"a." * 200 + b"com/adult/porn-x"]
    return [choosing(0, LIST), choosing(1, gzip.compress(LIST, mtime=0)), *(choosing(2, url) for url in urls)]


def fuzz(data: bytes) -> None:
    name, content = choose(data, NAMES)
    if name == "url":
        return ask(content.decode("utf-8", "replace"))
    path = scratch() / name
    path.write_bytes(content)
    with contextlib.suppress(InputError):
        kind = "domains" if name.startswith("domains") else "urls"
        entries = list(ListFile(kind, str(path)).entries())
        for exact in (True, False):
            path.with_suffix(".built").write_bytes(build([ListFile(kind, str(path))], exact))
            lists = read_lists(path.with_suffix(".built"))
            found = lists.domains if kind == "domains" else lists.urls
            assert not exact or all(entry in found for entry in entries), "an entry is lost"
    return None


def ask(url: str) -> None:
    for filter_ in filters():
        for failure in filter_.failures(url):
            assert failure.rule in filter_.rules and failure.reason


@cache
def filters() -> list[UrlFilter]:
    found = [
        UrlFilter(UrlFilterConfig.model_validate({"preset": preset, "shipped_lists": False, "hard_words": ["porn"]})) for preset in PRESETS
    ]
    for filter_ in found:
        filter_.setup()
    return found
