"""From the tree of a page to its main text: blocks, what speaks for and against each, and which are kept."""

from dataclasses import dataclass


class TooDeep(ValueError):
    """A page nests its elements deeper than the limit."""


@dataclass(frozen=True)
class Extracted:
    """What an extractor makes of a page."""

    text: str
    title: str | None = None
    author: str | None = None
    date: str | None = None  # of publication, YYYY-MM-DD
    canonical_url: str | None = None  # absolute
