import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.pipeline.text.utf8 import (
    character_classes,
    count_byte,
    count_characters,
    decode,
    eight_bytes,
    find_byte,
    previous,
    strip_end,
    strip_start,
)

SPACES = " \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2000\u2028\u2029\u202f\u205f\u3000"
TEXT = st.text(st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from(SPACES + "ab")))


def buffer(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8)


@pytest.mark.parametrize("point", [0, 0x7F, 0x80, 0x7FF, 0x800, 0xD7FF, 0xE000, 0xFFFF, 0x10000, 0x1F600, 0x10FFFF])
def test_decode_knows_every_length(point: int) -> None:
    data = buffer("é" + chr(point) + "a")
    width = len(chr(point).encode())
    assert decode(data, 2) == (point, width)
    assert previous(data, 2 + width) == 2


@given(TEXT)
def test_spans_as_python_sees_them(text: str) -> None:
    data, classes = buffer("x" + text + "x"), character_classes()
    start, end = 1, len(data) - 1
    assert count_characters(data, start, end) == len(text)
    assert count_byte(data, start, end, 10) == text.count("\n")
    for wanted in (b"\n", b"a", b"\x80"):
        found = text.encode().find(wanted)
        assert find_byte(data, start, end, wanted[0]) == (end if found < 0 else start + found)
    assert bytes(data[strip_start(data, start, end, classes) : end]).decode() == text.lstrip()
    assert bytes(data[start : strip_end(data, start, end, classes)]).decode() == text.rstrip()


def test_eight_bytes_are_little_endian() -> None:
    data = np.arange(20, dtype=np.uint8)
    assert int(eight_bytes(data, 3)) == int.from_bytes(bytes(range(3, 11)), "little")


def test_find_byte_in_long_spans() -> None:
    for place in range(40):
        data = np.full(40, 0x8A, np.uint8)
        data[place:] = 10
        assert find_byte(data, 0, 40, 10) == place
        assert find_byte(data, place, place, 10) == place
        assert find_byte(data, 0, place, 10) == place
