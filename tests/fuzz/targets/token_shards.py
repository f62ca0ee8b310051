"""Fuzzes token shards: a set with one arbitrary file is read as its files say, or refused in one sentence."""

import contextlib
import json
from functools import cache
from pathlib import Path

from fuzzing import changed, choose, choosing, json_mutants, scratch
from token_sets import random_documents, write_token_set

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.token_shards import SHARDS_FILE, TokenShards

FILES = [SHARDS_FILE, "tokens-00000.bin", "tokens-00000.index.parquet", "tokens-00000.pack-64.arrow"]


@cache
def sound() -> Path:
    folder = scratch() / "tokens"
    write_token_set(folder, random_documents(2, 5, 40, seed=1), pack=[64])
    return folder


def seeds() -> list[bytes]:
    described = json.loads((sound() / SHARDS_FILE).read_bytes())
    contents = [choosing(place, (sound() / name).read_bytes()) for place, name in enumerate(FILES)]
    return contents + [choosing(0, content) for content in json_mutants("shards", described, 12)]


def fuzz(data: bytes) -> None:
    name, content = choose(data, FILES)
    with changed(sound(), name, content) as folder, contextlib.suppress(InputError):
        read(TokenShards(folder))


def read(shards: TokenShards) -> None:
    for number, shard in enumerate(shards.shards):
        with contextlib.suppress(InputError):
            assert len(shards.tokens(number)) == shard.tokens
        for length in {plan.length for plan in shard.plans}:
            with contextlib.suppress(InputError):
                plan = shards.plan(number, length)
                assert sum(tokens for row in set(plan.row.tolist()) for _, tokens in plan.pieces_of(row)) == shard.tokens
        with contextlib.suppress(InputError):
            for token in {0, shard.tokens // 2, shard.tokens - 1}:
                found = shards.locate(number, token)
                assert found.first <= token < found.first + found.tokens, "the token is not in the document that is named"
    with contextlib.suppress(InputError):
        shards.documents_of(0, min(100, len(shards)))
        shards.window(0, min(100, len(shards)))
    shards.verify()
