"""Verdicts against datatrove's C4ParagraphFilter, values against Python."""

from collections.abc import Callable

from datatrove.data import Document
from datatrove.pipeline.filters.c4_filters import C4ParagraphFilter
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.filters.c4 import MC4

EXTRA = ["a" * 200 + "\n" + "é" * 200 + "\n" + " " * 200, "a" * 200 + "\n" + "é" * 199 + "\n" + "b" * 400, ("x" * 200 + "\r") * 3]


def test_values_and_verdicts(texts: list[str], measure_step: Callable) -> None:
    texts = texts + EXTRA
    counts = measure_step("mc4_paragraphs", {}, texts)[0]["mc4_paragraphs"]
    verdicts = [bool(MC4[0].threshold <= count) for count in counts]
    assert counts == [sum(len(line) >= 200 for line in text.split("\n")) for text in texts]
    assert verdicts == [C4ParagraphFilter().filter(Document(text=text, id="")) is True for text in texts]
    assert len(set(verdicts)) == 2


@given(st.lists(st.text(st.sampled_from("a é漢😀\n\r")), max_size=5), st.integers(1, 6))
@settings(deadline=None)
def test_any_text(measure_step: Callable, texts: list[str], length: int) -> None:
    counts = measure_step("mc4_paragraphs", {"min_paragraph_length": length}, texts)[0]["mc4_paragraphs"]
    assert counts == [sum(len(line) >= length for line in text.split("\n")) for text in texts]
