"""Keeps secrets in URLs out of files: texts are redacted before they are written, and a run refuses URLs that carry a secret.

Inputs, their names in documents, the recipe and the run's folder are written to `run.json`, manifests, reports and logs, and a later run
reads them from there. A redacted URL could not be opened again, so a URL with a secret is refused: credentials belong in the environment.
"""

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from corpusmill.pipeline.errors import InputError

MASK = "***"
#: A URL in a text: scheme, user, host and path, query and fragment. The lookbehind keeps the search fast: else each letter of a long word
#: would be tried as the begin of a scheme.
_URL = re.compile(r"(?<![A-Za-z0-9+.\-])([A-Za-z0-9+.\-]+://)([^\s/?#]*@)?([^\s?#]*)(\?[^\s#]*)?(#\S*)?")
#: A value in a query (`=...`), or a part of a query without a name.
_VALUE = re.compile(r"=[^&]*|(?<=[?&#])[^&=]+(?=&|$)")


def redact(text: str) -> str:
    """Returns `text` with `***` in place of the user and of all values in the query of each URL."""
    return _URL.sub(_redacted_url, text)


def _redacted_url(found: re.Match[str]) -> str:
    scheme, user, place, query, fragment = (part or "" for part in found.groups())
    fragment = _redacted_values(fragment) if "=" in fragment else fragment
    return scheme + (f"{MASK}@" if user else "") + place + _redacted_values(query) + fragment


def _redacted_values(query: str) -> str:
    return _VALUE.sub(lambda piece: f"={MASK}" if piece[0].startswith("=") else MASK, query)


def bare(text: str) -> str:
    """Returns `text` without the user, query and fragment of each URL."""
    return _URL.sub(lambda found: found[1] + found[3], text)


def walked(value: Any, change: Callable[[str], str]) -> Any:
    """Returns a JSON value in which every text, names included, is replaced by `change(text)`."""
    if isinstance(value, dict):
        return {change(str(name)): walked(item, change) for name, item in value.items()}
    if isinstance(value, list):
        return [walked(item, change) for item in value]
    return change(value) if isinstance(value, str) else value


#: The names of secrets in a query: of signed URLs (Amazon, Google, Azure, CloudFront) and of common APIs.
SECRET = re.compile(
    r"(x-amz-|x-goog-)?(signature|security-token|credential)|sig|awsaccesskeyid|((access|auth|api|private)[_-]?)?(token|key)|password|secret",
    re.IGNORECASE,
)
_ANY_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://\S+")


def has_secret(url: str) -> bool:
    """Whether a URL has a password (with http: any user), or a value in its query or fragment whose name marks a secret (SECRET)."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return True  # it can't be parsed, so it may hold one
    user, at, _ = parts.netloc.rpartition("@")
    if at and (":" in user or parts.scheme in ("http", "https")):
        return True
    return any(SECRET.fullmatch(name) for text in (parts.query, parts.fragment) for name, _ in parse_qsl(text, keep_blank_values=True))


def refuse_secrets(value: Any, where: str) -> None:
    """Raises InputError if a text in a JSON value has a URL with a secret. `where` names the value in the message."""
    if isinstance(value, dict):
        for name, item in value.items():
            refuse_secrets(item, f"{where}.{name}")
    elif isinstance(value, list | tuple):
        for item in value:
            refuse_secrets(item, where)
    elif isinstance(value, str) and "://" in value:
        for url in _ANY_URL.findall(value):
            if has_secret(url):
                raise InputError(
                    f"{where}: {redact(url)} carries credentials, which a run would write down; give it without them, and "
                    "the credentials by the environment (AWS_*, a profile), or fetch the file first."
                )
