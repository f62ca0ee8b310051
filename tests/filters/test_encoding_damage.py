import math
import unicodedata
from collections.abc import Callable

import ftfy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.pipeline.text.damage import mojibake_rate

SPACES = "\t\n\v\f\r\x85"
TEXT = st.text(st.one_of(st.sampled_from("ab é\ufffd\0\x07\x7f\x85\x9f\ue000\uf8ff\ufdd0\uffff\U0001fffe\U000f0000\U0010ffff\n"),
                         st.characters(exclude_categories=["Cs"])))  # fmt: skip


def reference(text: str) -> list[float]:
    if not text:
        return [math.nan] * 4
    noncharacter = [0xFDD0 <= ord(c) <= 0xFDEF or ord(c) & 0xFFFE == 0xFFFE for c in text]
    return [
        text.count("\ufffd") / len(text),
        sum(unicodedata.category(c) == "Cc" and c not in SPACES for c in text) / len(text),
        sum(unicodedata.category(c) == "Co" or odd for c, odd in zip(text, noncharacter)) / len(text),
        mojibake_rate(text),
    ]


def check(measure_step: Callable, texts: list[str]) -> None:
    columns, _ = measure_step("encoding_damage", {}, texts)
    for place, text in enumerate(texts):
        assert [values[place] for values in columns.values()] == pytest.approx(reference(text), abs=0, nan_ok=True), text[:200]


def test_real_documents(texts: list[str], measure_step: Callable) -> None:
    check(measure_step, texts)


@given(st.lists(TEXT, min_size=1, max_size=5))
def test_any_text(measure_step: Callable, texts: list[str]) -> None:
    check(measure_step, texts)


def test_a_text_read_in_a_wrong_encoding(measure_step: Callable) -> None:
    good = "Die Größe der Straße – schön, für jeden über der Brücke."
    bad = good.encode().decode("windows-1252")
    assert ftfy.fix_encoding(bad) == good
    columns, _ = measure_step("encoding_damage", {}, [good, bad])
    assert columns["mojibake_char_ratio"][0] == 0.0 and columns["mojibake_char_ratio"][1] > 0.2
