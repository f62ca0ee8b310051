"""Tests characters as tokens: the ids of `tokenizers` for every text, and a file that all readers here accept."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.special_tokens import EOT_ID, PAD_ID, SPECIAL_TOKENS
from corpusmill.pipeline.token_bytes import TokenBytes
from corpusmill.tokenize.characters import make_character_tokenizer
from corpusmill.tokenize.encode import Encoder
from corpusmill.tokenize.tokenizer_stage import json_file, tokenizer_config

ALPHABET = "aZ é\n\t\r\0'<|>中ſ\u0301\u200d\ufeff🙂\U0010ffff"
TEXTS = st.one_of(st.text(st.sampled_from(ALPHABET), max_size=60), st.lists(st.sampled_from(["a", "<|>", "🙂é", "\r\n"])).map("".join))


def content_of(characters: str) -> bytes:
    return make_character_tokenizer(set(characters), SPECIAL_TOKENS).to_str().encode()


@pytest.fixture(scope="module")
def content() -> bytes:
    return content_of(ALPHABET)


@pytest.fixture(scope="module")
def encoder(content: bytes) -> Encoder:
    return Encoder.from_json(content)


@pytest.fixture(scope="module")
def tokenizer(content: bytes) -> Tokenizer:
    return Tokenizer.from_str(content.decode())


@given(text=TEXTS)
def test_ids_are_those_of_tokenizers_and_give_the_text_back(encoder: Encoder, tokenizer: Tokenizer, content: bytes, text: str) -> None:
    ids = encoder.encode(text)
    assert ids == tokenizer.encode(text).ids and len(ids) == len(text)
    assert tokenizer.decode(ids) == text
    assert TokenBytes(content).join(np.array(ids, np.int64)) == text.encode()


def test_characters_have_their_ids_by_code_point_behind_the_special_tokens(encoder: Encoder) -> None:
    assert encoder.vocabulary_size == len(SPECIAL_TOKENS) + len(set(ALPHABET))
    assert [encoder.encode(c) for c in sorted(set(ALPHABET))] == [[n] for n in range(4, encoder.vocabulary_size)]
    assert encoder.vocabulary.special == {token: number for number, token in enumerate(SPECIAL_TOKENS)}
    assert encoder.ranks == {c.encode(): encoder.encode(c)[0] for c in ALPHABET}


@pytest.mark.parametrize("text", ["b", "a🙃"])
def test_another_character_is_refused_by_name_by_both(encoder: Encoder, tokenizer: Tokenizer, text: str) -> None:
    other = next(c for c in text if c not in ALPHABET)
    with pytest.raises(InputError, match=rf"\(U\+{ord(other):04X}\) is no token of this vocabulary of characters"):
        encoder.encode(text)
    with pytest.raises(Exception, match="unknown character"):
        tokenizer.encode(text)


def test_transformers_reads_it(content: bytes, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    (tmp_path / "tokenizer.json").write_bytes(content)
    ids = {token: number for number, token in enumerate(SPECIAL_TOKENS)}
    (tmp_path / "tokenizer_config.json").write_bytes(json_file(tokenizer_config(ids)))
    found = AutoTokenizer.from_pretrained(tmp_path)
    assert found("é🙂\n Z")["input_ids"] == Encoder.from_json(content).encode("é🙂\n Z")
    assert (len(found), found.eos_token_id, found.pad_token_id) == (4 + len(set(ALPHABET)), EOT_ID, PAD_ID)
    assert found.decode(found("é🙂\n Z")["input_ids"]) == "é🙂\n Z"
