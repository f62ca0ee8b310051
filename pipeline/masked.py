"""URLs without what opens them for others: a user's name and password, and what a query says (signatures, keys)."""

import re
from collections.abc import Callable
from typing import Any

MASK = "***"
#: A URL in a text: scheme, user, host and path, query and fragment. A scheme begins where nothing before it could belong to it: else each
#: letter of a long text without spaces would be tried as its begin.
_URL = re.compile(r"(?<![A-Za-z0-9+.\-])([A-Za-z0-9+.\-]+://)([^\s/?#]*@)?([^\s?#]*)(\?[^\s#]*)?(#\S*)?")
#: A value of a query (`=...`), or a piece of it that has no name.
_VALUE = re.compile(r"=[^&]*|(?<=[?&#])[^&=]+(?=&|$)")


def masked(text: str) -> str:
    """`text` with `***` for the user and for all values of the query of each URL in it."""
    return _URL.sub(_masked_url, text)


def _masked_url(found: re.Match[str]) -> str:
    scheme, user, place, query, fragment = (part or "" for part in found.groups())
    fragment = _masked_values(fragment) if "=" in fragment else fragment
    return scheme + (f"{MASK}@" if user else "") + place + _masked_values(query) + fragment


def _masked_values(query: str) -> str:
    return _VALUE.sub(lambda piece: f"={MASK}" if piece[0].startswith("=") else MASK, query)


def bare(text: str) -> str:
    """`text` with no user, query or fragment in any of its URLs."""
    return _URL.sub(lambda found: found[1] + found[3], text)


def walked(value: Any, change: Callable[[str], str]) -> Any:
    """`value` (of JSON) with every text in it, names too, as `change` makes it."""
    if isinstance(value, dict):
        return {change(str(name)): walked(item, change) for name, item in value.items()}
    if isinstance(value, list):
        return [walked(item, change) for item in value]
    return change(value) if isinstance(value, str) else value
