"""Tests the merge of files that many tasks read, in runs of many shards: the results are the same."""

import os
import random
from collections import Counter
from pathlib import Path

import pytest

from corpusmill.dedup import candidates, external_sort

SHARDS, FAN_IN, MERGED = 10, 4, 3
CONFIG = {"url": {"enabled": True}, "keep": ["longest", "first"], "lines": {"scope": "host", "keep": "none", "min_share": 0.1}}


@pytest.fixture(autouse=True)
def small_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes ranges and groups so small that there are several of each."""
    monkeypatch.setattr(candidates, "TASK_KEYS", 20)
    monkeypatch.setattr(candidates, "GROUP_WORDS", 500)
    monkeypatch.setattr(os, "fsync", lambda _: None)


def merge_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external_sort, "FAN_IN", FAN_IN)
    monkeypatch.setattr(external_sort, "FEW", 1)
    monkeypatch.setattr(external_sort, "BLOCK_BYTES", 4_096)  # keys and groups come in several blocks
    monkeypatch.setattr(external_sort, "BLOCK_WORDS", 1_000)


def shards(seed: int, count: int = SHARDS) -> list[list[dict]]:  # type: ignore[type-arg]
    """Makes shards of 0 to 8 documents: near and exact copies in other shards, captures of one address, a line that all have."""
    draw = random.Random(seed)
    found: list[list[dict]] = [[] for _ in range(count)]  # type: ignore[type-arg]
    for number in range(4 * count):
        family = draw.randrange(2 * count)
        words = [f"f{family}x{i}" for i in range(50)] + [f"n{draw.randrange(3)}"]
        row = {"text": " ".join(words) + "\nThe same line in all of them.", "url": f"http://h{family % 3}/{draw.randrange(3 * count)}"}
        found[draw.randrange(1, count)].append(row | {"offset": number})
    return found


def results(folder: Path, tree) -> dict[str, str]:  # type: ignore[no-untyped-def]
    kinds = ("data", "report", "clusters", "earlier")
    return {f"{kind}/{name}": content for kind in kinds for name, content in tree(folder / kind).items()}


def test_files_of_many_shards_are_merged_and_the_results_are_the_same_bytes(dedup, tree, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    plain = dedup(shards(1), **CONFIG).run
    expected = results(Path(plain.storage.root), tree)
    assert not any(task.startswith("merged/") for task in plain.manifest.tasks) and sum("clusters/part" in name for name in expected) > 3
    merge_early(monkeypatch)
    result = dedup(shards(1), **CONFIG)
    assert all(result.counts[kind] > 3 for kind in ("url", "exact", "near"))
    assert results(Path(result.run.storage.root), tree) == expected
    tasks = Counter(task.rpartition("-")[0] for task in result.run.manifest.tasks)
    names = ("bands", "exact", "url", "colocated", "clusters")
    assert {name: tasks[f"merged/{name}"] for name in names} == dict.fromkeys(names, MERGED)


def test_earlier_runs_are_merged_with_this_one(dedup, tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    """The co-located files of earlier runs have a column that those of this run lack."""
    monkeypatch.setattr(candidates, "TASK_KEYS", 100)
    found = []
    for name in ("plain", "merged"):
        index = {"path": str(tmp_path / name), "earlier": "fixed"}
        with monkeypatch.context() as patch:
            if name == "merged":
                merge_early(patch)
            dedup(shards(1, 2), index=index | {"name": "one"}, keep="length", exact={"normalisation": "none"})
            result = dedup(shards(2, 4), index=index | {"name": "two"}, keep="longest", exact={"normalisation": "none"})
        assert any(row["kept_in"] == "one" for row in result.clusters)
        assert (result.run.manifest.tasks.get("merged/colocated-00001") is not None) == (name == "merged")  # 6 files
        found.append(results(Path(result.run.storage.root), tree) | tree(tmp_path / name))
    assert found[0] == found[1]
