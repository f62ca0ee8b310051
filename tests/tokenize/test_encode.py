"""Compares the ids of every text with those of `tokenizers`."""

import json
import random

import numpy as np
import pyarrow as pa
import pytest
import tiktoken
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.special_tokens import EOT_ID, SPECIAL_TOKENS
from corpusmill.pipeline.token_bytes import byte_characters
from corpusmill.tokenize.encode import Encoder
from corpusmill.tokenize.patterns import PATTERNS
from corpusmill.tokenize.words import splitter

#: Characters that patterns treat specially: letters of all kinds, digits, marks, white space of all kinds, apostrophes, case folding.
AWKWARD = " \t\n\r\v\f\x1c\x85\xa0\u2003\u2028\u3000'’sStTſreEvVmMlLdDkK\u212a0١Ⅷ²aÄǅʰ中\u0301\u200d\ufeff🙂👩‍👩‍👧/!.-_<|>"
TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.text(st.sampled_from(AWKWARD), max_size=40),
    st.lists(st.sampled_from([*SPECIAL_TOKENS, "the ", " the", "\n\n", "  ", "it's", "IT'S", "don't", "'ll", "1234", "\r\n", "né"])).map(
        "".join
    ),
)


def reference(content: bytes) -> Tokenizer:
    tokenizer = Tokenizer.from_str(content.decode())
    tokenizer.encode_special_tokens = True
    return tokenizer


@pytest.fixture(scope="module", params=["gpt2", "cl100k", "o200k"])
def pair(request, tokenizers_by_pattern):
    content = tokenizers_by_pattern(request.param)
    return Encoder.from_json(content), reference(content)


@given(text=TEXTS)
def test_random_text(pair, text):
    encoder, tokenizer = pair
    ids = encoder.encode(text)
    assert ids == tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


#: Common words with every possible end: the path for ASCII words looks 16 bytes ahead, into the next texts.
WORDS = st.lists(
    st.sampled_from(
        ["word", "Word", "WORD", "wordsofeighty", "aLongerOneWithCapitals", "x", "X", " ", "  ", "'s", "'S", "é", "1", ".", "\n", ""]
    ),
    max_size=8,
).map("".join)


@given(texts=st.lists(WORDS | st.text("aB '", max_size=6), min_size=1, max_size=12))
def test_texts_one_after_the_other_are_encoded_each_by_itself(pair, texts):
    encoder, tokenizer = pair
    wanted = [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]
    ids, counts = encoder.encode_column(pa.array(texts, pa.large_string()))
    assert counts.tolist() == list(map(len, wanted))
    assert ids.tolist() == [number for ids in wanted for number in ids]


def test_real_text(pair, english, foreign):
    encoder, tokenizer = pair
    texts = english[::9] + foreign
    assert [encoder.encode(text) for text in texts] == [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False)]


@pytest.mark.parametrize("unit", [" ", "\r\n", "e\u0301", "aB"], ids=ascii)
def test_long_texts_in_one_breath(pair, unit):
    """A letter at the end, or none, matters for white space. Time that grew with the square of the length would not end."""
    encoder, tokenizer = pair
    for text in (unit * 10_000, unit * 20_000 + "x y"):
        assert encoder.encode(text) == tokenizer.encode(text, add_special_tokens=False).ids
    assert len(encoder.encode(unit * 500_000)) > 1_000


