"""Scores of many files: each text's own, in order, the same bytes each time, and nothing half written."""

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from trained_classifier import make_posts, write_classifier, write_jsonl

from corpusmill.filters.classifier import score as module
from corpusmill.filters.classifier.card import read_classifier
from corpusmill.filters.classifier.score import Scorer, load_heads, score_files
from corpusmill.pipeline.errors import InputError

POSTS = make_posts(3, 250)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classifier(tmp_path_factory.mktemp("classifier") / "posts", make_posts(1, 300))


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    write_jsonl(tmp_path / "a.jsonl", POSTS[:100])
    table = pa.table({"text": [post["text"] for post in POSTS[100:200]], "id": pa.array(range(100)), "more": [0] * 100})
    pq.write_table(table, tmp_path / "b.parquet", row_group_size=30)
    with gzip.open(tmp_path / "c.txt.gz", "wt") as file:
        file.write("".join(post["text"] + "\n" for post in POSTS[200:]))
    return [str(tmp_path / name) for name in ("a.jsonl", "b.parquet", "c.txt.gz")]


def test_each_text_has_its_scores(folder: Path, files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = score_files(folder, files, str(tmp_path / "out/scores.parquet"))
    table = pq.read_table(tmp_path / "out/scores.parquet")
    heads = load_heads(folder, read_classifier(folder))
    expected = Scorer(heads).score(pa.array([post["text"] for post in POSTS], pa.large_string()))
    for head, scores in zip(heads, expected):
        np.testing.assert_array_equal(table[f"{head.label}_score"].to_numpy(), scores.score)
        np.testing.assert_array_equal(table[f"{head.label}_raw"].to_numpy(), scores.raw)
        np.testing.assert_array_equal(table[f"{head.label}_share"].to_numpy(), scores.share)
        np.testing.assert_array_equal(table[head.label].to_numpy(), scores.score >= 0.4)
        assert counts[head.label] == (scores.score >= 0.4).sum() > 20
    assert counts["texts"] == 250 and counts["without_score"] == 0
    assert table["row"].to_pylist() == [*range(1, 101), *range(1, 101), *range(1, 51)]
    assert table["id"].to_pylist() == [*(post["id"] for post in POSTS[:100]), *map(str, range(100)), *[None] * 50]
    assert table["file"].unique().to_pylist() == files
    first = (tmp_path / "out/scores.parquet").read_bytes()
    monkeypatch.setattr(module, "TEXTS", 7)
    score_files(folder, files, str(tmp_path / "again.parquet"))
    assert (tmp_path / "again.parquet").read_bytes() == first


def test_texts_that_are_missing_have_no_score(folder: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"text": None}, {"text": ""}, POSTS[0]])
    counts = score_files(folder, [str(tmp_path / "a.jsonl")], str(tmp_path / "scores.parquet"))
    table = pq.read_table(tmp_path / "scores.parquet")
    assert table["rude_score"].null_count == table["rude"].null_count
    assert counts["texts"] == 3
    assert counts["without_score"] == table["rude"].null_count
    assert table["rude"][2].as_py() is not None


def test_row_groups_do_not_grow_with_the_files(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROW_GROUP_ROWS", 64)
    monkeypatch.setattr(module, "CHARACTERS", 500)
    write_jsonl(tmp_path / "a.jsonl", POSTS)
    score_files(folder, [str(tmp_path / "a.jsonl")], str(tmp_path / "scores.parquet"))
    metadata = pq.ParquetFile(tmp_path / "scores.parquet").metadata
    assert [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)] == [64, 64, 64, 58]


def test_no_text_at_all_is_a_file_without_rows(folder: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "none.parquet")
    assert score_files(folder, [str(tmp_path / "none.parquet")], str(tmp_path / "scores.parquet"))["texts"] == 0
    table = pq.read_table(tmp_path / "scores.parquet")
    assert table.num_rows == 0 and "spam_share" in table.column_names


def test_what_breaks_in_the_middle_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    rows = "".join(json.dumps(post) + "\n" for post in POSTS)
    (tmp_path / "bad.jsonl").write_text(rows + "{broken\n")
    with pytest.raises(InputError, match=r"bad\.jsonl:251: not JSON"):
        score_files(folder, [str(tmp_path / "bad.jsonl")], str(tmp_path / "scores.parquet"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.jsonl"]


@pytest.mark.parametrize(
    ("row", "sentence"),
    [({"body": "x"}, "has no column 'text'"), ({"text": 5}, "'text' is no text"), ({"text": ["x"]}, "'text' is no text")],
)
def test_bad_texts_are_one_sentence(folder: Path, tmp_path: Path, row: dict, sentence: str) -> None:
    write_jsonl(tmp_path / "bad.jsonl", [POSTS[0], row])
    with pytest.raises(InputError, match=rf"bad\.jsonl:2: {sentence}"):
        score_files(folder, [str(tmp_path / "bad.jsonl")], str(tmp_path / "scores.parquet"))


def test_the_scores_never_replace_what_is_scored(folder: Path, files: list[str]) -> None:
    with pytest.raises(InputError, match="is one of the files to score"):
        score_files(folder, files, files[1])
