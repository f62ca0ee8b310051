"""Compares Gopher's and FineWeb's values with datatrove's filters."""

import math
from collections.abc import Callable

import pyarrow as pa
import pytest
from datatrove.data import Document
from datatrove.pipeline.filters import fineweb_quality_filter as reference_fineweb
from datatrove.pipeline.filters import gopher_quality_filter as reference
from datatrove.pipeline.filters import gopher_repetition_filter as reference_repetition
from datatrove.pipeline.filters.base_filter import BaseFilter, get_filter_result

from corpusmill.filters.fineweb_quality import FinewebQuality
from corpusmill.filters.gopher import GopherQuality, GopherRepetition
from corpusmill.filters.rules import Rule, StepRule, decide

# ---- Verdicts, all reasons and values against datatrove's GopherQualityFilter with the same words.

OFF = {
    "min_doc_words": None, "max_doc_words": None, "min_avg_word_length": None, "max_avg_word_length": None, "max_symbol_word_ratio": None,
    "max_bullet_lines_ratio": None, "max_ellipsis_lines_ratio": None, "max_non_alpha_words_ratio": None, "min_stop_words": None,
}  # fmt: skip
ALONE = {
    "gopher_short_doc": {"min_doc_words": 50},
    "gopher_long_doc": {"max_doc_words": 100000},
    "gopher_below_avg_threshold": {"min_avg_word_length": 3},
    "gopher_above_avg_threshold": {"max_avg_word_length": 10},
    "gopher_too_many_hashes": {"max_symbol_word_ratio": 0.1},
    "gopher_too_many_ellipsis": {"max_symbol_word_ratio": 0.1},
    "gopher_too_many_bullets": {"max_bullet_lines_ratio": 0.9},
    "gopher_too_many_end_ellipsis": {"max_ellipsis_lines_ratio": 0.3},
    "gopher_below_alpha_threshold": {"max_non_alpha_words_ratio": 0.8},
    "gopher_enough_stop_words": {"min_stop_words": 2},
}


def decisions(step: str, preset: tuple[Rule, ...], texts: list[str], measure_step: Callable) -> list[list[str]]:
    """Returns the rules that each text fails."""
    columns, _ = measure_step(step, {}, texts)
    values = {name: pa.array(column) for name, column in columns.items()}
    return decide([StepRule(step, rule) for rule in preset], values, len(texts)).to_pylist()


def reason(rule: BaseFilter, text: str) -> str | None:
    """Returns datatrove's reason to drop a text."""
    return get_filter_result(rule.filter(Document(text=text, id="")))[1]


@pytest.fixture
def same_words(monkeypatch, find_words: Callable) -> None:
    """Makes datatrove's filters split texts by the word rule `words`."""
    for module in (reference, reference_repetition, reference_fineweb):
        monkeypatch.setattr(module, "split_into_words", lambda text, language: find_words(text))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.usefixtures("same_words")
def test_every_reason_of_every_document(texts: list[str], find_words: Callable, measure_step: Callable) -> None:
    filters = {name: reference.GopherQualityFilter(**{**OFF, **options}) for name, options in ALONE.items()}
    stock = reference.GopherQualityFilter()
    seen = set()
    for text, ours in zip(texts, decisions("gopher_quality", GopherQuality.PRESETS["datatrove-0.10"], texts, measure_step)):
        theirs = []
        for name, rule in filters.items():
            try:
                found = reason(rule, text)
            except ZeroDivisionError:  # an undefined ratio is NaN here and does not decide
                continue
            if name == "gopher_too_many_ellipsis" and found == "gopher_too_many_hashes":
                found = name if (text.count("...") + text.count("…")) / len(find_words(text)) > 0.1 else None
            theirs += [name] if found == name else []
        assert ours == theirs, text[:200]
        assert reason(stock, text) == (ours[0] if ours else None)
        seen.update(ours)
    assert seen >= set(ALONE) - {"gopher_long_doc"}


def test_the_paper_counts_every_word() -> None:
    by_name = {rule.name: rule for rule in GopherQuality.PRESETS["gopher-paper"]}
    assert by_name["gopher_short_doc"].column == "gopher_all_words"
    assert by_name["gopher_below_avg_threshold"].column == "gopher_mean_all_word_length"


# ---- Verdicts and all reasons against datatrove's GopherRepetitionFilter with the same words.

OFF_REPETITION = dict.fromkeys(["dup_line_frac", "dup_para_frac", "dup_line_char_frac", "dup_para_char_frac"]) | {
    "top_n_grams": (),
    "dup_n_grams": (),
}
ALONE_REPETITION = {
    "dup_para_frac": {"dup_para_frac": 0.3},
    "dup_para_char_frac": {"dup_para_char_frac": 0.2},
    "dup_line_frac": {"dup_line_frac": 0.3},
    "dup_line_char_frac": {"dup_line_char_frac": 0.2},
    **{f"top_{n}_gram": {"top_n_grams": ((n, limit),)} for n, limit in ((2, 0.2), (3, 0.18), (4, 0.16))},
    **{
        f"duplicated_{n}_n_grams": {"dup_n_grams": ((n, limit),)}
        for n, limit in ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))
    },
}


@pytest.mark.usefixtures("same_words")
def test_every_reason_of_every_document_repetition(texts: list[str], measure_step: Callable) -> None:
    make, preset = reference_repetition.GopherRepetitionFilter, GopherRepetition.PRESETS["datatrove-0.10"]
    filters = {name: make(**{**OFF_REPETITION, **options}) for name, options in ALONE_REPETITION.items()}
    stock, seen = make(), set()
    for text, ours in zip(texts, decisions("gopher_repetition", preset, texts, measure_step)):
        theirs = [] if text else ["repetition_empty"]
        assert ours == theirs + [name for name, rule in filters.items() if reason(rule, text) == name], text[:200]
        assert reason(stock, text) == (ours[0].removeprefix("repetition_") if ours else None)
        seen.update(ours)
    assert seen == {"repetition_empty", *ALONE_REPETITION}


# ---- Verdicts and all reasons against datatrove's FineWebQualityFilter with the same words.

OFF_FINEWEB = {"line_punct_thr": -1, "short_line_thr": 2, "char_duplicates_ratio": math.inf, "new_line_ratio": math.inf}
ALONE_FINEWEB = {
    "line_punct_ratio": {"line_punct_thr": 0.12},
    "short_line_ratio": {"short_line_thr": 0.67},
    "char_dup_ratio": {"char_duplicates_ratio": 0.01},
    "list_ratio": {"new_line_ratio": 0.3},
}


@pytest.mark.usefixtures("same_words")
def test_every_reason_of_every_document_fineweb(texts: list[str], measure_step: Callable) -> None:
    make = reference_fineweb.FineWebQualityFilter
    filters = {name: make(**{**OFF_FINEWEB, **options}) for name, options in ALONE_FINEWEB.items()}
    stock, seen = make(), set()
    for text, ours in zip(texts, decisions("fineweb_quality", FinewebQuality.PRESETS["fineweb"], texts, measure_step)):
        first = reason(stock, text)
        if first == "empty":
            assert ours == ["fineweb_empty"]
        else:
            assert ours == [name for name, rule in filters.items() if reason(rule, text) == name], text[:200]
            assert first == (ours[0] if ours else None)
        seen.update(ours)
    assert seen == {"fineweb_empty", *ALONE_FINEWEB}