@settings(deadline=None)
@given(
    words=st.lists(st.text("abc", min_size=1, max_size=9), min_size=3, max_size=12),
    pieces=st.lists(st.text("abc", min_size=1, max_size=200), min_size=1, max_size=6),
)
def test_merges_of_few_letters_are_done_in_the_same_order(words, pieces):
    """The texts have many ties, and pretokens that are short, long, and too long for the table of known ones."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([splitter("gpt2"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=byte_characters(), show_progress=False)
    tokenizer.train_from_iterator(words, trainer)
    encoder = Encoder.from_json(tokenizer.to_str().encode())
    for piece in [*pieces, *pieces]:  # the second time they are known
        whole = encoder.encode_pieces(pa.array([piece], pa.large_string()))[0].tolist()
        assert encoder.encode(piece) == whole == tokenizer.encode(piece).ids


@pytest.mark.long
def test_more_pieces_than_are_remembered(tokenizers_by_pattern):
    content = tokenizers_by_pattern("gpt2")
    generator = random.Random(0)
    pieces = ["".join(generator.choices("abcdeinorst", k=generator.choice((5, 9, 14, 20, 40)))) for _ in range(700_000)]
    both = Encoder.from_json(content), Encoder.from_json(content)
    ids, counts = both[0].encode_pieces(pa.array(pieces, pa.large_string()))
    again, counts_again = both[0].encode_pieces(pa.array(pieces, pa.large_string()))
    backwards, counts_backwards = both[1].encode_pieces(pa.array(pieces[::-1], pa.large_string()))
    assert np.array_equal(ids, again) and np.array_equal(counts, counts_again) and np.array_equal(counts, counts_backwards[::-1])
    ends = np.cumsum(counts_backwards)[::-1]
    assert np.array_equal(ids, np.concatenate([backwards[end - count : end] for end, count in zip(ends.tolist(), counts.tolist())]))
    tokenizer = reference(content)
    assert ids[: int(counts[:3000].sum())].tolist() == [id_ for e in tokenizer.encode_batch(pieces[:3000]) for id_ in e.ids]


@pytest.fixture(scope="module", params=["gpt2", "cl100k", "o200k"])
def tiktoken_pair(request, tokenizers_by_pattern):
    """Returns tiktoken and this encoder with the same ranks, some of which can't be reached by merging."""
    ranks = Encoder.from_json(tokenizers_by_pattern(request.param)).ranks
    least = min(ranks.values())
    ranks = {token: rank - least for token, rank in ranks.items()}
    ranks |= {token: len(ranks) + place for place, token in enumerate((b" zqxj", b"the the", b"qqqqqqqqqq"))}
    pattern = PATTERNS[request.param]
    encoding = tiktoken.Encoding("x", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    return Encoder.from_ranks(ranks, pattern, "x.tiktoken"), encoding


@given(text=TEXTS | st.text("zqxj the", max_size=30))
def test_ranks_of_tiktoken_give_its_ids(tiktoken_pair, text):
    encoder, encoding = tiktoken_pair
    assert encoder.encode(text) == encoding.encode_ordinary(text)


def test_merges_are_ignored_where_the_tokenizer_says_so(tokenizers_by_pattern):
    """As in Llama 3, a pretoken that is a token stays that token, even if merging would not lead to it."""
    found = json.loads(tokenizers_by_pattern("gpt2"))
    found["model"]["ignore_merges"] = True
    found["model"]["vocab"]["Ġzqxj"] = len(found["model"]["vocab"])
    content = json.dumps(found).encode()
    encoder, tokenizer = Encoder.from_json(content), reference(content)
    assert encoder.encode("a zqxj zqxjj") == tokenizer.encode("a zqxj zqxjj").ids
    assert encoder.encode(" zqxj") == [found["model"]["vocab"]["Ġzqxj"]]


@pytest.mark.parametrize("pattern", [r"\w+|\W", r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,4}|\s+|[^\s\p{L}\p{N}]+"])
@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(TEXTS, max_size=4))
def test_other_expressions_are_cut_by_tokenizers_itself(tokenizers_by_pattern, pattern, texts):
    found = json.loads(tokenizers_by_pattern("gpt2"))
    found["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = pattern
    content = json.dumps(found).encode()
    encoder, tokenizer = Encoder.from_json(content), reference(content)
    ids, counts = encoder.encode_column(pa.array(texts, pa.large_string()), EOT_ID)
    wanted = [[*tokenizer.encode(text, add_special_tokens=False).ids, *([EOT_ID] if text else [])] for text in texts]
    assert counts.tolist() == list(map(len, wanted)) and ids.tolist() == [number for ids in wanted for number in ids]


@pytest.mark.parametrize("content", [b"not json", b"[]", b'{"model": {"type": "BPE"}}'])
def test_other_files_are_refused(content):
    with pytest.raises(InputError, match=r"^some/tokenizer\.json: this tokenizer can't be used, because (it|a field) "):
        Encoder.from_json(content, "some/tokenizer.json")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda t: t.update(normalizer={"type": "NFC"}), r"it changes the text before it is cut \(normalizer NFC\)"),
        (lambda t: t.update(pre_tokenizer={"type": "Whitespace"}), "it is not byte-level"),
        (lambda t: t["pre_tokenizer"]["pretokenizers"][1].update(add_prefix_space=True), "it puts a space before the text"),
        (lambda t: t["added_tokens"].append({**t["added_tokens"][0], "id": 9**6, "content": "zz", "special": False}), "such as 'zz'"),
        (lambda t: t["model"]["merges"].append("a b c"), "it has a merge that is not of two tokens"),
        (lambda t: t["model"]["vocab"].update(he=-1), "its ids are not whole numbers from 0 on"),
        (lambda t: t.update(model={"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}), "its model is WordLevel, not BPE"),
    ],
)  # fmt: skip
def test_tokenizers_that_work_otherwise_are_refused(tokenizers_by_pattern, change, why):
    found = json.loads(tokenizers_by_pattern("gpt2"))
    change(found)
    with pytest.raises(InputError, match=rf"^some/tokenizer\.json: this tokenizer can't be used, because .*{why}") as error:
        Encoder.from_json(json.dumps(found).encode(), "some/tokenizer.json")
    assert "\n" not in str(error.value)
