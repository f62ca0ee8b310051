from collections import defaultdict

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.dedup.candidates import buckets, candidate_pieces, equal_keys
from corpusmill.dedup.external_sort import BAND_KEYS
from corpusmill.pipeline.manifest import FileRef

ROWS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), max_size=30)


def columns(rows: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    table = np.array(rows, np.uint64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


@settings(deadline=None)
@given(ROWS, st.randoms(use_true_random=False))
def test_groups_are_of_equal_keys_and_named_by_their_first(rows: list[tuple[int, int]], shuffle) -> None:  # type: ignore[no-untyped-def]
    documents = [10 * i for i in range(len(rows))]
    shuffle.shuffle(documents)
    first, document = equal_keys(*columns(rows), np.array(documents, np.int64))
    groups = defaultdict(list)
    for row, d in zip(rows, documents, strict=True):
        groups[row].append(d)
    expected = sorted((min(g), d) for g in groups.values() if len(g) > 1 for d in g)
    assert list(zip(first.tolist(), document.tolist(), strict=True)) == expected


@settings(deadline=None)
@given(ROWS, st.randoms(use_true_random=False))
def test_buckets_hold_the_first_of_each_text_and_at_least_two(rows: list[tuple[int, int]], shuffle) -> None:  # type: ignore[no-untyped-def]
    documents = [10 * i for i in range(len(rows))]
    shuffle.shuffle(documents)
    bucket, document = buckets(*columns(rows), np.array(documents, np.int64))
    slow: dict[int, dict[int, int]] = defaultdict(dict)
    for (key, text), d in zip(rows, documents, strict=True):
        slow[key][text] = min(d, slow[key].get(text, d))
    shared = [sorted(texts.values()) for texts in slow.values() if len(texts) > 1]
    found = [document[bucket == b].tolist() for b in range(bucket.max(initial=-1) + 1)]
    assert sorted(found) == sorted(shared)
    assert (np.diff(bucket) >= 0).all()
    assert [members[0] for members in found] == sorted(members[0] for members in found)


def test_a_task_reads_one_range_of_all_files() -> None:
    keys = FileRef("dedup/lists/keys-bands.files.json", "5ad0")
    pieces = candidate_pieces(BAND_KEYS, keys, 4, True)
    assert [piece.key for piece in pieces] == [f"candidates/buckets-{part:05d}" for part in range(4)]
    for part, piece in enumerate(pieces):
        assert piece.inputs == (keys,) and piece.params == {"kind": BAND_KEYS, "parts": 4, "part": part, "collapse": True}
