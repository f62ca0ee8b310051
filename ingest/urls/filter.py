"""The URL filter of `ingest`: finds all rules that a URL fails, each with the reason."""

import importlib.metadata
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, Field

from corpusmill.ingest.rows import IngestRow
from corpusmill.ingest.urls.lists import (
    LISTS,
    LONGEST,
    PLAIN,
    WORDS,
    Address,
    FoundWords,
    Host,
    HostReader,
    Kind,
    ListFile,
    Lists,
    WordLists,
    address_prefixes,
    is_domain,
    open_lists,
    read_url,
    readable,
    same_address,
    shipped_sources,
    squeeze,
)
from corpusmill.pipeline.config import Config, resolve_options
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.files import open_file

RuleName = Literal["url_domain", "url_subdomain", "url_exact", "url_hard_word", "url_soft_words", "url_subword"]
#: Our rules in the order in which they are reported, with the reason that datatrove's URLFilter gives for each. datatrove stops at the
#: first rule that fails, so its reason belongs to the first rule in `failed`.
DATATROVE_REASONS: dict[RuleName, str] = {
    "url_domain": "domain",
    "url_subdomain": "subdomain",
    "url_exact": "url",
    "url_hard_word": "hard_blacklisted",
    "url_soft_words": "soft_blacklisted",
    "url_subword": "blacklisted_subword",
}


def _word(given: str) -> str:
    if not squeeze(given):
        raise ValueError("a word has letters a to z or digits")
    return squeeze(given)


Word = Annotated[str, AfterValidator(_word)]


class UrlFilterConfig(Config):
    """The lists and words that decide about a URL, and how a URL is compared with them.

    A record without a URL passes under every preset.
    """

    preset: Literal["corpusmill", "datatrove"] = Field(
        "corpusmill",
        description="How a URL is compared: `datatrove` as that library's URLFilter does, letter by letter; `corpusmill` as "
        "browsers read it, ignoring case, percent-encoding and scheme, with all parent domains and with IP addresses.",
    )
    shipped_lists: bool = Field(True, description="Use the lists and words that datatrove ships (4.56 million domains).")
    domains: list[str] = Field([], description="Further domains, and files with a domain a line (`#` begins a comment).")
    urls: list[str] = Field([], description="Further lists: files with a URL a line.")
    hard_words: list[Word] = Field([], description="Further words of which one in the URL is enough.")
    soft_words: list[Word] = Field([], description="Further words of which several must be in the URL.")
    subwords: list[Word] = Field([], description="Further words that are looked for within the URL's words and across them.")
    soft_words_needed: int = Field(2, ge=1, description="How many different soft words drop a URL.")
    allow: list[str] = Field([], description="Domains, and files with a domain or URL in each line; URLs that match one pass all rules.")
    rules: list[RuleName] = Field(list(DATATROVE_REASONS), description="The rules that decide.")


#: The number of hosts whose verdict is cached. The pages of a site are close to each other in a crawl.
HOSTS = 4096


class Failure(NamedTuple):
    rule: RuleName
    reason: str


class Site(NamedTuple):
    """The verdict about a host."""

    failures: list[Failure]
    lists: list[Lists]  # the lists that may have URLs of this host


def _sources(key: str, given: str, kinds: tuple[Kind, ...]) -> list[ListFile]:
    """Returns the lists of an entry of the recipe, a file or a domain. Raises InputError, which names the key."""
    if key != "urls" and "://" not in given and not Path(given).is_file() and is_domain(given):
        return [ListFile("domains", given, literal=True)]
    try:
        with open_file(given):
            return [ListFile(kind, given) for kind in kinds]
    except InputError as error:
        raise InputError(f"ingest.url_filter.{key}: {str(error).removesuffix('.')}{'; nor is it a domain' * (key != 'urls')}.") from error


