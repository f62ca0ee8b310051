"""Tests inputs that are too large, too small, or broken."""

import os
from pathlib import Path

import pytest
from stage_runs import again

from corpusmill.dedup import candidates
from corpusmill.dedup.stage import DedupStage
from corpusmill.pipeline.errors import CorpusmillError, InputError

ALL = {"url": {"enabled": True}}


def near_copies(count: int) -> list[dict]:  # type: ignore[type-arg]
    texts = [" ".join([f"f{i // 4}x{j}" for j in range(50)]) + " more" * (i % 4) for i in range(count)]
    return [{"text": text, "url": f"http://h/{i}", "offset": i} for i, text in enumerate(texts)]


@pytest.mark.parametrize(
    "config",
    [{}, {**ALL, "lines": {}, "substrings": {}}, {"exact": {"enabled": False}, "verification": "estimate", "lines": {"scope": "host"}}],
)
def test_none_one_and_empty_documents(config: dict, dedup) -> None:  # type: ignore[no-untyped-def, type-arg]
    for shards in ([], [[]], [[], [], []]):
        result = dedup(shards, **config)
        assert result.report == [] and result.sources == [] and result.counts["clusters"] == 0
    result = dedup([[], ["one\ndocument\n"], []], **config)
    assert result.kept == ["one\ndocument\n"] and result.report[0]["cluster_size"] == 1
    empty = [{"text": text, "url": f"u/{i}"} for i, text in enumerate(["", "", " ", "\n\t"])]
    result = dedup([empty[:2], empty[2:]], **config)
    assert len(result.kept) == (4 if config.get("exact") else 1)


def test_a_long_document_beside_short_ones(dedup) -> None:  # type: ignore[no-untyped-def]
    long = " ".join(f"w{i * 7919 % 1_000_003}" for i in range(30_000))
    rows = [{"text": long, "url": "1"}, {"text": long + " end", "url": "2"}, {"text": long[: len(long) // 2], "url": "3"}, *near_copies(8)]
    result = dedup([rows[:4], rows[4:]])
    assert [row["url"] for row in result.data[:2]] == ["2", "3"] and len(result.kept) == 4
    assert result.report[0]["similarity"] == (30_000 - 4) / (30_001 - 4)


PATTERNS = ["signatures/*.parquet", "keys/*.url.arrow", "candidates/buckets-*", "colocated/*", "clusters/part-*", "report/*"]


@pytest.fixture
def several_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "GROUP_WORDS", 1_500)


@pytest.mark.usefixtures("several_groups")
def test_a_finished_run_does_nothing_and_a_file_that_was_cut_is_made_again(dedup, tree) -> None:  # type: ignore[no-untyped-def]
    run = dedup([near_copies(12), near_copies(9)], **ALL).run
    folder = Path(run.storage.root)
    assert again(run).performed == 0
    before = tree(folder)
    for pattern in PATTERNS:
        file = sorted(folder.glob(pattern))[0]
        os.truncate(file, file.stat().st_size // 2)
        assert again(run).performed == 1
        assert tree(folder) == before, pattern


@pytest.mark.usefixtures("several_groups")
@pytest.mark.parametrize("pattern", ["signatures/*", "keys/*", "colocated/*"])
def test_a_damaged_working_file_is_one_sentence(pattern: str, dedup) -> None:  # type: ignore[no-untyped-def]
    """The damaged file keeps its size, so its damage is only found on reading; the phases that follow it are done again."""
    run = dedup([near_copies(12), near_copies(9)], **ALL).run
    folder = Path(run.storage.root)
    for file in folder.glob(pattern):
        file.write_bytes(b"\0" * file.stat().st_size)
    order = ["signatures", "candidates", "groups", "colocated", "clusters", "data"]
    begin = order.index("signatures" if pattern.startswith("keys") else pattern.partition("/")[0])
    for later in order[begin + 1 :]:
        for file in folder.glob(f"{later}/*"):
            file.unlink()
    with pytest.raises(CorpusmillError) as error:
        again(run)
    sentence = str(error.value)
    assert "\n" not in sentence and str(pattern.partition("/")[0]) in sentence


def test_a_shard_that_lacks_a_column_or_is_none_is_named(dedup) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=r"filter/data/part-00000\.parquet: has no column 'score', which dedup needs"):
        dedup([["text"]], keep=["longest", "score * 2"])
    with pytest.raises(InputError, match=r"'title \* 2' can't be computed from columns of these types"):
        dedup([[{"text": "a", "title": "t", "url": "1"}, {"text": "a", "title": "t", "url": "2"}]], keep="title * 2")
    run = dedup([["text"]]).run
    Path(run.run.path("filter/data/part-00000.parquet")).write_bytes(b"no parquet")
    with pytest.raises(InputError, match=r"filter/data/part-00000\.parquet: this file is not the one that was written"):
        again(run, stage=DedupStage(DedupStage.Config(minhash={"seed": 5})))
