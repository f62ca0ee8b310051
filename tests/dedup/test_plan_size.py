"""Tests that a plan's size grows with the corpus and not with its square, although tasks read the files of all others."""

import os
import random

import pytest

from corpusmill.dedup import candidates
from corpusmill.dedup.inside import sections
from corpusmill.pipeline.manifest import MANIFEST

INSIDE = {"lines": {"scope": "host", "keep": "none", "min_share": 0.1}, "substrings": {"tokens": 20}, "url": {"enabled": True}}


@pytest.fixture(autouse=True)
def small_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes ranges and groups so small that their number grows with the number of shards."""
    monkeypatch.setattr(candidates, "TASK_KEYS", 100)
    monkeypatch.setattr(candidates, "GROUP_WORDS", 1_000)
    monkeypatch.setattr(sections, "RANGE_BYTES", 16_384)
    monkeypatch.setattr(os, "fsync", lambda _: None)


def shards(count: int) -> list[list[dict]]:  # type: ignore[type-arg]
    """Makes shards of eight documents, of which two have a near copy in the next shard; all share few hosts and a line."""
    found = []
    for shard in range(count):
        rows = []
        for number in range(8):
            draw = random.Random(1_000 * (shard // 2) + number if number < 2 else 10**6 + 8 * shard + number)
            words = [f"w{draw.randrange(10**6)}" for _ in range(60)] + ([f"{shard}"] if number < 2 else [])
            rows.append({"text": " ".join(words) + "\nThe same line in all of them.", "url": f"http://h{number % 3}/{shard}/{number}"})
        found.append(rows)
    return found


@pytest.mark.long
def test_rows_and_lists_grow_with_the_shards(dedup) -> None:  # type: ignore[no-untyped-def]
    size, ranges, listed = {}, {}, {}
    for count in (6, 18):
        result = dedup(shards(count), audit=0, **INSIDE)  # planted copies are as many in either
        storage, tasks = result.run.storage, result.run.manifest.tasks
        size[count] = storage.size(MANIFEST)
        ranges[count] = [sum(task.startswith(f"{name}-") for task in tasks) for name in (
            "candidates/buckets", "clusters/part", "lines/cut", "lines/host-totals", "substrings/repeated", "substrings/cut",
        )]  # fmt: skip
        listed[count] = sum(storage.size(output.path) for row in tasks.values() for output in row.outputs if "lists/" in output.path)
        assert len(result.data) == 7 * count and result.counts["clusters"] == count
        longest = max(len(row.inputs) for row in tasks.values() if not row.task.startswith(("lists/", "groups", "sources", "lines/top")))
        assert longest <= 8
    assert all(large > 2.5 * small > 4 for small, large in zip(ranges[6], ranges[18], strict=True)), ranges
    assert size[18] < 3.3 * size[6] and listed[18] < 3.3 * listed[6], (size, listed)
