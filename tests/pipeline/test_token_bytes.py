"""Tests the bytes of tokens, and the characters that stand for them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiktoken.load import load_tiktoken_bpe
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.pre_tokenizers import ByteLevel

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.special_tokens import EOT_ID, SPECIAL_TOKENS
from corpusmill.pipeline.token_bytes import TokenBytes, tiktoken_file, to_bytes, to_characters


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1))
def test_text_in_the_alphabet_is_what_tokenizers_makes_of_it(text):
    ours = to_characters(text)
    assert [ours] == [piece for piece, _ in ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)]
    assert to_bytes(ours) == text.encode()


def test_ranks_file_is_read_by_tiktoken(tmp_path):
    ranks = {b"a": 4, b"\n": 5, b"a\n": 6, bytes([255, 0]): 7}
    path = tmp_path / "ranks.tiktoken"
    path.write_bytes(tiktoken_file(ranks))
    assert load_tiktoken_bpe(str(path)) == ranks


TEXT = "Größe, naïve café: 東京 🙂 and the and the and then "


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=290, special_tokens=list(SPECIAL_TOKENS), initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([TEXT] * 4, trainer)
    return tokenizer


@given(st.text(st.one_of(st.sampled_from(TEXT), st.characters(exclude_categories=["Cs"]))))
def test_bytes_of_tokens_are_the_text(tokenizer: Tokenizer, text: str) -> None:
    table = TokenBytes(tokenizer.to_str().encode())
    ids = np.array(tokenizer.encode(text, add_special_tokens=False).ids, "<u2")
    assert table.join(ids) == text.encode() and int(table.sizes[ids.astype(int)].sum()) == len(text.encode())


def test_special_tokens_are_no_text(tokenizer: Tokenizer) -> None:
    table = TokenBytes(tokenizer.to_str().encode())
    assert table.special == dict(enumerate(SPECIAL_TOKENS)) and table.sizes[:4].tolist() == [0, 0, 0, 0]
    part = tokenizer.encode("東").ids[:1]
    assert table.text(np.array([*tokenizer.encode("and").ids, EOT_ID, *part, 60_000])) == "and<|endoftext|>\ufffd"
    assert len(table.bytes_of) == tokenizer.get_vocab_size()


@pytest.mark.parametrize("content", [b"{}", b"no json", b'{"model": {"vocab": {"\xe4\xb8\xad": 0}}}'])
def test_other_tokenizers_are_refused(content: bytes) -> None:
    with pytest.raises(InputError, match=r"x/tokenizer\.json: not a byte-level BPE tokenizer"):
        TokenBytes(content, "x/tokenizer.json")
