"""Words of `str.split` against Python's own."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.pipeline.text.utf8 import character_classes
from corpusmill.pipeline.text.words import count_split_words, has_longer_word

TEXTS = st.text(st.sampled_from("ab é漢😀 \u3000\x1f\x85\n\0") | st.characters(exclude_categories=["Cs"]))


@given(TEXTS, st.integers(0, 5))
@settings(deadline=None)
def test_any_text(text: str, limit: int) -> None:
    data = np.frombuffer(b"x" + text.encode() + b" x", np.uint8)
    words = text.split()
    found = count_split_words(data, 1, len(data) - 2, character_classes(), limit)
    assert found == (min(len(words), limit) if limit else len(words))
    assert has_longer_word(data, 1, len(data) - 2, character_classes(), limit) == any(len(word) > limit for word in words)
