"""Keeps secrets in URLs out of files: texts are redacted before they are written, and a run refuses URLs that carry a secret.

Inputs, their names in documents, the recipe and the run's folder are written to `run.json`, manifests, reports and logs, and a later run
reads them from there. A redacted URL could not be opened again, so a URL with a secret is refused: credentials belong in the environment.
"""

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urlsplit

from corpusmill.pipeline.errors import InputError

MASK = "***"
#: A URL in a text: scheme, user, host and path, query and fragment. The lookbehind keeps the search fast: else each letter of a long word
#: would be tried as the begin of a scheme.
_URL = re.compile(r"(?<![A-Za-z0-9+.\-])([A-Za-z0-9+.\-]+://)([^\s/?#]*@)?([^\s?#]*)(\?[^\s#]*)?(#\S*)?")
#: A value in a query (`=...`) without a mark of the sentence that follows it, or a part of a query without a name.
_VALUE = re.compile(r"=[^&]*?(?=[:;,.]?(?:&|$))|(?<=[?&#])[^&=]+(?=&|$)")
#: The parameters of a path, from the first on (`;token=...`).
_PARAMETERS = re.compile(r";[^/]*=.*", re.DOTALL)


def redact(text: str) -> str:
    """Returns `text` with `***` in place of the user and of all values in the query of each URL."""
    return _URL.sub(_redacted_url, text)


def _redacted_url(found: re.Match[str]) -> str:
    scheme, user, place, query, fragment = (part or "" for part in found.groups())
    fragment = _redacted_values(fragment) if "=" in fragment else fragment
    return scheme + (f"{MASK}@" if user else "") + _PARAMETERS.sub(f";{MASK}", place) + _redacted_values(query) + fragment


def _redacted_values(query: str) -> str:
    return _VALUE.sub(lambda piece: f"={MASK}" if piece[0].startswith("=") else MASK, query)


def bare(text: str) -> str:
    """Returns `text` without the user, query and fragment of each URL."""
    return _URL.sub(lambda found: found[1] + _PARAMETERS.sub("", found[3]), text)


def walked(value: Any, change: Callable[[str], str]) -> Any:
    """Returns a JSON value in which every text, names included, is replaced by `change(text)`."""
    if isinstance(value, dict):
        return {change(str(name)): walked(item, change) for name, item in value.items()}
    if isinstance(value, list):
        return [walked(item, change) for item in value]
    return change(value) if isinstance(value, str) else value


#: What marks the name of a value as a secret: one of its parts (`X-Api-Key`, `AWSAccessKeyId`), or the end of the name as one word.
PARTS = re.compile(
    r"keys?|tokens?|secret|sig(nature)?|passw(or)?d|passphrase|pass|pwd?|auth(orization)?|bearer|credentials?|sas|jwt|pat|otp|cookie",
    re.IGNORECASE,
)
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_END = re.compile(
    r"(token|secret|passw(or)?d|pwd|signature|credential|(api|access|auth|secret|private|account)key|jwt|sess(ion)?id)(id|s)?$"
)
_ANY_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://\S+")


def has_secret(url: str) -> bool:
    """Whether a URL has a password (with http: any user), or a value in its path, query or fragment whose name marks a secret (PARTS). A
    URL in a value counts, too."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return True  # it can't be parsed, so it may hold one
    user, at, _ = parts.netloc.rpartition("@")
    if at and (":" in user or parts.scheme in ("http", "https")):
        return True
    pairs = [pair.partition("=") for pair in re.split(r"[?&;#]", url.partition("://")[2])[1:]]
    return any(
        value and (_is_secret(unquote(name)) or ("://" in unquote(value) and has_secret(unquote(value)))) for name, _, value in pairs
    )


def _is_secret(name: str) -> bool:
    return any(map(PARTS.fullmatch, _PART.findall(name))) or bool(_END.search(re.sub(r"[\W_]", "", name).lower()))


def without_secrets(text: str) -> str:
    """Returns a text for a terminal, in which each URL with a secret is redacted, and others are as they were."""
    return _ANY_URL.sub(lambda found: redact(found[0]) if has_secret(found[0]) else found[0], text)


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
