"""Tests a token in its text, for tokens that cut characters anywhere."""

from hypothesis import given
from hypothesis import strategies as st

from corpusmill.report.tokens.trace import around


def test_a_part_of_a_character_is_shown_as_the_character():
    text = "naïve 東京".encode()
    found = around(text, 8, 1)
    assert (found.before, found.characters, found.after, found.partial) == ("naïve ", "東", "京", True)
    found = around(text, 9, 5)
    assert (found.characters, found.raw, found.partial) == ("東京", text[9:14], True)
    found = around(text, 2, 2)
    assert (found.before, found.characters, found.partial) == ("na", "ï", False)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.data())
def test_any_bytes_of_any_text(text, data):
    encoded = text.encode()
    first = data.draw(st.integers(0, len(encoded) - 1))
    size = data.draw(st.integers(1, len(encoded) - first))
    context = data.draw(st.integers(0, 20))
    found = around(encoded, first, size, context)
    assert found.raw == encoded[first : first + size] and found.raw in found.characters.encode()
    assert found.before + found.characters + found.after in text
    assert len(found.before.encode()) <= context and len(found.after.encode()) <= context
    assert len(found.characters.encode()) <= size + 6
    assert found.partial == (found.characters.encode() != found.raw)
    whole = around(encoded, first, size, len(encoded))
    assert whole.before + whole.characters + whole.after == text


@given(st.binary(min_size=1, max_size=20), st.data())
def test_bytes_that_are_no_text_are_shown_too(raw, data):
    first = data.draw(st.integers(0, len(raw) - 1))
    found = around(raw, first, 1, 5)
    assert found.raw == raw[first : first + 1] and isinstance(found.before + found.characters + found.after, str)
