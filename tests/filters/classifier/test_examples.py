"""Tests the rows of every kind of file, with their labels, and the specification that names them."""

import gzip
import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from labelled_texts import write_jsonl

from corpusmill.filters.classifier.corpora import drawn
from corpusmill.filters.classifier.examples import cut, gather_examples
from corpusmill.filters.classifier.spec import read_spec

ROWS = [{"text": "knead the dough", "label": 1}, {"text": "saw the plank", "label": 0}, {"text": "zażółć gęślą jaźń", "label": None}]


def spec_of(folder: Path, *sources: dict, **options):
    (folder / "spec.yaml").write_text(json.dumps({"name": "kitchen", "sources": sources, **options}))  # JSON is YAML
    return read_spec([str(folder / "spec.yaml")])


def rows_of(folder: Path, source: dict) -> list[dict]:
    found = gather_examples(spec_of(folder, source).sources, ["kitchen"]).table
    return found.select(["text", "kitchen"]).to_pylist()


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.parquet", "a.csv"])
def test_one_table_in_every_format(tmp_path, name):
    content = ("\n".join(map(json.dumps, ROWS)) + "\n\n").encode()
    if name == "a.parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / name)
    elif name == "a.csv":
        (tmp_path / name).write_text("text,label\nknead the dough,1\nsaw the plank,0\nzażółć gęślą jaźń,\n")
    else:
        packed = {"gz": gzip.compress, "zst": zstandard.compress}[name.rsplit(".")[-1]](content)
        (tmp_path / name).write_bytes(packed)
    spec = read_spec([str(tmp_path / name)], name="kitchen")
    found = gather_examples(spec.sources, spec.labels)
    assert found.table.select(["text", "kitchen"]).to_pylist() == [
        {"text": "knead the dough", "kitchen": 1},
        {"text": "saw the plank", "kitchen": 0},
    ]
    (report,) = found.sources
    assert (report.rows, report.unknown, report.unanswered, report.examples) == (3, 1, 1, 2)
    digest = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    assert report.files == [{"name": name, "bytes": (tmp_path / name).stat().st_size, "sha256": digest}]


def test_a_value_means_what_the_source_says(tmp_path):
    for value, answer in ((True, 1), (0.0, 0), ("yes", 1), ("no", 0), ("kitchen", 1), (None, None)):
        write_jsonl(tmp_path / "a.jsonl", [{"text": "a", "label": value}, {"text": "b", "label": 1}])
        found = {row["text"]: row["kitchen"] for row in rows_of(tmp_path, {"files": ["a.jsonl"]})}
        assert found.get("a") == answer
    write_jsonl(tmp_path / "b.jsonl", [{"text": "a", "kind": "good"}, {"text": "b", "kind": "so-so"}, {"text": "c", "kind": "bad"}])
    source = {"files": ["b.jsonl"], "label_column": "kind"}
    assert [row["kitchen"] for row in rows_of(tmp_path, {**source, "positive": "bad"})] == [0, 0, 1]
    values = {"good": {"kitchen": 1}, "so-so": {}, "bad": {"kitchen": 0}}
    assert [row["kitchen"] for row in rows_of(tmp_path, {**source, "values": values})] == [1, 0]


def test_a_column_comes_before_what_the_whole_source_says(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", [{"text": "a", "k": 0}, {"text": "b", "k": None}])
    assert [row["kitchen"] for row in rows_of(tmp_path, {"files": ["a.jsonl"], "answers": {"kitchen": 1}})] == [1, 1]
    source = {"files": ["a.jsonl"], "label_columns": {"kitchen": "k"}, "answers": {"kitchen": 1}}
    assert [row["kitchen"] for row in rows_of(tmp_path, source)] == [0, 1]


def test_a_limit_draws_by_the_text_and_not_by_its_place(tmp_path):
    texts = [f"text {number}" for number in range(200)]
    by_hash = sorted(texts, key=lambda text: xxhash.xxh3_64_intdigest(text.encode(), 1))[:20]
    for order in (texts, texts[::-1]):
        for name, part in (("a.jsonl", order[:90]), ("b.jsonl", order[90:])):
            write_jsonl(tmp_path / name, [{"text": text, "label": 1} for text in part])
        found = rows_of(tmp_path, {"files": ["a.jsonl", "b.jsonl"], "limit": 20})
        assert [row["text"] for row in found] == [text for text in order if text in by_hash]
    assert [texts[place] for place in drawn(texts, 20, 1)] == sorted(by_hash, key=texts.index)


def test_documents_are_numbered_across_sources(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", [{"text": "one two three four five six seven", "label": 1}, {"text": "eight nine", "label": 0}])
    write_jsonl(tmp_path / "b.jsonl", [{"text": "ten eleven", "label": 0}])
    spec = spec_of(tmp_path, *({"files": [name], "pieces": 20} for name in ("a.jsonl", "b.jsonl")))
    assert gather_examples(spec.sources, spec.labels).table.select(["text", "source", "document"]).to_pylist() == [
        {"text": "one two three four", "source": "a.jsonl", "document": 0},
        {"text": "five six seven", "source": "a.jsonl", "document": 0},
        {"text": "eight nine", "source": "a.jsonl", "document": 1},
        {"text": "ten eleven", "source": "b.jsonl", "document": 2},
    ]


@given(text=st.text(alphabet="ab \n", max_size=200), size=st.integers(20, 60))
def test_pieces_hold_the_text_in_order(text, size):
    pieces, document = cut([text], size)
    assert document == [0] * len(pieces) and all(0 < len(piece) <= size for piece in pieces)
    at = 0
    for piece in pieces:
        at = text.index(piece, at) + len(piece)
    joined, whole = "".join("".join(pieces).split()), "".join(text.split())
    assert whole.startswith(joined) and len(whole) - len(joined) < 0.2 * size  # a short rest is left out
    assert all(piece == piece.strip() for piece in pieces)
