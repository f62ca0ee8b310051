"""Extracts the main text of a page: parses it, cuts it into blocks, measures and scores each block, and keeps the good ones."""

from dataclasses import dataclass


class TooDeep(ValueError):
    """The elements of a page are nested more deeply than the limit."""


@dataclass(frozen=True)
class Extracted:
    """The text and the metadata that an extractor finds in a page."""

    text: str
    title: str | None = None
    author: str | None = None
    date: str | None = None  # of publication, YYYY-MM-DD
    canonical_url: str | None = None  # absolute
    page_type: str | None = None  # one of `page_type.TYPES`
    page_type_score: float | None = None  # its probability
    origin: str | None = None  # what the text was taken from if the markup holds none
    empty_by: str | None = None  # the rule that a page without text fails; None: it holds nothing
    plain: str | None = None  # the text without marks if `text` is Markdown
