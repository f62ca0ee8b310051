"""Tests Parquet of ids, read by Hugging Face `datasets`."""

import pytest

datasets = pytest.importorskip("datasets", reason="datasets is not installed")


@pytest.fixture
def load(tmp_path):
    return lambda *arguments, **options: datasets.load_dataset(*arguments, cache_dir=str(tmp_path / "cache"), **options)


def check(rows, documents):
    assert len(rows) == len(documents)
    for row, document in zip(rows, documents):
        assert (row["id"], row["url"], row["shard"], row["first"]) == (document.id, document.url, document.shard, document.first)
        assert row["input_ids"] == document.ids.tolist()


def test_the_folder_loads_with_its_splits(any_run, exported, load):
    data = load(str(exported(any_run, "parquet")))
    assert set(data) == {"train", "validation"}
    for split, rows in data.items():
        check(rows, any_run.documents(split))


def test_sequences_are_windows_of_the_shards(any_run, exported, load):
    length = 1000
    for split, rows in load(str(exported(any_run, "parquet", sequence_length=length))).items():
        shards = any_run.shards(split)
        assert rows["position"][:] == list(range(0, shards.total, length))
        for row in rows:
            assert row["input_ids"] == shards.window(row["position"], min(length, shards.total - row["position"])).tolist()
