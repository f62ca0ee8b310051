from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.dedup import candidates
from corpusmill.dedup.candidates import buckets, exact_groups, in_part, plan_parts

ROWS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2), st.integers(0, 2)), max_size=30)


@settings(deadline=None)
@given(ROWS)
def test_exact_groups_name_the_first_of_equal_hashes(rows: list[tuple[int, int, int]]) -> None:
    hashes = np.array(rows, np.uint64).reshape(-1, 3)[:, :2]
    document, first = exact_groups(hashes, np.arange(len(rows)) * 10)
    groups = defaultdict(list)
    for i, row in enumerate(rows):
        groups[row[:2]].append(i * 10)
    expected = sorted((d, min(g)) for g in groups.values() if len(g) > 1 for d in g)
    assert list(zip(document.tolist(), first.tolist(), strict=True)) == expected


@settings(deadline=None)
@given(ROWS)
def test_buckets_hold_one_of_each_text_and_at_least_two(rows: list[tuple[int, int, int]]) -> None:
    table = np.array(rows, np.uint64).reshape(-1, 3)
    bucket, document = buckets(table[:, 0], table[:, 1:], np.arange(len(rows)) * 10)
    slow: dict[int, dict[tuple[int, int], int]] = defaultdict(dict)
    for i, row in enumerate(rows):
        slow[row[0]].setdefault(row[1:], i * 10)
    expected = sorted(sorted(texts.values()) for texts in slow.values() if len(texts) > 1)
    found = sorted(document[bucket == b].tolist() for b in range(bucket.max(initial=-1) + 1))
    assert found == expected
    assert (np.diff(bucket) >= 0).all()


def test_parts_cover_every_key_once(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = np.array([0, 1, 2**32, 2**63, 2**64 - 1, 0x5555555555555555], np.uint64)
    assert sum(in_part(keys, part, 3).astype(int) for part in range(3)).tolist() == [1] * 6
    assert [p.columns for p in plan_parts(100, 3, True)] == [("exact",), ("band_000", "band_001", "band_002")]
    monkeypatch.setattr(candidates, "TASK_KEYS", 50)
    parts = plan_parts(100, 2, False)
    assert [(p.columns, p.part, p.parts) for p in parts] == [
        (("band_000",), 0, 2), (("band_000",), 1, 2), (("band_001",), 0, 2), (("band_001",), 1, 2),
    ]  # fmt: skip
    assert plan_parts(0, 0, True)[0].parts == 1
