"""Tests patterns by name, with a rule for digits, or given; and refused ones."""

import pytest
from pydantic import ValidationError

from corpusmill.tokenize.patterns import PATTERNS, probes, regex_of, rule_of
from corpusmill.tokenize.tokenizer_config import TokenizerConfig
from corpusmill.tokenize.words import splitter


def cut(text, regex):
    return [piece for piece, _ in splitter(regex).pre_tokenize_str(text)]


@pytest.mark.parametrize(("name", "digits"), [("gpt2", 1), ("cl100k", 2), ("o200k", 3)])
def test_digits(name, digits):
    """Only the longest run of digits changes; the kernels know the expression."""
    regex = regex_of(name, digits)
    pieces = cut("12345 x6789 ٠١٢٣", regex)
    runs = ["".join(c for c in piece if c.isdigit()) for piece in pieces]
    assert max(map(len, runs)) == digits and "".join(runs) == "123456789٠١٢٣"
    for text in probes():
        if not any(c.isnumeric() for c in text):
            assert cut(text, regex) == cut(text, PATTERNS[name])
    rule = rule_of(regex)
    assert rule is not None and rule.digits == digits
    assert regex_of(name) == PATTERNS[name]


@pytest.mark.parametrize(
    ("regex", "sentence"),
    [
        ("gpt3", "leaves out some of 'a'"),
        (".", r"leaves out some of '\\n'"),
        ("(", "no regular expression for tokenizers"),
        (r"\X|[\s\S]", "no regular expression for tiktoken"),
        (r"(?m:a.)|[\s\S]", "do not cut .* alike"),  # engines differ on the meaning of m
    ],
)
def test_others_are_refused_with_a_sentence(regex, sentence):
    with pytest.raises(ValidationError, match=sentence) as raised:
        TokenizerConfig(pattern=regex)
    (error,) = raised.value.errors()
    assert error["loc"] == ("pattern",) and "\n" not in error["msg"]


@pytest.mark.parametrize(
    ("options", "place", "sentence"),
    [
        ({"pattern": r"[\s\S]", "digits": 2}, "digits", "says itself how long runs of digits may be"),
        ({"special_tokens": ["<|pad|>"]}, "special_tokens", "is one of the four that every tokenizer here has"),
        ({"special_tokens": ["<a b>"]}, "special_tokens", "no spaces"),
        ({"special_tokens": ["END"]}, "special_tokens", r"could be learned as a word; put marks around it, like <\|END\|>"),
        ({"file": "x.json", "pattern": "cl100k", "ties": "bytes"}, "file", "leave out pattern, ties"),
        ({"sample": {"weights": {"en": 1}}}, "sample", "need `by`"),
    ],
)
def test_what_makes_no_tokenizer_is_refused(options, place, sentence):
    with pytest.raises(ValidationError, match=sentence) as raised:
        TokenizerConfig(**options)
    assert {error["loc"][0] for error in raised.value.errors()} == {place}


def test_a_resolved_section_is_the_same_section(tmp_path):
    for options in (
        {"file": "a.json"},
        {"pattern": "o200k", "digits": 1, "special_tokens": ["<a>"], "sample": {"by": "host", "temperature": 2}},
    ):
        section = TokenizerConfig.model_validate(options, context={"folder": str(tmp_path)})
        assert TokenizerConfig.model_validate(section.model_dump(mode="json")) == section
    assert TokenizerConfig.model_validate({"file": "a.json"}, context={"folder": str(tmp_path)}).file == str(tmp_path / "a.json")
