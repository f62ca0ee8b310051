from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.dedup.inside.sections import gather, groups, pack, plan_ranges, range_bounds, read_section, split
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.storage import Storage

KEYS = st.lists(st.integers(0, 2**64 - 1) | st.sampled_from([0, 2**63, 2**64 - 1]), max_size=20)


@given(KEYS, st.integers(1, 9))
def test_ranges_part_the_numbers_evenly(keys: list[int], ranges: int) -> None:
    ordered = np.array(sorted(keys), np.uint64)
    bounds = range_bounds(ordered, ranges)
    assert bounds[0] == 0 and bounds[-1] == len(keys) and len(bounds) == ranges + 1
    for part in range(ranges):
        assert all(key * ranges >> 64 == part for key in ordered[bounds[part] : bounds[part + 1]].tolist())


@given(KEYS)
def test_groups_of_equal_keys(keys: list[int]) -> None:
    array = np.array(keys, np.uint64)
    order, begins = groups(array)
    assert sorted(order.tolist()) == list(range(len(keys)))
    found = [set(array[order[a:b]].tolist()) for a, b in zip(begins, [*begins[1:], len(keys)], strict=False)]
    assert [one for (one,) in found] == sorted(set(keys))


def test_files_of_sections_are_read_by_section(tmp_path: Path) -> None:
    run, dtype = Storage(str(tmp_path)), np.dtype([("key", "<u8"), ("times", "u1")])
    records = np.array([(5, 1), (6, 2), (7, 1)], dtype)
    run.write_bytes("a", pack([records[:0], records[:2], records[2:]]))
    run.write_bytes("b", pack([records[1:], records[:0], records[:1]]))
    assert [read_section(run, "a", i, dtype).tolist() for i in range(3)] == [[], [(5, 1), (6, 2)], [(7, 1)]]
    assert [read_section(run, "b", i, dtype).tolist() for i in range(3)] == [[(6, 2), (7, 1)], [], [(5, 1)]]
    found, bounds = gather(run, ["a", "b"], 2, dtype)
    assert found.tolist() == [(7, 1), (5, 1)] and [part.tolist() for part in split(found, bounds)] == [[(7, 1)], [(5, 1)]]


def test_the_number_of_ranges_follows_the_size() -> None:
    assert plan_ranges([]) == plan_ranges([FileRef("a", "", 1)]) == 1
    assert plan_ranges([FileRef("a", "", 128 << 20), FileRef("b", "", 1)]) == 2
    assert plan_ranges([FileRef("a", "", 128 << 20)], 4) == 4
