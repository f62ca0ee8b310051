"""Provides datatrove's filters to the benchmarks: with its own tokenizer or another, with early exit or without thresholds."""

import re
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
    LanguageFilter,
    c4_filters,
    fineweb_quality_filter,
    gopher_quality_filter,
    gopher_repetition_filter,
)
from datatrove.pipeline.filters.base_filter import get_filter_result
from datatrove.pipeline.formatters import PIIFormatter
from datatrove.utils.text import split_into_sentences, split_into_words

from corpusmill.filters.language import language_model

MODULES = (fineweb_quality_filter, gopher_quality_filter, gopher_repetition_filter)
FIND_WORDS = re.compile(r"\w+|[^\w\s]").findall
FIND_SENTENCES = re.compile(r"[^.!?]+[.!?]*").findall


def stock_words() -> None:
    """Restores datatrove's own words and sentences, which are spaCy's."""
    for module in MODULES:
        module.split_into_words = split_into_words
    c4_filters.split_into_sentences = split_into_sentences


def regex_words() -> None:
    """Makes the filters find words and sentences by regular expressions, which is faster than spaCy."""
    for module in MODULES:
        module.split_into_words = lambda text, language: FIND_WORDS(text)
    c4_filters.split_into_sentences = lambda text, language: FIND_SENTENCES(text)


def all_values(family: str) -> list[Any]:
    """Returns the filters of a family without thresholds, so that each computes all of its values."""
    filters = {"Gopher": [GopherRepetitionFilter(), GopherQualityFilter(min_doc_words=1)], "FineWeb quality": [FineWebQualityFilter()]}[
        family
    ]
    for rule in filters:
        for name, value in vars(rule).items():
            if name.startswith(("max_", "dup_")) and isinstance(value, int | float):
                setattr(rule, name, 1e9)
            elif name.startswith("min_") and value is not None:
                setattr(rule, name, -1)
        for name in ("top_n_grams", "dup_n_grams"):
            if hasattr(rule, name):
                setattr(rule, name, tuple((n, 1e9) for n, _ in getattr(rule, name)))
        for name, value in {"line_punct_thr": -1, "short_line_threshold": 2, "char_duplicates_ratio": 1e9, "new_line_ratio": 1e9}.items():
            if hasattr(rule, name):
                setattr(rule, name, value)
    return filters


def language_filter() -> LanguageFilter:
    """Returns datatrove's language filter with its defaults, on corpusmill's copy of the model (lid.176.ftz)."""
    from fasttext.FastText import _FastText

    LanguageFilter._requires_dependencies = []  # datatrove asks for another distribution of the same module
    rule = LanguageFilter()
    rule.model._model = _FastText(language_model())
    return rule


class Chain:
    """FineWeb's steps on text, as in datatrove's examples/fineweb.py; a document stops at the first step that it fails."""

    def __init__(self) -> None:
        self.filters = [
            language_filter(), GopherRepetitionFilter(), GopherQualityFilter(),
            C4QualityFilter(filter_no_terminal_punct=False), FineWebQualityFilter(),
        ]  # fmt: skip
        self.formatter = PIIFormatter()

    def run(self, texts: list[str]) -> int:
        """Returns the number of documents that pass."""
        kept = 0
        for text in texts:
            document = Document(text=text, id="")
            if all(get_filter_result(rule.filter(document))[0] for rule in self.filters):
                document.text = self.formatter.format(document.text)
                kept += 1
        return kept
