import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.pipeline.text.hashing import table_size
from corpusmill.pipeline.text.lines import line_duplicates, line_end, only_newlines, paragraph_duplicates
from corpusmill.pipeline.text.utf8 import character_classes

BREAKS = "\n\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\u2028\u2029\u3000 "
TEXT = st.text(st.one_of(st.sampled_from("aab" + BREAKS), st.sampled_from("\n\n\n-é漢"), st.characters(exclude_categories=["Cs"])))


def buffer(text: str) -> np.ndarray:
    return np.frombuffer(b"\n" + text.encode() + b"\n", np.uint8)


def duplicates(items: list[str]) -> tuple[int, int, int]:
    repeated = [item for place, item in enumerate(items) if item in items[:place]]
    return len(items), len(repeated), len("".join(repeated))


@given(TEXT)
def test_lines_as_python_splits_them(text: str) -> None:
    data = buffer(text)
    newlines = only_newlines(data[1:-1])
    assert newlines == (text.splitlines() == text.removesuffix("\n").split("\n") or not text)
    lines, at, end = [], 1, len(data) - 1
    while at < end:
        stop, after = line_end(data, at, end, newlines)
        lines.append(data[at:stop].tobytes().decode())
        at = after
    assert lines == text.splitlines()


@given(TEXT)
def test_repeated_lines_and_paragraphs(text: str) -> None:
    data, table = buffer(text), np.empty(table_size(len(text.encode()) + 2), np.uint64)
    assert line_duplicates(data, 1, len(data) - 1, table) == duplicates(re.split("\n+", text))
    expected = duplicates(re.split("\n{2,}", text.strip()))
    assert paragraph_duplicates(data, 1, len(data) - 1, character_classes(), table) == expected


@pytest.mark.parametrize("text", ["", "\n", "\n\n\n\n", "a", "\na\n", "a\n\na", "\u3000\n\na\u3000\n\n\u3000"])
def test_edges(text: str) -> None:
    data, table = buffer(text), np.empty(64, np.uint64)
    assert line_duplicates(data, 1, len(data) - 1, table) == duplicates(re.split("\n+", text))
    expected = duplicates(re.split("\n{2,}", text.strip()))
    assert paragraph_duplicates(data, 1, len(data) - 1, character_classes(), table) == expected
