"""Tests patterns by name, with a rule for digits, or given; and refused ones."""

import pytest
from pydantic import ValidationError

from corpusmill.pipeline.errors import ConfigError
from corpusmill.pipeline.recipe import validate_recipe
from corpusmill.tokenize.patterns import PATTERNS, check_regex, probes, regex_of, rule_of
from corpusmill.tokenize.tokenizer_config import TokenizerConfig
from corpusmill.tokenize.words import splitter


def cut(text, regex):
    return [piece for piece, _ in splitter(regex).pre_tokenize_str(text)]


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("digits", [1, 2, 3])
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


@pytest.mark.parametrize("regex", [*PATTERNS.values(), r"[\s\S]", r"\p{L}+|[^\p{L}]{1,8}"])
def test_expressions_that_match_all_are_taken(regex):
    check_regex(regex)


@pytest.mark.parametrize(
    ("regex", "sentence"),
    [
        ("gpt3", "leaves out some of 'a'"),
        (r"\p{L}+|\p{N}+|\s+|[!-/]", "leaves out some of"),
        (r"\w+|[^\w\n]", r"leaves out some of '\\n'"),
        (".", r"leaves out some of '\\n'"),
        ("(", "no regular expression for tokenizers"),
        (r"\X|[\s\S]", "no regular expression for tiktoken"),
        (r"\w+|\W", "do not cut .* alike"),  # nor do engines agree on what a word is
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
        ({"digits": 4}, "digits", "1, 2 or 3"),
        ({"vocab_size": 511}, "vocab_size", "512"),
        ({"vocab_size": 262_145}, "vocab_size", "262144"),
        ({"special_tokens": ["<|pad|>"]}, "special_tokens", "is one of the four that every tokenizer here has"),
        ({"special_tokens": ["<a>", "<b>", "<a>"]}, "special_tokens", "'<a>' is there twice"),
        ({"special_tokens": ["<a b>"]}, "special_tokens", "no spaces"),
        ({"special_tokens": [""]}, "special_tokens", "1 to 64 visible characters"),
        ({"special_tokens": ["<\x1b>"]}, "special_tokens", "visible characters"),
        ({"special_tokens": ["END"]}, "special_tokens", r"could be learned as a word; put marks around it, like <\|END\|>"),
        ({"vocab_size": 512, "special_tokens": [f"<{n}>" for n in range(300)]}, "special_tokens", "more special tokens than"),
        ({"file": "x.json", "pattern": "cl100k", "ties": "bytes"}, "file", "leave out pattern, ties"),
        ({"sample": {"weights": {"en": 1}}}, "sample", "need `by`"),
        ({"sample": {"by": "language", "weights": {"en": 1}, "temperature": 2}}, "sample", "weights or temperature"),
        ({"sample": {"by": "language", "weights": {}}}, "sample", "name no group"),
        ({"sample": {"by": "language", "weights": {"en": 0}}}, "sample", "greater than 0"),
        ({"sample": {"by": "language", "components": [{"name": "a", "weight": 1}]}}, "sample", "or components"),
        ({"sample": {"components": [{"name": "a", "weight": 1}] * 2}}, "sample", "two components are called a"),
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


def test_the_old_key_of_the_vocabulary_is_refused_and_the_new_one_named():
    with pytest.raises(ConfigError, match=r"r\.yaml: tokenizer\.vocabulary_size: unknown key \(expected one of kind, vocab_size,"):
        validate_recipe({"tokenizer": {"vocabulary_size": 600}}, "r.yaml")
