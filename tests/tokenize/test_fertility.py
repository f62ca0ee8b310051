"""Words and the tokens that hold them, against counting character by character in Python, and against the offsets of `tokenizers`."""

import numpy as np
import pyarrow as pa
import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from corpusmill.pipeline.text.buffers import text_buffers
from corpusmill.pipeline.text.words import UNSPACED
from corpusmill.tokenize.compared_tokenizers import cut_words, word_kinds
from corpusmill.tokenize.encode import Encoder

WORD = regex.compile(
    rf"[[{UNSPACED}]&&[\p{{L}}\p{{N}}]]\p{{M}}*|(?:(?![{UNSPACED}])[\p{{L}}\p{{N}}])(?:(?![{UNSPACED}])[\p{{L}}\p{{N}}]|\p{{M}})*", regex.V1
)
TEXTS = st.lists(
    st.text(st.one_of(st.sampled_from("ab é e\u0301 12'-_,.\n東京ไท่ก็हिन्दी🙂"), st.characters(exclude_categories=["Cs"]))), max_size=4
)


def counted(texts, cuts):
    """Words, tokens that they lie in, words split: `cuts` are the bytes of each text at which a token ends."""
    rows = []
    for text, ends in zip(texts, cuts, strict=True):
        spans = [(len(text[: m.start()].encode()), len(text[: m.end()].encode())) for m in WORD.finditer(text)]
        inner = [sum(begin < cut < end for cut in ends) for begin, end in spans]
        rows.append([len(spans), len(spans) + sum(inner), sum(cut > 0 for cut in inner)])
    return rows


def ours(texts, ids, counts, sizes):
    data, offsets = text_buffers(pa.array(texts, pa.large_string()))
    found = np.zeros((len(texts), 3), np.int64)
    cut_words(data, offsets, np.array(ids, np.uint16), np.array(counts, np.int64), np.array(sizes, np.int64), word_kinds(), found)
    return found.tolist()


def test_by_hand():
    texts = ["The cat's 東京 café!", "", "12"]
    sizes = [0, 1, 2, 3, 4]
    # The| ca|t|'s| 東|京| ca|fé|!  in bytes: 3, 3, 1, 2, 4, 3, 3, 3, 1
    ids = [3, 3, 1, 2, 4, 3, 3, 3, 1, 1, 1]
    assert ours(texts, ids, [9, 0, 2], sizes) == [[6, 8, 2], [0, 0, 0], [1, 2, 1]]


@given(texts=TEXTS, data=st.data())
def test_any_text_cut_anywhere(texts, data):
    cuts, ids, counts = [], [], []
    for text in texts:
        size, ends = len(text.encode()), []
        while not ends or ends[-1] < size:
            left = size - (ends[-1] if ends else 0)
            if not left:
                break
            step = data.draw(st.integers(1, min(left, 9)))
            ids.append(step)
            ends.append((ends[-1] if ends else 0) + step)
        cuts.append(ends)
        counts.append(len(ends))
    assert ours(texts, ids, counts, range(10)) == counted(texts, cuts)


@pytest.mark.parametrize("pattern", ["gpt2", "o200k"])
def test_real_text_by_the_offsets_of_tokenizers(tokenizers_by_pattern, english, foreign, pattern):
    """`tokenizers` says which characters each token lies in: a word of several tokens has one that begins inside it, or inside one of
    its characters."""
    content = tokenizers_by_pattern(pattern)
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
