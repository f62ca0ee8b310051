"""The hashes against the libraries that datatrove takes them from, through datatrove's own functions."""

import numpy as np
import pytest
from datatrove.utils.hashing import HashConfig, create_hash_func
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.dedup.string_hashes import sha1, xxh32
from corpusmill.pipeline.text.hashing import xxh64


def ours(content: bytes, name: str, bits: int, before: int = 3) -> int:
    data = np.frombuffer(b"\xff" * before + content, np.uint8)
    if name == "sha1":
        value = int(sha1(data, before, len(data), np.zeros(16, np.uint64), np.zeros(5, np.uint64)))
        return value & ((1 << bits) - 1)
    return int((xxh64 if bits == 64 else xxh32)(data, before, len(data)))


@pytest.mark.parametrize("name", ["xxhash", "sha1"])
@pytest.mark.parametrize("bits", [32, 64])
@given(text=st.text(max_size=200))
def test_hashes_are_datatroves(name: str, bits: int, text: str) -> None:
    theirs = create_hash_func(HashConfig(precision=bits, hash_fc=name))  # type: ignore[arg-type]
    assert ours(text.encode(), name, bits) == theirs(text)


@pytest.mark.parametrize("name", ["xxhash", "sha1"])
@pytest.mark.parametrize("bits", [32, 64])
def test_every_length(name: str, bits: int) -> None:
    theirs = create_hash_func(HashConfig(precision=bits, hash_fc=name))  # type: ignore[arg-type]
    for size in [*range(300), 1 << 16]:
        text = ("shingle" * (size // 7 + 1))[:size]
        assert ours(text.encode(), name, bits) == theirs(text)
