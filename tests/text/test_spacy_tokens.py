"""Compares tokens with datatrove's own spaCy tokenizer: real texts, and mixtures of everything that has a rule."""

import json
import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import spacy
import spacy_data
from datatrove.utils.word_tokenizers import SpaCyTokenizer
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.text.buffers import text_buffers
from corpusmill.text.english_tokenizer import english_tokenizer
from corpusmill.text.spacy_rules import RUN, SPACE, spacy_rules, units
from corpusmill.text.spacy_tokens import MOST_QUESTIONS, KnownChunks, mark_tokens

REFERENCE = SpaCyTokenizer("en")
SPACY = spacy.blank("en").tokenizer
EXCEPTIONS = sorted(english_tokenizer().exceptions)  # emoticons, abbreviations, contractions
MARKS = [*"()[]{}<>:;,.!?'\"-–—_/\\|=+*&^%$#@~`§°€£²…’“”‘«»。，¿", "...", "--", "'s", "’S", "US$", "://", "((", ":)"]
WORDS = ["a", "s", "m", "km", "x", "D", "hello", "Hello", "HELLO", "U", "com", "www", "5", "10", "2019", "5km", "20th", "x2", "IS_LOWER"]
WORDS += ["漢字", "привет", "Привет", "ü", "É", "שלום", "ก", "é\u0301", "١", "µg", "𝒳", "😀", "ª", "\0", "\u200d", "\xad"]
URLS = ["http://a.bc/d?e=f", "a@b.com", "x.com.", "1.2.3.4", "10.0.0.1", "lower.Upper", "a.b:80/c", "127.0.0.1"]
SPACES = [" ", " ", " ", "  ", "\n", "\t ", "\u00a0", "\u3000"]
PARTS = st.one_of(
    *map(st.sampled_from, (MARKS, WORDS, SPACES, EXCEPTIONS, URLS)),
    st.characters(exclude_categories=["Cs"]),
    st.sampled_from([" ", "-", "."]),
)
TEXT = st.lists(PARTS, max_size=40).map("".join)


def tokens(texts: list[str]) -> list[list[str]]:
    data, offsets = text_buffers(pa.array(texts, pa.large_string()))
    marks = mark_tokens(data, offsets[:-1], offsets[1:])
    found = []
    for text, start, end in zip(texts, offsets[:-1], offsets[1:]):
        cuts = [*np.flatnonzero(marks[start:end]).tolist(), end - start]
        found.append([text.encode()[a:b].decode().strip() for a, b in pairwise(cuts)])
    return found


@given(st.lists(TEXT, max_size=5))
def test_any_text(texts: list[str]) -> None:
    assert tokens(texts) == [REFERENCE.word_tokenize(text) for text in texts]


HOSTS = ["a", "A", "com", "Com", "COM", "www", "x1", "1", "22", "55555", "666666", "7777777", "b2c", "s", "US", "io", "html", "the", "café"]
HOST_MARKS = [".", ".", ".", "/", ":", "@", "-", "_", "?", "#", "=", "//", "://", "+", "(", ")", "'", '"', ",", "$", "*", "..", "…", " "]
HOST_LIKE = st.lists(st.tuples(st.sampled_from(HOSTS), st.sampled_from(HOST_MARKS)), max_size=80).map(lambda parts: "".join(sum(parts, ())))


@given(HOST_LIKE)
def test_what_looks_like_hosts(text: str) -> None:
    assert tokens([text]) == [REFERENCE.word_tokenize(text)]


def test_marks_around_words() -> None:
    """Tests a sample of all pairs of marks around words of each kind (all pairs were equal, too)."""
    marks = [*MARKS, ""]
    words = ["hello", "Hello", "HELLO", "x", "X", "2019", "x2", "5km", "漢字", "ก", "Dr", "can't"]
    texts = [f"{a}{b}{word}{c}{d}" for a in marks for b in ("", "(", "'") for word in words for c in marks for d in ("", ".", ")", "'s")]
    text = "\n".join(random.Random(0).sample(texts, 2_000))
    assert tokens([text]) == [REFERENCE.word_tokenize(text)]


