"""Compares the forms with a few lines of Python: random Unicode, every character, and the tokens that fastText reads from a line."""

import re
import sys
import unicodedata
from pathlib import Path

import pyarrow as pa
import pytest
from fasttext import train_supervised
from hypothesis import example, given
from hypothesis import strategies as st

from corpusmill.filters.classifier.forms import FORMS, write_form

MARKS = "".join(character for character in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(character)[0] == "M")
WORD = rf"[\w{re.escape(MARKS)}]"
TOKEN = re.compile(rf"\s+|https?://\S+|@{WORD}+|{WORD}+|\S")
FASTTEXT_SPACE = re.compile("[ \t\n\r\f\v\0]+")


def reference(form: str, text: str) -> str:
    text = text.replace("\0", " ").strip()
    if form != "plain":
        text = text.lower()
    tokens = FASTTEXT_SPACE.split(" ".join(text.splitlines()))
    if form == "words":
        tokens = [written(token) for token in TOKEN.findall(text)]
    return " ".join(token for token in tokens if token not in ("", "</s>") and not token.startswith("__label__"))


def written(token: str) -> str:
    if token.isspace():
        return "<nl>" if len(f"a{token}b".splitlines()) > 1 else ""
    if re.match(r"https?://\S", token):
        return "<url>"
    return "<user>" if len(token) > 1 and token[0] == "@" else token


def write(form, texts: list[str]) -> list[str]:
    found = write_form(form, pa.array(texts, pa.large_string()))
    found.validate(full=True)
    assert found.type == pa.large_string()
    return found.to_pylist()


PIECES = [
    "http://", "https://a.b/c?d=e,", "HTTPS://X", "http:/", "hTtp", "http", "s", "@", "@a", "@A_1", "@é", "@@", "a@b.c", "__label__",
    "__LABEL__x", "_", "__label__yes", "</s>", "</S>", "</s", "<nl>", "Σ", "ΑΣ", "ΑΣ.Σ", "Σ'", "\u00ad", "İ", "K", "\u212a", "Å", "ẞ",
    "Ⱥ", "e\u0301", "हिन्दी", "漢字", "don't", "3.14", "\r\n", "\n", "\r", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x1f", "\x85",
    "\xa0", "\u2028", "\u2029", "\u3000", "\0", " ", "\t", "😀", "\u200b", "\u200d", "\ufeff", "ª", "²", "½", "Ⅷ", "Ⓐ", "\x01", "\x7f",
]  # fmt: skip
pieces = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=6)), max_size=12).map("".join)


@given(st.lists(pieces, max_size=4))
@example(["", " ", "\n", "\0", "@a@b@c@d", "\na\nb\n"])
@example(["__label__yes good", "a </s> b", "\u2028__label__no", "</s>\xa0", "__label__\n__label__"])
def test_as_a_few_lines_of_python(texts: list[str]) -> None:
    for form in FORMS:
        assert write(form, texts) == [reference(form, text) for text in texts]


@pytest.mark.long
def test_every_kind_of_character() -> None:
    """Tests each character alone, in a word, and on both sides of a sigma, where it decides whether the sigma is a final one. Of letters
    without case, and of what is no character, every 61st is tested.
    """
    points = [point for point in range(sys.maxunicode + 1) if not 0xD800 <= point < 0xE000]
    characters = [chr(point) for point in points if point % 61 == 0 or unicodedata.category(chr(point)) not in ("Lo", "Cn", "Co")]
    assert 20_000 < len(characters) < 50_000
    for pattern in ("{0}", "a{0}b A{0}Σ{0} Σ{0}A AΣ{0}a @{0} http://{0}"):
        texts = [pattern.format(character) for character in characters]
        for form in FORMS:
            assert write(form, texts) == [reference(form, text) for text in texts]


def test_fasttext_learns_no_label_from_a_text(tmp_path: Path) -> None:
    """No text becomes a label or ends a line: the model has only the intended labels and words."""
    evil = [f"{before}{token}{after}word{place}" for place, (before, token, after) in enumerate(
        (before, token, after)
        for token in ("__label__evil", "</s>", "</s> __label__evil")
        for before in ("", "a ", "a\n", "a\r", "a\u2028", "a\x85", "a\0", "a\x1c")
        for after in (" ", "\n", "\0", "\u2028")
    )]  # fmt: skip
    for form in FORMS:
        path = tmp_path / f"{form}.txt"
        path.write_text("".join(f"__label__{place % 2} {line}\n" for place, line in enumerate(write(form, evil))), newline="\n")
        model = train_supervised(str(path), dim=2, epoch=1, minCount=1, thread=1, verbose=0)
        assert sorted(model.get_labels()) == ["__label__0", "__label__1"]
        assert {f"word{place}" for place in range(len(evil))} <= set(model.get_words())
        words, counts = model.get_words(include_freq=True)
        assert counts[words.index("</s>")] == len(evil)
