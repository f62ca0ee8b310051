"""What is left of a text when passages are taken out."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.dedup.contamination.words import character_spans, united, without

TEXT = st.text(st.sampled_from("ab \n\t.,é漢'"), max_size=60)


def cut(text: str, passage: str) -> str:
    start = text.index(passage)
    return without(text, [(start, start + len(passage))])


@pytest.mark.parametrize(
    ("text", "passage", "left"),
    [
        ("before PASSAGE behind", "PASSAGE", "before behind"),
        ("before  PASSAGE\nbehind", "PASSAGE", "before\nbehind"),
        ("before\nPASSAGE\nbehind", "PASSAGE", "before\nbehind"),
        ("before\n\nPASSAGE\n\nbehind", "PASSAGE", "before\n\n\nbehind"),
        ("before PAS\nSAGE behind", "PAS\nSAGE", "before\nbehind"),
        ("PASSAGE behind", "PASSAGE", "behind"),
        ("before PASSAGE", "PASSAGE", "before"),
        ("PASSAGE", "PASSAGE", ""),
        ("    indented = PASSAGE\n    more", "PASSAGE", "    indented =\n    more"),
    ],
)
def test_what_is_on_two_sides_stays_apart(text: str, passage: str, left: str) -> None:
    assert cut(text, passage) == left


def test_marks_around_a_passage_go_with_it() -> None:
    text = 'He asked: "Who (then) was it?" Nobody knew.'
    words = re.findall(r"\w+", text)
    ranges = [(words.index("Who"), words.index("it") + 1)]
    (span,) = character_spans(text, ranges)
    assert text[slice(*span)] == '"Who (then) was it?"'
    assert without(text, [span]) == "He asked: Nobody knew."


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 10)).map(lambda p: (p[0], p[0] + p[1]))))
def test_united_spans_cover_the_same_and_do_not_touch(spans: list[tuple[int, int]]) -> None:
    result = united(spans)
    assert {c for a, b in result for c in range(a, b)} == {c for a, b in spans for c in range(a, b)}
    assert all(a[1] < b[0] for a, b in pairwise(result))


@given(TEXT, st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)).map(lambda p: (p[0], p[0] + p[1])), min_size=1, max_size=4))
def test_only_white_space_changes_beside_the_cut(text: str, spans: list[tuple[int, int]]) -> None:
    spans = [(min(a, len(text)), min(b, len(text))) for a, b in spans]
    kept = "".join(c for i, c in enumerate(text) if not any(a <= i < b for a, b in spans))
    assert re.sub(r"\s", "", without(text, spans)) == re.sub(r"\s", "", kept)
