"""The byte alphabet against `tokenizers`' own, and the ranks file against tiktoken's reader."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiktoken.load import load_tiktoken_bpe
from tokenizers.pre_tokenizers import ByteLevel

from corpusmill.pipeline.token_bytes import byte_characters, tiktoken_file, to_bytes, to_characters


def test_alphabet_is_that_of_tokenizers():
    assert sorted(byte_characters()) == sorted(ByteLevel.alphabet())


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1))
def test_text_in_the_alphabet_is_what_tokenizers_makes_of_it(text):
    ours = to_characters(text)
    assert [ours] == [piece for piece, _ in ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)]
    assert to_bytes(ours) == text.encode()


def test_other_characters_are_no_bytes():
    with pytest.raises(KeyError):
        to_bytes("中")


def test_ranks_file_is_read_by_tiktoken(tmp_path):
    ranks = {b"a": 4, b"\n": 5, b"a\n": 6, bytes([255, 0]): 7}
    path = tmp_path / "ranks.tiktoken"
    path.write_bytes(tiktoken_file(ranks))
    assert load_tiktoken_bpe(str(path)) == ranks