class UrlFilter:
    """Decides about URLs, in about 10 microseconds each. `setup` must be called first, once in each process."""

    def __init__(self, config: UrlFilterConfig):
        self.config = config
        self.exact = config.preset == "datatrove"
        self.rules = frozenset(config.rules)

    def setup(self, fingerprint: list[str] | None = None) -> None:
        """Opens the lists and the public suffixes.

        Raises InputError if a list can't be read, or if the lists do not have the given `fingerprint`: another machine may have
        another version of datatrove, or other files with the same paths.
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
        """Returns the names of the lists, which contain a hash of their content, and the versions of the URL parser and of the public
        suffixes.

        The verdicts depend on these, besides configuration and code. Builds lists that are not in the user's cache.
        """
        return _named(*self._open())

    def _open(self) -> tuple[list[Lists], Lists | None]:
        """Opens the lists that block, and the list that allows (None if there is none)."""
        given = [source for kind in LISTS for path in getattr(self.config, kind) for source in _sources(kind, path, (kind,))]
        groups = ([shipped_sources()] if self.config.shipped_lists else []) + ([given] if given else [])
        allow = [source for path in self.config.allow for source in _sources("allow", path, LISTS)]
        return [open_lists(group, self.exact) for group in groups], open_lists(allow, exact=False) if allow else None

    def failures(self, url: str | None) -> list[Failure]:
        """Returns all rules that a URL fails, in the order of `DATATROVE_REASONS`; none where there is no URL."""
        if not url:
            return []
        plain = PLAIN.match(url)
        read = None if plain or self.exact else read_url(url)
        host = plain[1] if plain else read.host if read else url
        site = self.site(host) if len(host) <= LONGEST else self._judged(host)
        failures = site.failures.copy()
        if listed := self._listed_url(site, url):
            failures.append(Failure("url_exact", f"the URL {listed} is listed"))
        failures += self._word_failures(url, read)
        return [failure for failure in failures if failure.rule in self.rules] if failures else failures

    def allowed(self, url: str) -> str | None:
        """Returns the entry of the allow list to which `url` belongs, or None. Always compares as the preset `corpusmill` does."""
        if not self.allow:
            return None
        read = read_url(url)
        listed = next((name for name in _names(self.hosts.read(read.host)) if name in self.allow.domains), None)
        return listed or _listed_prefix(self.allow, same_address(read))

    def _judged(self, url_or_host: str) -> Site:
        """Returns the verdict about a host, under the preset `datatrove` also of a URL that is not plain."""
        host = self.hosts.read(url_or_host)
        if self.exact:
            below, domain = [host.name] if host.name != host.domain else [], host.domain
            lists = self.lists
        else:
            *below, domain = _names(host)
            lists = [lists for lists in self.lists if url_or_host.removeprefix("www.") in lists.hosts]
        failures = []
        if self._listed(domain):
            failures.append(Failure("url_domain", f"the domain {domain} is listed"))
        for name_below in below:
            if self._listed(name_below):
                failures.append(Failure("url_subdomain", f"the host {name_below} is listed"))
                break
        return Site(failures, lists)

    def _listed(self, name: str) -> bool:
        for lists in self.lists:
            if name in lists.domains:
                return bool(name)
        return False

    def _listed_url(self, site: Site, url: str) -> str | None:
        for lists in site.lists:
            listed = (url if url in lists.urls else None) if self.exact else _listed_prefix(lists, same_address(read_url(url)))
            if listed:
                return listed
        return None

    def _word_failures(self, url: str, read: Address | None) -> Iterator[Failure]:
        found = self.words.find(url if self.exact else readable(url))
        if read:
            found = FoundWords(*(sorted({*a, *b}) for a, b in zip(found, self.words.find(readable(read.text)))))
        if found.hard:
            yield Failure("url_hard_word", f"the URL has the word {', '.join(found.hard)}")
        if len(found.soft) >= self.config.soft_words_needed:
            yield Failure("url_soft_words", f"the URL has the words {', '.join(found.soft)}")
        if found.subwords:
            yield Failure("url_subword", f"the URL contains {', '.join(found.subwords)}")


def resolve_url_filter(options: Any) -> dict[str, Any] | None:
    """Validates the recipe's `url_filter` and fills in its defaults; None if there is no filter."""
    return None if options is None else resolve_options(UrlFilterConfig, options)


def make_url_filter(options: dict[str, Any]) -> UrlFilter:
    """Returns the filter for resolved options. It loads nothing yet."""
    return UrlFilter(UrlFilterConfig.model_validate(options))


def url_filter_params(options: dict[str, Any] | None) -> dict[str, Any]:
    """Returns the params of tasks: if there is a filter, the fingerprint of its lists, which workers check. Builds missing lists."""
    if options is None:
        return {}
    return {"url_filter": {"lists": make_url_filter(options).fingerprint()}}


def check_url(row: IngestRow, urls: UrlFilter | None) -> IngestRow:
    """Fails a row by all rules that its URL fails. If the allow list has the URL, the row passes, with a remark that names the rules."""
    failures = urls.failures(row.url) if urls else []
    exception = urls.allowed(row.url) if urls and failures and row.url else None
    if exception:
        row.reasons.append(f"{exception} is allowed, though {' and '.join(reason for _, reason in failures)}")
    else:
        for rule, reason in failures:
            row.fail(rule, reason)
    return row


def _named(lists: list[Lists], allow: Lists | None) -> list[str]:
    names = [f"list {opened.name}" for opened in [*lists, *([allow] if allow else [])]]
    return [*names, *(f"{package} {importlib.metadata.version(package)}" for package in ("can_ada", "tldextract"))]


def _listed_prefix(lists: Lists, address: str) -> str | None:
    return next((prefix for prefix in address_prefixes(address, lists.depth) if prefix in lists.urls), None)


def _names(host: Host) -> list[str]:
    """Returns a host and its parents down to the registered domain."""
    if not host.name:
        return [host.rest]
    if len(host.name) > LONGEST:
        return [host.name, host.domain]  # all parents would take quadratic time
    names = [host.name]
    for _ in range(host.name.count(".") - host.domain.count(".")):
        names.append(names[-1].partition(".")[2])
    return names
