"""Tests tokenizers that can be compared, and metrics of their tokens."""

import base64
import hashlib

import numpy as np
import pyarrow as pa
import pytest
import regex
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from corpusmill.pipeline.errors import InputError
from corpusmill.text.buffers import text_buffers
from corpusmill.text.words import UNSPACED
from corpusmill.tokenize.compared_tokenizers import PUBLISHED, cut_words, read_tokenizer, word_kinds
from corpusmill.tokenize.encode import Encoder

#: The name of each encoding's file in tiktoken's cache: the sha1 of its address.
ENCODINGS = {"gpt2": ("r50k_base", "r50k_base"), "cl100k": ("cl100k_base", "cl100k_base"), "o200k": ("o200k_base", "o200k_base")}


ALL_BYTES = b"".join(b"%s %d\n" % (base64.b64encode(bytes([byte])), byte) for byte in range(256))


@pytest.fixture
def tiktoken_encoding(tmp_path, monkeypatch):
    """Returns tiktoken's own encoding from the fetched file; tiktoken checks its hash."""

    def make(name):
        import tiktoken

        encoding, file = ENCODINGS[name]
        address = f"https://openaipublic.blob.core.windows.net/encodings/{file}.tiktoken"
        content = open(PUBLISHED[name].path(), "rb").read()
        (tmp_path / hashlib.sha1(address.encode()).hexdigest()).write_bytes(content)
        monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
        return tiktoken.get_encoding(encoding)

    return make


@pytest.mark.parametrize("name", ["gpt2", "cl100k", pytest.param("o200k", marks=pytest.mark.long)])
def test_published_ones_are_tiktokens_own(name, tiktoken_encoding, english, foreign):
    encoding, judged = tiktoken_encoding(name), read_tokenizer(name)
    texts = [*english[::10], *foreign, "<|endoftext|> is text"]
    ids, counts = judged.encoder.encode_column(pa.array(texts, pa.large_string()))
    wanted = [encoding.encode_ordinary(text) for text in texts]
    assert counts.tolist() == [len(found) for found in wanted] and ids.tolist() == [number for found in wanted for number in found]
    assert judged.sizes[ids].sum() == sum(len(text.encode()) for text in texts)
    assert judged.vocabulary_size == len(encoding._mergeable_ranks) == {"gpt2": 50_256, "cl100k": 100_256, "o200k": 199_998}[name]


def test_a_file_of_another_kind_is_counted_by_tokenizers(tmp_path, english):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(english[:20], trainers.WordPieceTrainer(vocab_size=500, special_tokens=["[UNK]"], show_progress=False))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    judged = read_tokenizer(str(tmp_path / "tokenizer.json"))
    ids, counts = judged.encoder.encode_column(pa.array(english[:3], pa.large_string()))
    wanted = [tokenizer.encode(text, add_special_tokens=False).ids for text in english[:3]]
    assert counts.tolist() == [len(found) for found in wanted] and ids.tolist() == [number for found in wanted for number in found]
    assert judged.sizes is None


def test_a_tiktoken_file_with_its_pattern(tmp_path):
    path = tmp_path / "other.tiktoken"
    path.write_bytes(ALL_BYTES + b"%s 256\n" % base64.b64encode(b"1234"))
    assert read_tokenizer(f"{path}:gpt2").encoder.encode("a1234") == [ord("a"), 256]
    assert read_tokenizer(str(path)).encoder.encode("a1234") == list(b"a1234")  # cl100k cuts numbers


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(None, "no such tokenizer"),(b"what is this", "neither a tokenizer.json nor a tiktoken file"),
     (b"YQ== 0\n", "lacks? the byte|ranks lack"),(ALL_BYTES + b"YWE= -1\n", "its ids are not whole numbers from 0 on"),
     (ALL_BYTES + b"YWE= 1000000000000\n", "has 1,000,000,000,001 ids, and 1,048,576 are the most"),
    ],
)  # fmt: skip
def test_files_that_are_none(tmp_path, content, sentence):
    path = tmp_path / "some"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=sentence):
        read_tokenizer(str(path))


WORD = regex.compile(
    rf"[[{UNSPACED}]&&[\p{{L}}\p{{N}}]]\p{{M}}*|(?:(?![{UNSPACED}])[\p{{L}}\p{{N}}])(?:(?![{UNSPACED}])[\p{{L}}\p{{N}}]|\p{{M}})*", regex.V1
)


def ours(texts, ids, counts, sizes):
    data, offsets = text_buffers(pa.array(texts, pa.large_string()))
    found = np.zeros((len(texts), 3), np.int64)
    cut_words(data, offsets, np.array(ids, np.uint16), np.array(counts, np.int64), np.array(sizes, np.int64), word_kinds(), found)
    return found.tolist()


def test_real_text_by_the_offsets_of_tokenizers(tokenizers_by_pattern, english, foreign):
    """`tokenizers` gives the characters of each token: a word of several tokens has one that begins inside it, or inside one of
    its characters.
    """
    content = tokenizers_by_pattern("o200k")
    texts = english[::20] + foreign[:20]
    tokenizer, encoder = Tokenizer.from_str(content.decode()), Encoder.from_json(content)
    sizes = np.zeros(encoder.vocabulary_size, np.int64)
    for token, number in encoder.ranks.items():
        sizes[number] = len(token)
    ids, counts = encoder.encode_column(pa.array(texts, pa.large_string()))
    found = ours(texts, ids, counts, sizes)
    for text, row in zip(texts, found, strict=True):
        offsets = tokenizer.encode(text, add_special_tokens=False).offsets
        spans = [match.span() for match in WORD.finditer(text)]
        touched = [sum(begin < end_ and begin_ < end for begin_, end_ in offsets) for begin, end in spans]
        assert row == [len(spans), sum(touched), sum(number > 1 for number in touched)]
