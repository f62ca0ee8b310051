"""Verdicts and all reasons against datatrove's FineWebQualityFilter with the same words."""

import math
from collections.abc import Callable

import numpy as np
import pyarrow as pa
from datatrove.data import Document
from datatrove.pipeline.filters import fineweb_quality_filter as reference
from datatrove.pipeline.filters.base_filter import get_filter_result

from corpusmill.filters.fineweb_quality import FinewebQuality
from corpusmill.filters.rules import StepRule, decide

OFF = {"line_punct_thr": -1, "short_line_thr": 2, "char_duplicates_ratio": math.inf, "new_line_ratio": math.inf}
ALONE = {
    "line_punct_ratio": {"line_punct_thr": 0.12},
    "short_line_ratio": {"short_line_thr": 0.67},
    "char_dup_ratio": {"char_duplicates_ratio": 0.01},
    "list_ratio": {"new_line_ratio": 0.3},
}


def test_every_reason_of_every_document(texts: list[str], find_words: Callable, measure_step: Callable, monkeypatch) -> None:
    monkeypatch.setattr(reference, "split_into_words", lambda text, language: find_words(text))
    filters = {name: reference.FineWebQualityFilter(**{**OFF, **options}) for name, options in ALONE.items()}
    stock = reference.FineWebQualityFilter()
    columns, _ = measure_step("fineweb_quality", {}, texts)
    rules = [StepRule("fineweb_quality", rule) for rule in FinewebQuality.PRESETS["fineweb"]]
    failed = decide(rules, {name: pa.array(values) for name, values in columns.items()}, len(texts)).to_pylist()
    seen = set()
    for text, ours in zip(texts, failed):
        document = Document(text=text, id="")
        first = get_filter_result(stock.filter(document))[1]
        if first == "empty":
            assert ours == ["fineweb_empty"]
        else:
            assert ours == [name for name, rule in filters.items() if get_filter_result(rule.filter(document))[1] == name], text[:200]
            assert first == (ours[0] if ours else None)
        seen.update(ours)
    assert seen == {"fineweb_empty", *ALONE}


def test_values(measure_step: Callable) -> None:
    text = "A first line that ends well, and is rather long.\n \nshort\nshort\n"
    columns, _ = measure_step("fineweb_quality", {}, [text, " \n"])
    assert columns["fineweb_lines"] == [3, 0]
    assert columns["line_punct_ratio"][0] == 1 / 3 and columns["short_line_ratio"][0] == 2 / 3
    assert columns["char_dup_ratio"][0] == 5 / len(text.replace("\n", ""))
    assert columns["list_ratio"][0] == 4 / 14
    assert np.isnan(columns["line_punct_ratio"][1]) and columns["char_dup_ratio"][1] == 0
    longer, _ = measure_step("fineweb_quality", {"short_line_length": 48}, [text])
    assert longer["short_line_ratio"] == [1.0]
