"""Verdicts and all reasons against datatrove's GopherRepetitionFilter with the same words."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
from datatrove.data import Document
from datatrove.pipeline.filters import gopher_repetition_filter as reference
from datatrove.pipeline.filters.base_filter import get_filter_result

from corpusmill.filters.gopher import GopherRepetition
from corpusmill.filters.rules import StepRule, decide

OFF = dict.fromkeys(["dup_line_frac", "dup_para_frac", "dup_line_char_frac", "dup_para_char_frac"]) | {"top_n_grams": (), "dup_n_grams": ()}
ALONE = {
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


def test_every_reason_of_every_document(texts: list[str], find_words: Callable, measure_step: Callable, monkeypatch) -> None:
    words = {text: find_words(text) for text in texts}
    monkeypatch.setattr(reference, "split_into_words", lambda text, language: words[text])
    filters = {name: reference.GopherRepetitionFilter(**{**OFF, **options}) for name, options in ALONE.items()}
    stock = reference.GopherRepetitionFilter()
    columns, _ = measure_step("gopher_repetition", {}, texts)
    rules = [StepRule("gopher_repetition", rule) for rule in GopherRepetition.PRESETS["datatrove-0.10"]]
    failed = decide(rules, {name: pa.array(values) for name, values in columns.items()}, len(texts)).to_pylist()
    seen = set()
    for text, ours in zip(texts, failed):
        document = Document(text=text, id="")
        theirs = [] if text else ["repetition_empty"]
        theirs += [name for name, rule in filters.items() if get_filter_result(rule.filter(document))[1] == name]
        assert ours == theirs, text[:200]
        first = get_filter_result(stock.filter(document))[1]
        assert first == (ours[0].removeprefix("repetition_") if ours else None)
        seen.update(ours)
    assert seen == {"repetition_empty", *ALONE}


def test_values(measure_step: Callable) -> None:
    text = "one two\n\none two\n\nthree"
    columns, _ = measure_step("gopher_repetition", {}, [text, ""])
    assert columns["dup_para_frac"][0] == columns["dup_line_frac"][0] == 1 / 3
    assert columns["dup_para_char_frac"][0] == columns["dup_line_char_frac"][0] == 7 / len(text)
    assert columns["top_2_gram_char_frac"][0] == 14 / len(text)
    assert columns["repetition_characters"] == [len(text), 0]
    assert columns["dup_para_frac"][1] == 0 and np.isnan(columns["top_2_gram_char_frac"][1])