def test_each_character_between_marks_and_letters() -> None:
    """Tests characters of all of Unicode."""
    kinds = spacy_rules().kinds
    points = [*range(0x100), *range(0x100, 0x3100, 17), *range(0x3100, 0xD800, 397), *range(0xE000, 0x110000, 3989)]
    characters = [chr(point) for point in points if not kinds[point] & SPACE]
    assert sum(bool(kinds[ord(c)] & RUN) for c in characters) > 400
    text = "\n".join(f"{c} x{c} {c}x ({c}) {c}. x.{c} {c}-y {c},{c} 9{c}. X{c}. {c}:x" for c in characters)
    assert tokens([text]) == [REFERENCE.word_tokenize(text)]


def test_exceptions_that_go_beyond_a_chunk() -> None:
    texts = ["foo:(", "foo:( (bar", "foo:( x", "foo:( \n(", "(foo:) )", ") foo:)", "a: )x:)", "x-a. .", "x:( ( (", "x:(  ("]
    assert tokens(texts) == [REFERENCE.word_tokenize(text) for text in texts]
    assert tokens(["foo:( (bar", "foo:( x"]) == [["foo", ":", "(", "(", "bar"], ["foo", ":(", "x"]]


def test_real_documents(shared_data: Path) -> None:
    texts = [json.loads(line)["text"] for line in (shared_data / "text/c4_demo.jsonl").open()][:60]
    for path in sorted((shared_data / "lid").glob("*.txt")):
        texts.append("\n".join(path.read_text().splitlines()[:4]))
    assert tokens(texts) == [REFERENCE.word_tokenize(text) for text in texts]


def test_a_small_table_gives_the_same(shared_data: Path) -> None:
    """The small table evicts entries all the time, which must change nothing."""
    texts = [json.loads(line)["text"] for line in (shared_data / "text/c4_demo.jsonl").open()][:20]
    data, offsets = text_buffers(pa.array(texts, pa.large_string()))
    expected = mark_tokens(data, offsets[:-1], offsets[1:])
    small = KnownChunks(most=2 * MOST_QUESTIONS + 100)
    for start in range(0, 20, 5):
        some = slice(start, start + 5)
        marks = np.zeros(len(data), np.uint8)
        small.mark(data, offsets[:-1][some], offsets[1:][some], marks)
        assert np.array_equal(marks[offsets[start] : offsets[start + 5]], expected[offsets[start] : offsets[start + 5]])
    large = KnownChunks()
    large.mark(data, offsets[:-1], offsets[1:], np.zeros(len(data), np.uint8))
    assert small.asked > large.asked


def test_a_word_on_which_spacy_fails_the_second_time() -> None:
    assert tokens(["IS_ALPHA"]) == [["IS_ALPHA"]]
    assert tokens(["(IS_ALPHA, IS_ALPHA-b. x"]) == [["(", "IS_ALPHA", ",", "IS_ALPHA", "-", "b.", "x"]]


def test_chunks_that_differ_in_a_nul() -> None:
    assert tokens(["1a# \x001a$ \x00\x001a# a.bc \0a.bc"]) == [REFERENCE.word_tokenize("1a# \x001a$ \x00\x001a# a.bc \0a.bc")]


def test_long_chunks() -> None:
    """Where spaCy's time would grow with the square of the length, units are words; one run of letters is one word at any length."""
    long = ["a" * 300_000, "(" * 30_000, "ab," * 10_000, "漢字，" * 600, "=" * 400, "a:" * 40_000 + "@b.co"]
    found = tokens(long)
    assert [len(words) for words in found[:3]] == [1, 30_000, 20_000]
    assert found[3:5] == [REFERENCE.word_tokenize(text) for text in long[3:5]]
    assert found[5] == list(units(long[5], spacy_rules().kinds))


@pytest.mark.long
def test_the_shipped_tables_are_those_of_the_installed_spacy() -> None:
    assert json.loads(spacy_data.RULES.read_text("utf-8")) == spacy_data.english_rules()
    assert json.loads(spacy_data.STOP_WORDS.read_text("utf-8")) == spacy_data.stop_words()


@given(TEXT)
def test_tokens_with_white_space_begin_where_spacys_do(text: str) -> None:
    assert english_tokenizer().begins(text) == [token.idx for token in SPACY(text)]
