import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.pipeline.text.hashing import find, hash_span, insert, table_size


@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 40)))
@settings(deadline=None, max_examples=100)
def test_a_table_is_a_set(keys: list[int]) -> None:
    table = np.zeros(table_size(len(keys)), np.uint64)
    seen: set[int] = set()
    for key in keys:
        stored = key or 1  # zero marks empty slots
        assert insert(table, table.size - 1, np.uint64(key)) == (stored in seen)
        seen.add(stored)
        assert table[find(table, table.size - 1, np.uint64(key))] == stored
    missing = next(k for k in range(2, 100) if k not in seen)
    assert find(table, table.size - 1, np.uint64(missing)) == -1


def test_tables_are_at_most_half_full() -> None:
    for entries in (0, 1, 8, 9, 1000, 1025):
        assert table_size(entries) >= max(16, 2 * entries)
        assert table_size(entries) & (table_size(entries) - 1) == 0


def test_equal_spans_have_equal_hashes_and_others_differ() -> None:
    data = np.frombuffer(b"abcdefghij-abcdefghij-abcdefghijk\0\0\0", np.uint8)
    assert hash_span(data, 0, 10) == hash_span(data, 11, 21)
    hashes = {int(hash_span(data, start, end)) for start in range(8) for end in range(start, 11)}
    assert len(hashes) == len({bytes(data[start:end]) for start in range(8) for end in range(start, 11)})
    assert hash_span(data, 33, 34) != hash_span(data, 33, 35)  # length counts: trailing NULs change the hash


def test_nuls_in_front_count() -> None:
    spans = [b"1a#", b"\x001a$", b"\x00\x001a%", b"\x00", b"\x00\x00", b""]
    assert len({int(hash_span(np.frombuffer(span, np.uint8), 0, len(span))) for span in spans}) == len(spans)
