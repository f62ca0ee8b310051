"""The configuration of the URL filter, and the names of its rules."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from corpusmill.ingest.urls.words import squeeze
from corpusmill.pipeline.config import Config

RuleName = Literal["url_domain", "url_subdomain", "url_exact", "url_hard_word", "url_soft_words", "url_subword"]
#: Our rules in the order in which they are reported, and the reason that datatrove's URLFilter gives for each. It
#: stops at the first that fails, so its reason is that of the first name in `failed`.
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
    """Which lists and words decide about a URL, and how they are compared with it.

    A record without a URL passes under every preset: no rule can fail it.
    """

    preset: Literal["corpusmill", "datatrove"] = Field(
        "corpusmill",
        description="How a URL is compared: `datatrove` as that library's URLFilter does, letter by letter; `corpusmill` whatever "
        "its case, percent-encoding and scheme, with all parent domains and with IP addresses.",
    )
    shipped_lists: bool = Field(True, description="Use the lists and words that datatrove ships (4.56 million domains).")
    domains: list[str] = Field([], description="Further lists: files with a domain a line (`#` begins a comment).")
    urls: list[str] = Field([], description="Further lists: files with a URL a line.")
    hard_words: list[Word] = Field([], description="Further words of which one in the URL is enough.")
    soft_words: list[Word] = Field([], description="Further words of which several must be in the URL.")
    subwords: list[Word] = Field([], description="Further words that are looked for within the URL's words and across them.")
    soft_words_needed: int = Field(2, ge=1, description="How many different soft words drop a URL.")
    allow: list[str] = Field([], description="Files with a domain or a URL a line: such a URL passes, whatever the rules say of it.")
    rules: list[RuleName] = Field(list(DATATROVE_REASONS), description="The rules that decide.")
