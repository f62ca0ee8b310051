"""Compares the pieces of a text with the regular expressions of `tokenizers`."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers

from corpusmill.tokenize.patterns import CLASSES, NUMBERS, PATTERNS, SPELLINGS, PieceRule, piece_classes, rule_of
from corpusmill.tokenize.pieces import CL100K, GPT2, O200K, piece_ends

LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
#: Each rule's expression, with numbers whole and cut.
EXPRESSIONS = {
    "gpt2": PATTERNS["gpt2"],
    "gpt2, 1 digit": PATTERNS["gpt2"].replace(r" ?\p{N}+", r" ?\p{N}"),
    "cl100k": PATTERNS["cl100k"],
    "cl100k, 1 digit (Qwen)": PATTERNS["cl100k"].replace(r"\p{N}{1,3}", r"\p{N}"),
    "cl100k, 2 digits": PATTERNS["cl100k"].replace(r"\p{N}{1,3}", r"\p{N}{1,2}"),
    "o200k": PATTERNS["o200k"],
}
#: Few characters of each kind, so that runs and their borders are common.
LETTERS = "aZsStTmMdDlLrRvVeEñÉßıſʰ中ªǅ"
OTHERS = "'' \t\n\r  /./!1234̀ͅा²⅔٣\u00a0\u2028\u3000\u0085\u200d😀\u0378\U000323af"
ALPHABET = st.sampled_from([*LETTERS, *OTHERS, "'s", "'LL", "'Ve", "'re", "'ſ", "\r\n"])
TEXTS = st.lists(ALPHABET, max_size=24).map("".join) | st.text(max_size=24)
#: Several blocks of 64 bytes, with words of usual length.
WORDS = st.sampled_from([" the", " it's", "word", "  ", ". ", ",", " 12", "longer", " дом", "、", "東京", "\n", "\u00a0\u3000", " x'll've"])
LONG_TEXTS = st.lists(ALPHABET | WORDS | WORDS, min_size=20, max_size=120).map("".join)


def by_kernel(expression: str, text: str, before: str = "", behind: str = "") -> list[str]:
    """Returns the pieces from calls that find up to 70 each, with other texts before and after in the buffer."""
    rule = rule_of(expression)
    assert rule is not None
    data = np.frombuffer((before + text + behind).encode(), np.uint8)
    start = at = len(before.encode())
    end, room = at + len(text.encode()), np.empty(70, np.int64)
    ends = list[int]()
    while at < end:
        count = piece_ends(rule.number, rule.digits, piece_classes(), data, at, end, room)
        ends += room[:count].tolist()
        at = ends[-1]
    return [data[start:stop].tobytes().decode() for start, stop in zip([start, *ends], ends)]


def by_tokenizers(expression: str, text: str) -> list[str]:
    return [piece for piece, _ in pre_tokenizers.Split(Regex(expression), "isolated").pre_tokenize_str(text)]


@pytest.mark.parametrize("name", EXPRESSIONS)
@given(
    text=TEXTS | LONG_TEXTS, before=st.sampled_from(["", "a", " ", "'", "\u3000"]),
    behind=st.sampled_from(["", "s", " ", "\u00a0", "中s'" * 30]),
)  # fmt: skip
def test_any_text_is_cut_as_tokenizers_does(name: str, text: str, before: str, behind: str) -> None:
    assert by_kernel(EXPRESSIONS[name], text, before, behind) == by_tokenizers(EXPRESSIONS[name], text)


@pytest.mark.parametrize("expression", CLASSES.values())
def test_what_was_not_probed_has_no_class(expression: str) -> None:
    """Planes that `piece_classes` leaves out contain nothing that any class matches."""
    text = "".join(map(chr, [*range(0x40000, 0xE0000, 11), *range(0xE1000, 0x110000, 11)]))
    assert by_tokenizers(f"{expression}+", text) == [text]


def test_expressions_are_known_by_their_spellings() -> None:
    assert rule_of(PATTERNS["gpt2"]) == PieceRule(GPT2, 0)
    assert rule_of(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+") == PieceRule(GPT2, 0)
    assert rule_of(LLAMA3) == rule_of(PATTERNS["llama3"]) == PieceRule(CL100K, 3)
    assert rule_of(PATTERNS["o200k"]) == PieceRule(O200K, 3)
    assert {rule_of(PATTERNS["o200k"].replace(r"\p{N}{1,3}", part)) for part in NUMBERS} == {PieceRule(O200K, n) for n in range(4)}
    assert rule_of(r"\s+|\S+") is None and rule_of(PATTERNS["gpt2"] + "|x") is None


def test_other_spellings_cut_alike(shared_data: Path) -> None:
    text = (shared_data / "text" / "wiki_demo.txt").read_text("utf-8")[:100_000] + " it's 12345  \n\n x\r\n\t"
    for spellings in SPELLINGS.values():
        cuts = [by_tokenizers(spelling, text) for spelling in spellings]
        assert all(cut == cuts[0] for cut in cuts)
