"""What an extractor makes of a page."""

from dataclasses import dataclass


class TooDeep(ValueError):
    """A page nests its elements deeper than the limit."""


@dataclass(frozen=True)
class Extracted:
    text: str
    title: str | None = None
    author: str | None = None
    date: str | None = None  # of publication, YYYY-MM-DD
    canonical_url: str | None = None  # absolute
