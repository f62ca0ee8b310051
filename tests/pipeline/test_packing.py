"""Tests documents packed into rows: best fit against a slow version, and the plan of a shard."""

import bisect
import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.packing import best_fit, cut, plan
from corpusmill.pipeline.token_shards import PLAN, PackingPlan, plan_bytes, plan_name


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


@given(st.lists(st.integers(1, 16), max_size=60))
def test_rows_are_few(lengths):
    """At most 11/9 of the optimum plus one is proved for decreasing best fit (Johnson 1973); both bounds are at most the optimum."""
    optimum = max(-(-sum(lengths) // 16), sum(length > 8 for length in lengths))
    assert len(packed(lengths, 16)) <= 11 / 9 * (optimum + 1) + 1


def test_a_large_case_equals_the_plain_algorithm():
    lengths = np.random.default_rng(0).geometric(1 / 700, 20_000).clip(1, 2048)
    row, rows = best_fit(lengths, 2048)
    wanted = plain_best_fit(lengths.tolist(), 2048)
    assert rows == len(wanted)
    assert sorted(np.bincount(row, lengths).astype(int)) == sorted(sum(lengths[n] for n in items) for items in wanted)


def test_as_many_rows_as_trl():
    pytest.importorskip("trl")
    import pyarrow as pa
    from datasets import Dataset
    from trl import pack_dataset

    from corpusmill.pipeline.packing import plan

    documents = np.random.default_rng(3).lognormal(4, 1.2, 2000).astype(np.int64) + 1
    lists = pa.LargeListArray.from_arrays(np.concatenate(([0], np.cumsum(documents))), np.arange(documents.sum()))
    options = {"batch_size": len(documents), "keep_in_memory": True, "load_from_cache_file": False}
    packed = pack_dataset(Dataset(pa.table({"input_ids": lists})), 128, "bfd_split", options)
    table, rows = plan(documents, 128)
    ours = np.bincount(table["row"].to_numpy(), table["tokens"].to_numpy()).astype(int)
    assert rows == len(packed) and sorted(ours) == sorted(map(len, packed["input_ids"]))


def test_the_fullest_row_with_room_is_taken():
    assert packed([5, 9, 7, 10, 6, 3], 16) == [[3, 4], [1, 2], [0, 5]]


def test_no_items_need_no_rows():
    row, rows = best_fit(np.zeros(0, np.int64), 8)
    assert len(row) == rows == 0


@pytest.mark.parametrize("wrong", [0, -3, 17])
def test_what_does_not_fit_is_refused(wrong):
    with pytest.raises(ValueError, match=f"{wrong} places does not fit into rows of 16"):
        best_fit(np.array([4, wrong]), 16)


DOCUMENTS = st.lists(st.integers(1, 60), max_size=60)


@given(DOCUMENTS, st.integers(8, 40))
def test_documents_are_cut_into_whole_rows_and_what_remains(documents, length):
    first, sizes = cut(np.array(documents, np.int64), length)
    wanted, place = [], 0
    for tokens in documents:
        wanted += [(place + begin, min(length, tokens - begin)) for begin in range(0, tokens, length)]
        place += tokens
    assert list(zip(first.tolist(), sizes.tolist())) == wanted


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


def test_equal_documents_give_equal_bytes():
    documents = np.random.default_rng(0).integers(1, 5000, 3000)
    found = {hashlib.sha256(plan_bytes(plan(documents, 2048)[0])).hexdigest() for _ in range(3)}
    assert len(found) == 1 and plan_name("tokens-00007.bin", 2048) == "tokens-00007.pack-2048.arrow"


def test_little_is_wasted_on_documents_of_all_sizes():
    documents = np.random.default_rng(1).lognormal(6.5, 1.2, 20_000).astype(np.int64) + 1
    rows = plan(documents, 2048)[1]
    assert 1 - documents.sum() / (rows * 2048) < 0.001


GOOD = {"row": [0, 0, 1], "first": [0, 12, 6], "tokens": [6, 2, 6]}  # 14 tokens in two rows of 8


@pytest.mark.parametrize(
    "change",
    [
        {"first": [0, 11, 6]},
        {"tokens": [6, 1, 6]},
        {"tokens": [6, 3, 6]},
        {"first": [0, 12, 5], "tokens": [6, 2, 7]},
        {"row": [0, 1, 0]},
        {"row": [0, 0, 2]},
        {"row": [1, 1, 2]},
        {"row": [0, 0, 0]},
        {"first": [0, 1 << 40, 6]},
        {"first": [0, 12, -6]},
        {"first": [0, 12, 6], "tokens": [6, 2, 0]},
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


def test_what_is_no_plan_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "x.arrow"
    path.write_bytes(b"ARROW1 not quite")
    with pytest.raises(InputError, match=r"x\.arrow: not a readable packing plan"):
        PackingPlan(str(path), 1, 8, 1)
    with pa.ipc.new_file(str(path), pa.schema({"a": pa.int8()})) as writer:
        writer.write_table(pa.table({"a": pa.array([1], pa.int8())}))
    with pytest.raises(InputError, match="not a packing plan"):
        PackingPlan(str(path), 1, 8, 1)
