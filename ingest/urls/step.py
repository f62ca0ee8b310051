"""The URL filter as `ingest` is given it: every rule that a URL fails, each with what it was that failed it."""

import importlib.metadata
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from corpusmill.ingest.urls.address import LONGEST, PLAIN, Host, HostReader, address_prefixes, readable, same_address, same_host, split_url
from corpusmill.ingest.urls.config import RuleName, UrlFilterConfig
from corpusmill.ingest.urls.listfile import Lists, open_lists
from corpusmill.ingest.urls.sources import LISTS, WORDS, Source, shipped_sources
from corpusmill.ingest.urls.words import WordLists
from corpusmill.pipeline.errors import InputError

#: Hosts whose verdict is remembered: the pages of a site lie close to each other in a crawl.
HOSTS = 4096


class Failure(NamedTuple):
    rule: RuleName
    reason: str


class Site(NamedTuple):
    """What is known of a host."""

    failures: list[Failure]
    name: str  # in the form in which hosts are equal; empty under the preset `datatrove`, which does not ask for it
    lists: list[Lists]  # that may have URLs of it


class UrlFilter:
    """Decides about URLs, in about 10 microseconds each. `setup` comes before `failures`, once a process."""

    Config = UrlFilterConfig

    def __init__(self, config: UrlFilterConfig):
        self.config = config
        self.exact = config.preset == "datatrove"
        self.rules = frozenset(config.rules)

    def setup(self, fingerprint: list[str] | None = None) -> None:
        """Opens the lists and the public suffixes.

        Raises InputError where a list can't be read, or where the lists are not those of `fingerprint`: another machine
        may have another datatrove, or other files under the same paths.
        """
        self.lists, self.allow = self._open()
        here = _named(self.lists, self.allow)
        if fingerprint not in (None, here):
            raise InputError(
                f"ingest.url_filter: the lists of this worker are not those that the run was started with "
                f"({', '.join(here)} here, {', '.join(fingerprint or [])} there)."
            )
        words = [[*getattr(self.config, kind), *(word for lists in self.lists for word in lists.words[kind])] for kind in WORDS]
        self.words = WordLists(*words)
        self.hosts = HostReader()
        self.site = lru_cache(HOSTS)(self._judged)

    def fingerprint(self) -> list[str]:
        """What decides beside the configuration and the code: the content of the lists and the public suffixes.

        Builds lists that the user's cache does not have: on each machine of a cluster once.
        """
        return _named(*self._open())

    def _open(self) -> tuple[list[Lists], Lists | None]:
        """The lists that block, and the one that allows."""
        own = [Source(kind, path) for kind in LISTS for path in getattr(self.config, kind)]
        groups = ([shipped_sources()] if self.config.shipped_lists else []) + ([own] if own else [])
        allow = [Source(kind, path) for path in self.config.allow for kind in LISTS]
        return [open_lists(group, self.exact) for group in groups], open_lists(allow, exact=False) if allow else None

    def failures(self, url: str | None) -> list[Failure]:
        """Every rule that a URL fails, in the order of `config.DATATROVE_REASONS`; none where there is no URL."""
        if not url:
            return []
        site, tail = self._site(url)
        failures = site.failures.copy()
        if listed := self._listed_url(site, tail, url):
            failures.append(Failure("url_exact", f"the URL {listed} is listed"))
        failures += self._word_failures(url if self.exact else readable(url))
        return [failure for failure in failures if failure.rule in self.rules] if failures else failures

    def allowed(self, url: str) -> str | None:
        """The domain or URL of the allow list that `url` belongs to; compared as the preset `corpusmill` does, always."""
        if not self.allow:
            return None
        names = _names(self.hosts.read(url))
        listed = next((name for name in names if name in self.allow.domains), None)
        return listed or _listed_prefix(self.allow, same_address(names[0], split_url(url)[1]))

    def _site(self, url: str) -> tuple[Site, str]:
        """What is known of a URL's host, and what follows the host in the URL."""
        plain = PLAIN.match(url)
        return (self.site(plain[1]), plain[2] or "") if plain else (self._judged(url), split_url(url)[1])

    def _judged(self, url_or_host: str) -> Site:
        host = self.hosts.read(url_or_host)
        if self.exact:
            below, domain = [host.name] if host.name != host.domain else [], host.domain
            name, lists = "", self.lists
        else:
            names = *below, domain = _names(host)
            name = names[0]
            lists = [lists for lists in self.lists if name.removeprefix("www.") in lists.hosts]
        failures = []
        if self._listed(domain):
            failures.append(Failure("url_domain", f"the domain {domain} is listed"))
        for name_below in below:
            if self._listed(name_below):
                failures.append(Failure("url_subdomain", f"the host {name_below} is listed"))
                break
        return Site(failures, name, lists)

    def _listed(self, name: str) -> bool:
        for lists in self.lists:
            if name in lists.domains:
                return bool(name)
        return False

    def _listed_url(self, site: Site, tail: str, url: str) -> str | None:
        for lists in site.lists:
            listed = (url if url in lists.urls else None) if self.exact else _listed_prefix(lists, same_address(site.name, tail))
            if listed:
                return listed
        return None

    def _word_failures(self, text: str) -> Iterator[Failure]:
        found = self.words.find(text)
        if found.hard:
            yield Failure("url_hard_word", f"the URL has the word {', '.join(found.hard)}")
        if len(found.soft) >= self.config.soft_words_needed:
            yield Failure("url_soft_words", f"the URL has the words {', '.join(found.soft)}")
        if found.subwords:
            yield Failure("url_subword", f"the URL contains {', '.join(found.subwords)}")


def _named(lists: list[Lists], allow: Lists | None) -> list[str]:
    names = [f"list {opened.name}" for opened in [*lists, *([allow] if allow else [])]]
    return [*names, f"tldextract {importlib.metadata.version('tldextract')}"]


def _listed_prefix(lists: Lists, address: str) -> str | None:
    return next((prefix for prefix in address_prefixes(address, lists.depth) if prefix in lists.urls), None)


def _names(host: Host) -> list[str]:
    """A host and its parents down to the registered domain, in the form in which hosts are equal."""
    if not host.name:
        return [same_host(host.rest)]
    if len(host.name) > LONGEST:
        return [same_host(host.name), same_host(host.domain)]  # its parents would take quadratic time
    names = [same_host(host.name)]
    for _ in range(host.name.count(".") - host.domain.count(".")):
        names.append(names[-1].partition(".")[2])
    return names
