"""Verdicts, all reasons and values against datatrove's GopherQualityFilter with the same words."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from datatrove.data import Document
from datatrove.pipeline.filters import gopher_quality_filter as reference
from datatrove.pipeline.filters.base_filter import get_filter_result

from corpusmill.filters.gopher import GopherQuality
from corpusmill.filters.rules import StepRule, decide

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


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_every_reason_of_every_document(texts: list[str], find_words: Callable, measure_step: Callable, monkeypatch) -> None:
    monkeypatch.setattr(reference, "split_into_words", lambda text, language: find_words(text))
    filters = {name: reference.GopherQualityFilter(**{**OFF, **options}) for name, options in ALONE.items()}
    stock = reference.GopherQualityFilter()
    columns, _ = measure_step("gopher_quality", {}, texts)
    rules = [StepRule("gopher_quality", rule) for rule in GopherQuality.PRESETS["datatrove-0.10"]]
    failed = decide(rules, {name: pa.array(values) for name, values in columns.items()}, len(texts)).to_pylist()
    seen = set()
    for text, ours in zip(texts, failed):
        theirs = []
        for name, rule in filters.items():
            try:
                _, reason = get_filter_result(rule.filter(Document(text=text, id="")))
            except ZeroDivisionError:  # a ratio that is not defined: ours is NaN and does not decide
                continue
            if name == "gopher_too_many_ellipsis" and reason == "gopher_too_many_hashes":
                words = find_words(text)
                reason = name if (text.count("...") + text.count("…")) / len(words) > 0.1 else None
            if reason == name:
                theirs.append(name)
        assert ours == theirs, text[:200]
        assert get_filter_result(stock.filter(Document(text=text, id="")))[1] == (ours[0] if ours else None)
        seen.update(ours)
    assert seen >= set(ALONE) - {"gopher_long_doc"}


def test_values(measure_step: Callable) -> None:
    text = "The cat sat on the mat.\n- of #one thing...\n• ok…"
    columns, _ = measure_step("gopher_quality", {}, [text, ""])
    words = ["The", "cat", "sat", "on", "the", "mat", ".", "-", "of", "#", "one", "thing", ".", ".", ".", "•", "ok", "…"]
    assert columns["gopher_all_words"] == [len(words), 0]
    # "#" is in datatrove's set of punctuation, the bullet is not
    nonsymbol = [w for w in words if w not in ".-#…"]
    assert columns["gopher_words"] == [len(nonsymbol), 0]
    assert columns["gopher_mean_word_length"][0] == sum(map(len, nonsymbol)) / len(nonsymbol)
    assert columns["gopher_hash_ratio"][0] == 1 / 18 and columns["gopher_ellipsis_ratio"][0] == 2 / 18
    assert columns["gopher_bullet_line_ratio"][0] == 2 / 3 and columns["gopher_ellipsis_line_ratio"][0] == 2 / 3
    assert columns["gopher_stop_words"] == [2, 0]  # "the" and "of"; "The" is another word
    assert np.isnan(columns["gopher_mean_word_length"][1]) and np.isnan(columns["gopher_alpha_word_ratio"][1])


def test_stop_words_of_another_language(measure_step: Callable) -> None:
    columns, _ = measure_step("gopher_quality", {"stop_words": ["der", "die", "und", "größer"]}, ["der und und größer", "Der die the of"])
    assert columns["gopher_stop_words"] == [3, 1]


def test_the_paper_counts_every_word() -> None:
    by_name = {rule.name: rule for rule in GopherQuality.PRESETS["gopher-paper"]}
    assert by_name["gopher_short_doc"].column == "gopher_all_words"
    assert by_name["gopher_below_avg_threshold"].column == "gopher_mean_all_word_length"
