"""Compares the kernel with the regular expression that defines the rule."""

import re

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.pipeline.text.buffers import text_buffers
from corpusmill.pipeline.text.sentences import count_sentences

SENTENCE_END = re.compile(r"[.!?…]+[\"'”’»)\]]*(?=\s|$)|[。！？]+[」』”’）]*")
TEXTS = st.text(st.sampled_from(".!?…。！？\"'”’»)]」』）a é\u3000\n\x85") | st.characters(exclude_categories=["Cs"]))


def slow(line: str) -> int:
    ends = list(SENTENCE_END.finditer(line))
    return len(ends) + bool(line[ends[-1].end() if ends else 0 :].strip())


@given(st.lists(TEXTS, max_size=4))
def test_any_line(lines: list[str]) -> None:
    data, offsets = text_buffers(pa.array(lines, pa.large_string()))
    assert count_sentences(data, offsets[:-1], offsets[1:]).tolist() == [slow(line) for line in lines]
