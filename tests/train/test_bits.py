"""The bytes of tokens, and the nats of targets."""

import json
import math

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from corpusmill.pipeline.special_tokens import SPECIAL_TOKENS
from corpusmill.train.architecture import Architecture
from corpusmill.train.bits import token_bytes
from corpusmill.train.model import Llama, initialise
from corpusmill.train.parallel.computation import LocalModel

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


def test_masked_targets_cost_nothing_and_nothing_is_nan() -> None:
    ids = torch.tensor([[5, 6, 7]])
    assert LocalModel(model(), "fp32").nats(ids, torch.tensor([[-100, 8, -100]]), None).tolist()[0] == pytest.approx([0, math.log(300), 0])
