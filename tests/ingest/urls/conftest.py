"""Provides datatrove's own filter as the oracle, and the entries of its lists."""

import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from corpusmill.ingest.urls.filter import UrlFilter, UrlFilterConfig
from corpusmill.ingest.urls.lists import shipped_sources


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
