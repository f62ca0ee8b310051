"""The URL filter that `ingest` is given: looked up by name, for its lists and rules belong to another room."""

from typing import Any, Protocol

from corpusmill.ingest.rows import Row
from corpusmill.pipeline.config import resolve_options
from corpusmill.pipeline.stage import load_object

#: It counts for the code of a task whose configuration has a URL filter (`code.py`).
STEPS = {"url_filter": "corpusmill.ingest.urls.step:UrlFilter"}


class UrlFilter(Protocol):
    def setup(self, fingerprint: list[str] | None = None) -> None:
        """Opens its lists; raises InputError where they are not those that `fingerprint` names."""

    def fingerprint(self) -> list[str]:
        """What decides beside the configuration and the code."""

    def failures(self, url: str | None) -> list[tuple[str, str]]:
        """Each rule that a URL fails, with what it was in words."""

    def allowed(self, url: str) -> str | None:
        """What on the list of exceptions lets a URL pass."""


def resolve_url_filter(options: Any) -> dict[str, Any] | None:
    """The options of a recipe, validated, with all defaults filled in; None where there is no filter."""
    return None if options is None else resolve_options(load_object(STEPS["url_filter"]).Config, options)


def make_url_filter(options: dict[str, Any]) -> UrlFilter:
    """The filter for resolved options; nothing is loaded yet."""
    kind = load_object(STEPS["url_filter"])
    made: UrlFilter = kind(kind.Config.model_validate(options))
    return made


def url_filter_params(options: dict[str, Any] | None) -> dict[str, Any]:
    """What tasks depend on, and workers check, where a filter is on: its lists (built here where need be)."""
    if options is None:
        return {}
    return {"url_filter": {"lists": make_url_filter(options).fingerprint()}}


def check_url(row: Row, urls: UrlFilter | None) -> Row:
    """Fails a row by every rule that its URL fails; where the URL is an exception, the row says what would have failed it."""
    failures = urls.failures(row.url) if urls else []
    exception = urls.allowed(row.url) if urls and failures and row.url else None
    if exception:
        row.reasons.append(f"{exception} is allowed, though {' and '.join(reason for _, reason in failures)}")
    else:
        for rule, reason in failures:
            row.fail(rule, reason)
    return row
