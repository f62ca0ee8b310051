"""Tests the merge of files that many tasks read, in runs of many shards: fewer files are opened, and nothing else differs."""

import os
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corpusmill.dedup import candidates, cluster_table, external_sort
from corpusmill.dedup.corpus import open_batches
from corpusmill.dedup.external_sort import KeyMergeWorker, keys_bytes, read_keys
from corpusmill.pipeline.config import Config
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.shards import publish
from corpusmill.pipeline.stage import Task
from corpusmill.pipeline.storage import Storage

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


def opened(monkeypatch: pytest.MonkeyPatch, module, name: str) -> Counter[str]:  # type: ignore[no-untyped-def, type-arg]
    """Counts, from now on, how often functions of that module open each file, by folder and kind."""
    found: Counter[str] = Counter()
    function = getattr(module, name)

    def counted(run: Storage, path: str, *more):  # type: ignore[no-untyped-def]
        found[path.rpartition("-")[0]] += 1
        return function(run, path, *more)

    monkeypatch.setattr(module, name, counted)
    return found


def test_less_is_opened_and_the_results_are_the_same_bytes(dedup, tree, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    plain = dedup(shards(1), **CONFIG).run
    expected = results(Path(plain.storage.root), tree)
    assert not any(task.startswith("merged/") for task in plain.manifest.tasks) and sum("clusters/part" in name for name in expected) > 3
    merge_early(monkeypatch)
    of_keys, of_tables = opened(monkeypatch, external_sort, "open_batches"), opened(monkeypatch, cluster_table, "open_parquet")
    result = dedup(shards(1), **CONFIG)
    assert all(result.counts[kind] > 3 for kind in ("url", "exact", "near"))
    assert results(Path(result.run.storage.root), tree) == expected
    tasks = Counter(task.rpartition("-")[0] for task in result.run.manifest.tasks)
    kinds = {"bands": "buckets", "exact": "exact", "url": "url"}
    expected_tasks = dict.fromkeys((*kinds, "gathered", "clusters"), MERGED)
    assert {name: tasks[f"merged/{name}"] for name in expected_tasks} == expected_tasks
    read = {kind: of_keys[f"dedup/merged/{kind}"] for kind in kinds}
    assert read == {kind: MERGED * tasks[f"candidates/{name}"] for kind, name in kinds.items()}
    assert of_keys["dedup/keys/part"] == len(kinds) * SHARDS
    readers = 3  # the lines' hosts and counts, and the last phase
    del of_tables["filter/data/part"]
    assert of_tables == {"dedup/clusters/part": MERGED * tasks["clusters/part"], "dedup/merged/clusters": readers * SHARDS}


def test_earlier_runs_are_merged_with_this_one(dedup, tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    """The co-located files of earlier runs have a column that those of this run lack."""
    found = []
    for name in ("plain", "merged"):
        index = {"path": str(tmp_path / name), "earlier": "fixed"}
        with monkeypatch.context() as patch:
            if name == "merged":
                merge_early(patch)
            dedup(shards(1, 3), index=index | {"name": "one"}, keep="length", exact={"normalisation": "none"})
            result = dedup(shards(2), index=index | {"name": "two"}, keep="longest", exact={"normalisation": "none"})
        assert any(row["kept_in"] == "one" for row in result.clusters)
        assert (result.run.manifest.tasks.get("merged/gathered-00003") is not None) == (name == "merged")  # 13 files
        found.append(results(Path(result.run.storage.root), tree) | tree(tmp_path / name))
    assert found[0] == found[1]


POWERS = st.integers(0, 7).map(lambda n: 2**n)
KEY = st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 2**57, 2**57 - 1, 2**63 - 1, 2**63, 2**64 - 1])


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(KEY, max_size=60), POWERS, POWERS)
def test_each_key_is_read_once_whatever_the_ranges(tmp_path: Path, keys: list[int], batch: int, read: int) -> None:
    array = np.array(keys, np.uint64)
    rows = np.arange(len(keys), dtype=np.uint32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(external_sort, "BATCH_KEYS", batch)
        (tmp_path / "k.arrow").write_bytes(keys_bytes(array, array ^ np.uint64(5), rows))
    found = []
    for part in range(read):
        key, check, row = read_keys(Storage(str(tmp_path)), "k.arrow", part, read)
        assert all(k * read >> 64 == part for k in key.tolist())
        assert (check == key ^ np.uint64(5)).all() and row.dtype == np.int64
        found += list(zip(key.tolist(), row.tolist(), strict=True))
    assert sorted(found) == sorted(zip(keys, range(len(keys)), strict=True))


@pytest.mark.parametrize("parts", [1, 32])
def test_each_part_of_merged_keys_is_those_of_the_files_one_behind_the_other(parts: int, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(external_sort, "BATCH_KEYS", 8)
    monkeypatch.setattr(external_sort, "BLOCK_BYTES", 2_000)
    run, draw, sizes = Storage(str(tmp_path)), np.random.default_rng(parts), [0, 300, 5, 64]
    starts, files = np.cumsum([0, *sizes])[:-1].tolist(), []
    for number, size in enumerate(sizes):
        key = draw.integers(0, 2**64, size, np.uint64)
        output = publish(run, f"{number}.arrow", keys_bytes(key, key + np.uint64(1), np.arange(size, dtype=np.uint32)))
        files.append(FileRef(output.path, output.sha256, output.bytes))
    task = Task("merged/bands-00000", tuple(files), {"ranges": parts, "starts": starts})
    publish(run, "m.arrow", KeyMergeWorker(Config(), run, {}).process(task).files["merged/bands-00000.arrow"])
    with open_batches(run, "m.arrow") as reader:
        assert reader.num_record_batches == parts
    for part in range(parts):
        several = [read_keys(run, ref.path, part, parts) for ref in files]
        key, check, row = read_keys(run, "m.arrow", part, parts)
        assert key.tolist() == np.concatenate([one[0] for one in several]).tolist()
        assert (check == key + np.uint64(1)).all()
        assert row.tolist() == np.concatenate([one[2] + start for one, start in zip(several, starts, strict=True)]).tolist()
