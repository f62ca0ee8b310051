"""What waits on disk, by range of documents."""

import resource
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.dedup.spill import Spill
from corpusmill.pipeline.errors import CorpusmillError

BOUNDS = np.array([0, 4, 4, 10])
ROWS = st.lists(st.tuples(st.sampled_from([0, 2]), st.integers(-(2**63), 2**63 - 1), st.integers(0, 9)), max_size=12)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), ROWS), max_size=6), st.integers(1, 5), st.integers(1, 30))
def test_what_was_put_comes_back_by_name_and_range_in_its_order(
    puts: list[tuple[str, list[tuple[int, ...]]]], chunk: int, buffer: int
) -> None:
    spill = Spill(BOUNDS, chunk, buffer)
    for name, rows in puts:
        table = np.array(rows, np.int64).reshape(-1, 3)
        one = set(table[:, 0].tolist())
        spill.put(name, one.pop() if len(one) == 1 else table[:, 0], table[:, 1:])
    for name in "ab":
        for number in range(3):
            expected = [list(row[1:]) for put, rows in puts if put == name for row in rows if row[0] == number]
            assert spill.all_of(name, number, 2).tolist() == expected
            taken = list(spill.take(name, number, 2))
            assert [row for some in taken for row in some.tolist()] == expected
            assert [len(some) for some in taken[:-1]] == [chunk] * (len(taken) - 1) and all(map(len, taken))
    spill.drop("a")
    assert spill.names == {name for name, rows in puts if name != "a" and rows}
    assert not len(spill.all_of("a", 0, 2))


def test_the_range_of_a_document() -> None:
    assert Spill(BOUNDS).range_of(np.arange(10)).tolist() == [0] * 4 + [2] * 6  # the one between has none


def test_a_full_folder_is_a_sentence_and_nothing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    spill, before = Spill(BOUNDS, buffer=1), resource.getrlimit(resource.RLIMIT_FSIZE)
    spill.put("a", np.zeros(1, np.int64), np.zeros((1, 2), np.int64))
    assert len(spill.all_of("a", 0, 2)) == 1
    assert not list(tmp_path.iterdir()), "a file without a name"
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(CorpusmillError, match=f"^{tmp_path}: no room for what dedup's phase groups keeps .*set TMPDIR to a folder"):
            spill.put("a", np.zeros(20_000, np.int64), np.zeros((20_000, 2), np.int64))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
