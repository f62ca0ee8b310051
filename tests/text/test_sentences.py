"""Compares sentences with datatrove's, which are spaCy's."""

import json
from pathlib import Path

import pyarrow as pa
from datatrove.utils.text import split_into_sentences
from hypothesis import given
from hypothesis import strategies as st
from spacy.pipeline import Sentencizer

from corpusmill.text.buffers import text_buffers
from corpusmill.text.spacy_tokens import count_spacy_sentences

PARTS = [
    ". ", ".", "! ", "?", "...", "…", "。", ".)", '." ', "  ", " ", "\n", " \n", "\u00a0", "a", "B", "Mr. ", "U.S. ", "Hello", "5. ", "$",
]  # fmt: skip
TEXT = st.lists(
    st.one_of(st.sampled_from(PARTS), st.sampled_from(Sentencizer.default_punct_chars), st.characters(exclude_categories=["Cs"]))
)


def sentences(lines: list[str]) -> list[int]:
    data, offsets = text_buffers(pa.array(lines, pa.large_string()))
    return count_spacy_sentences(data, offsets[:-1], offsets[1:]).tolist()


@given(st.lists(TEXT.map("".join), max_size=6))
def test_any_line(lines: list[str]) -> None:
    assert sentences(lines) == [len(split_into_sentences(line)) for line in lines]


def test_real_lines(shared_data: Path) -> None:
    texts = [json.loads(line)["text"] for line in (shared_data / "text/c4_demo.jsonl").open()][:30]
    texts += [path.read_text()[:600] for path in sorted((shared_data / "lid").glob("*.txt"))]
    lines = [line for text in texts for line in text.splitlines()]
    assert len(lines) > 300
    assert sentences(lines) == [len(split_into_sentences(line)) for line in lines]


def test_known_lines() -> None:
    lines = ["", " ", "One. Two! Three?", "He said so.) Then he left.", "No end", "End.  ", "Yes. \n", "...", "a ... b", "What?! No."]
    assert sentences(lines) == [1, 1, 3, 2, 1, 2, 2, 1, 1, 2]
