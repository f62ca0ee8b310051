"""The kernel against the regular expression that defines the rule."""

import re

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.pipeline.text.buffers import text_buffers
from corpusmill.pipeline.text.classes import character_classes
from corpusmill.pipeline.text.sentence_marks import count_sentences

SENTENCE_END = re.compile(r"[.!?…]+[\"'”’»)\]]*(?=\s|$)|[。！？]+[」』”’）]*")
TEXTS = st.text(st.sampled_from(".!?…。！？\"'”’»)]」』）a é\u3000\n\x85") | st.characters(exclude_categories=["Cs"]))


def slow(text: str) -> int:
    total = 0
    for line in text.split("\n"):
        ends = list(SENTENCE_END.finditer(line))
        total += len(ends) + bool(line[ends[-1].end() if ends else 0 :].strip())
    return total


@given(st.lists(TEXTS, max_size=4))
@settings(deadline=None, max_examples=500)
def test_any_text(texts: list[str]) -> None:
    data, offsets = text_buffers(pa.array(texts, pa.large_string()))
    counts = np.zeros(len(texts), np.int64)
    count_sentences(data, offsets, character_classes(), counts)
    assert counts.tolist() == [slow(text) for text in texts]
