"""Compares the walk over words with Python's `re`, `unicodedata` and `regex`."""

import re
import unicodedata
from itertools import pairwise

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.dedup.contamination.words import INVISIBLE, character_spans, without, words_of
from corpusmill.text.words import UNSPACED

SINGLE = regex.compile(f"[{UNSPACED}]", regex.V1)


def plain(character: str) -> str:
    """Returns the case-folded word without accents, if it keeps letters or digits; the capital of "ı" is that of "i"."""
    form = character
    for change in (bare, str.casefold, bare):
        form = change(form)
    form = form.replace("ı", "i")
    return form if form.isalnum() and (len(form) == 1 or not SINGLE.match(character)) else character


def bare(text: str) -> str:
    kept = "".join(c for c in unicodedata.normalize("NFKD", text) if unicodedata.category(c)[0] != "M")
    return unicodedata.normalize("NFC", kept)


def slow_words(text: str) -> list[tuple[str, str]]:
    """Returns `(plain form, original form)` of each word."""
    found: list[tuple[str, str]] = []
    open_ = False
    for character in text:
        if unicodedata.category(character)[0] == "M" or character in INVISIBLE:
            continue
        if not character.isalnum():
            open_ = False
        elif SINGLE.match(character):
            found.append((plain(character), character))
            open_ = False
        elif open_:
            form, stands = found[-1]
            found[-1] = (form + plain(character), stands + character)
        else:
            found.append((plain(character), character))
            open_ = True
    return found


def hashes(text: str) -> list[int]:
    return words_of(text.encode())[0].tolist()  # type: ignore[no-any-return]


ALPHABET = st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from("aAéÉ bB'’\n.,-_09Å\u0301\u00ad漢字กาはガıİßﬁ½"))


@given(st.text(ALPHABET), st.text(ALPHABET))
def test_texts_have_equal_words_where_their_plain_forms_are_equal(a: str, b: str) -> None:
    assert len(hashes(a)) == len(slow_words(a))
    same = [form for form, _ in slow_words(a)] == [form for form, _ in slow_words(b)]
    assert (hashes(a) == hashes(b)) == same
    joined = dict(zip(hashes(a + " " + b), slow_words(a + " " + b), strict=False))
    assert len({form for form, _ in joined.values()}) == len(joined)


@given(st.text(ALPHABET))
def test_spans_hold_their_words(text: str) -> None:
    content = text.encode()
    _, spans = words_of(content)
    pieces = [content[a:b].decode() for a, b in spans]
    visible = ["".join(c for c in p if unicodedata.category(c)[0] != "M" and c not in INVISIBLE) for p in pieces]
    assert visible == [stands for _, stands in slow_words(text)]
    assert all(a[1] <= b[0] for a, b in pairwise(spans))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Janet’s ducks, they LAY 16 eggs!", "janet's  ducks\nthey—lay “16” eggs"),
        ("don't", "dont"),
        ("Café déjà vu", "CAFE\u0301 de\u0301ja\u0300 vu"),
        ("ＡＢＣ１２３", "abc123"),
        ("৪২ ในปี๒๕๖๓ ۱۹۸۴", "42 ในปี2563 1984"),
        ("東京都に住む", "東 京 都 に 住 む"),
        ("soft\u00adhyphen", "softhyphen"),
        ("Die Straße, ein Fluß", "DIE STRASSE EIN FLUSS"),
        ("ΟΔΟΣ ΜΑΣ", "οδός μας"),
        ("ışık", "IŞIK"),
    ],
)
def test_what_does_not_matter(one: str, other: str) -> None:
    assert hashes(one) == hashes(other)


def test_what_matters() -> None:
    assert hashes("a b") != hashes("b a") != hashes("ab")
    assert hashes("3.5") != hashes("35")


def test_marks_are_words_in_the_second_reading() -> None:
    one, spans = words_of(b"f([x]) -> \xe2\x88\x9a2;", marks=True)
    other, _ = words_of("F ( [ x ] ) - > √ 2 ;".encode(), marks=True)
    assert one.tolist() == other.tolist() and len(set(one.tolist())) == 11
    assert [b"f([x]) -> \xe2\x88\x9a2;"[a:b].decode() for a, b in spans] == ["f", "(", "[", "x", "]", ")", "-", ">", "√", "2", ";"]


TEXT = st.text(st.sampled_from("ab \n\t.,é漢'"), max_size=60)


def cut(text: str, passage: str) -> str:
    start = text.index(passage)
    return without(text, [(start, start + len(passage))])


@pytest.mark.parametrize(
    ("text", "passage", "left"),
    [
        ("before PASSAGE behind", "PASSAGE", "before behind"),
        ("before\nPASSAGE\nbehind", "PASSAGE", "before\nbehind"),
        ("before\n\nPASSAGE\n\nbehind", "PASSAGE", "before\n\n\nbehind"),
        ("before PAS\nSAGE behind", "PAS\nSAGE", "before\nbehind"),
        ("PASSAGE behind", "PASSAGE", "behind"),
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


@given(TEXT, st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)).map(lambda p: (p[0], p[0] + p[1])), min_size=1, max_size=4))
def test_only_white_space_changes_beside_the_cut(text: str, spans: list[tuple[int, int]]) -> None:
    spans = [(min(a, len(text)), min(b, len(text))) for a, b in spans]
    kept = "".join(c for i, c in enumerate(text) if not any(a <= i < b for a, b in spans))
    assert re.sub(r"\s", "", without(text, spans)) == re.sub(r"\s", "", kept)
