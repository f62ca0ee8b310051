"""Fuzzes a `tokenizer.json`: bytes of tokens, and a vocabulary that gives a text's bytes back, or one sentence."""

import contextlib
import json
from functools import cache

from fuzzing import json_mutants

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.token_bytes import TokenBytes
from corpusmill.tokenize.encode import from_tokenizer_json

TEXT = "Some text of words, 123 and é<|endoftext|>"


@cache
def sound() -> bytes:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([TEXT * 3], trainer)
    return str(tokenizer.to_str()).encode()


def seeds() -> list[bytes]:
    return [sound(), *json_mutants("tokenizer", json.loads(sound()), 24)]


def fuzz(data: bytes) -> None:
    with contextlib.suppress(InputError):
        found = TokenBytes(data)
        assert len(found.sizes) == len(found.bytes_of)
        json.dumps(list(found.special.values()))
    with contextlib.suppress(ValueError):
        from_tokenizer_json(data)
