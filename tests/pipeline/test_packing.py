"""Tests documents packed into rows: best fit against a slow version, and the plan of a shard."""

import bisect
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.packing import best_fit, plan
from corpusmill.pipeline.token_shards import PLAN, PackingPlan, plan_bytes


def plain_best_fit(lengths: list[int], capacity: int) -> list[list[int]]:
    """Returns the items of each row, by a sorted list of the rows' free places."""
    bins: list[list[int]] = []
    room: list[tuple[int, int]] = []
    for number in sorted(range(len(lengths)), key=lambda n: -lengths[n]):
        place = bisect.bisect_left(room, (lengths[number], -1))
        if place < len(room):
            free, target = room.pop(place)
        else:
            free, target = capacity, len(bins)
            bins.append([])
        bins[target].append(number)
        bisect.insort(room, (free - lengths[number], target))
    return bins


def packed(lengths: list[int], capacity: int) -> list[list[int]]:
    row, rows = best_fit(np.array(lengths, np.int64), capacity)
    return [np.flatnonzero(row == number).tolist() for number in range(rows)]


@given(st.integers(1, 70).flatmap(lambda c: st.tuples(st.just(c), st.lists(st.integers(1, c), max_size=120))))
def test_as_many_rows_as_the_plain_algorithm_each_as_full(case):
    capacity, lengths = case
    rows, wanted = packed(lengths, capacity), plain_best_fit(lengths, capacity)
    assert sorted(number for row in rows for number in row) == list(range(len(lengths)))
    assert sorted(sum(lengths[n] for n in row) for row in rows) == sorted(sum(lengths[n] for n in row) for row in wanted)
    assert all(0 < sum(lengths[n] for n in row) <= capacity for row in rows)


DOCUMENTS = st.lists(st.integers(1, 60), max_size=60)


@given(DOCUMENTS, st.integers(8, 40))
def test_every_token_is_in_one_piece_and_no_row_is_too_long(documents, length):
    table, rows = plan(np.array(documents, np.int64), length)
    covered = np.zeros(sum(documents), int)
    room = np.full(rows, length)
    for row, first, tokens in zip(*(table[name].to_pylist() for name in PLAN.names)):
        covered[first : first + tokens] += 1
        room[row] -= tokens
    assert (covered == 1).all() and (room >= 0).all() and (room < length).all()
    assert room.sum() == rows * length - sum(documents)
    order = list(zip(table["row"].to_pylist(), table["first"].to_pylist()))
    assert order == sorted(order)


@given(DOCUMENTS, st.integers(8, 40))
def test_what_is_written_is_read_back(tmp_path_factory, documents, length):
    table, rows = plan(np.array(documents, np.int64), length)
    path = tmp_path_factory.getbasetemp() / "a.arrow"
    path.write_bytes(plan_bytes(table))
    assert pa.feather.read_table(str(path)).equals(table)  # Arrow's own reader
    found = PackingPlan(str(path), sum(documents), length, rows)
    pieces = [piece for row in range(rows) for piece in found.pieces_of(row)]
    assert pieces == list(zip(table["first"].to_pylist(), table["tokens"].to_pylist()))


GOOD = {"row": [0, 0, 1], "first": [0, 12, 6], "tokens": [6, 2, 6]}  # 14 tokens in two rows of 8


@pytest.mark.parametrize(
    "change",
    [
        {"first": [0, 11, 6]},
        {"first": [0, 1 << 40, 6]},
        {"row": [], "first": [], "tokens": []},
    ],
)
def test_plans_that_do_not_cover_their_shard_are_refused(tmp_path: Path, change: dict[str, list[int]]) -> None:
    path = tmp_path / "x.pack-8.arrow"
    path.write_bytes(plan_bytes(pa.table(GOOD, schema=PLAN)))
    PackingPlan(str(path), 14, 8, 2)
    path.write_bytes(plan_bytes(pa.table({**GOOD, **change}, schema=PLAN)))
    with pytest.raises(InputError, match=r"x\.pack-8\.arrow: this packing plan does not cover the 14 tokens of its shard in 2 rows of 8"):
        PackingPlan(str(path), 14, 8, 2)
