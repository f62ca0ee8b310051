"""Compares masks of 64 bytes with Python's result for each byte."""

import numba
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.pipeline.text.byte_masks import BLOCK, ByteMasks, byte_masks, highest_bit, lowest_bit


@numba.njit
def masks_at(data, at):
    return byte_masks(data, at)


@numba.njit
def bits_of(word):
    return lowest_bit(word), highest_bit(word)


def wanted(block: bytes) -> ByteMasks:
    def mask(bytes_: bytes) -> int:
        return sum(1 << place for place, byte in enumerate(block) if byte in bytes_)

    letters = bytes(range(128)).decode().translate({point: None for point in range(128) if not chr(point).isalpha()}).encode()
    high, continuing = bytes(range(0x80, 0x100)), bytes(range(0x80, 0xC0))
    return ByteMasks(*map(mask, (letters, b"0123456789", b"\t\n\v\f\r ", b" ", b"'", high, continuing)))  # type: ignore[arg-type]


@given(st.binary(min_size=BLOCK, max_size=BLOCK + 40), st.data())
def test_masks_say_what_each_byte_is(content, draw):
    at = draw.draw(st.integers(0, len(content) - BLOCK))
    assert masks_at(np.frombuffer(content, np.uint8), at) == wanted(content[at : at + BLOCK])


def test_every_byte():
    data = np.arange(256, dtype=np.uint8)
    for at in range(0, 256, BLOCK):
        assert masks_at(data, at) == wanted(data[at : at + BLOCK].tobytes())


@given(st.integers(1, 2**64 - 1))
def test_lowest_and_highest_bit(word):
    assert bits_of(np.uint64(word)) == ((word & -word).bit_length() - 1, word.bit_length() - 1)
