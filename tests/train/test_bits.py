"""Bits per byte: by hand for a model that knows nothing, and the same for any batch."""

import json
import math

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from corpusmill.pipeline.special_tokens import SPECIAL_TOKENS
from corpusmill.train.architecture import Architecture
from corpusmill.train.bits import Bits, measure, token_bytes
from corpusmill.train.loader import to_batch
from corpusmill.train.model import Llama, initialise
from corpusmill.train.parallel.computation import Local

CPU = torch.device("cpu")
TEXT = "Größe, naïve café: 東京 🙂 and the and the and then"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=280, special_tokens=list(SPECIAL_TOKENS), initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([TEXT] * 4, trainer)
    return tokenizer


def test_bytes_of_tokens_add_up_to_the_text(tokenizer: Tokenizer) -> None:
    sizes = token_bytes(tokenizer.to_str().encode())
    ids = tokenizer.encode(TEXT).ids
    assert sizes[ids].sum() == len(TEXT.encode()) and sizes[:4].tolist() == [0, 0, 0, 0] and len(sizes) == tokenizer.get_vocab_size()


def test_characters_as_tokens_count_their_utf8_bytes() -> None:
    tokenizer = {"model": {"vocab": {"a": 0, "ß": 1, "東": 2}}, "added_tokens": [{"id": 3, "content": "<x>", "special": True}]}
    assert token_bytes(json.dumps(tokenizer).encode()).tolist() == [1, 2, 3, 0]


def model() -> Llama:
    model = Llama(Architecture(vocab_size=300, layers=1, width=16, heads=2, kv_heads=2, head_dim=8, ffn=16, context=64))
    initialise(model, 0)
    return model.double()


def test_a_uniform_model_needs_ln_of_the_vocabulary_for_each_text_token(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(TEXT).ids
    row = np.array([[0, *ids, 0, *ids]], np.int64)
    bits = measure(Local(model(), "fp32").nats, CPU, [to_batch(row, True)], token_bytes(tokenizer.to_str().encode()))
    assert (bits.tokens, bits.bytes) == (2 * len(ids), 2 * len(TEXT.encode()))
    assert bits.per_byte == pytest.approx(2 * len(ids) * math.log2(300) / bits.bytes) and bits.nats_per_token == pytest.approx(
        math.log(300)
    )


def test_sums_do_not_depend_on_the_batch(tokenizer: Tokenizer) -> None:
    sizes = token_bytes(tokenizer.to_str().encode())
    rows = np.random.default_rng(0).integers(0, 280, (12, 33))
    some = model()
    for p in some.parameters():
        p.data += torch.randn(p.shape, generator=torch.Generator().manual_seed(1)).double() * 0.1
    totals = [measure(Local(some, "fp32").nats, CPU, [to_batch(rows[i : i + n], True) for i in range(0, 12, n)], sizes) for n in (1, 5, 12)]
    for total in totals[1:]:
        assert (total.tokens, total.bytes) == (totals[0].tokens, totals[0].bytes) and total.nats == pytest.approx(totals[0].nats, rel=1e-12)


def test_masked_targets_cost_nothing_and_nothing_is_nan() -> None:
    ids = torch.tensor([[5, 6, 7]])
    assert Local(model(), "fp32").nats(ids, torch.tensor([[-100, 8, -100]]), None).tolist()[0] == pytest.approx([0, math.log(300), 0])
    assert math.isnan(Bits().per_byte)
