"""Tests the rows of every kind of file, with their labels."""

import gzip
import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from labelled_texts import write_jsonl
from tiny_crawl import make_rows

from corpusmill.filters.classifier.corpora import drawn
from corpusmill.filters.classifier.examples import cut, gather_examples
from corpusmill.filters.classifier.spec import ExampleSource as Source
from corpusmill.filters.classifier.spec import PieceLength
from corpusmill.pipeline.engine import InlineEngine
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.run import execute, new_plan
from corpusmill.pipeline.watch.progress import Progress

ROWS = [{"text": "knead the dough", "label": 1}, {"text": "saw the plank", "label": 0}, {"text": "zażółć gęślą jaźń", "label": None}]


def rows_of(source, folder, labels=("kitchen",)):
    found = gather_examples([source], folder, labels).table
    return found.select(["text", *labels]).to_pylist()


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.parquet"])
def test_one_table_in_every_format(tmp_path, name):
    content = ("\n".join(map(json.dumps, ROWS)) + "\n\n").encode()
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / name)
    else:
        packed = {"gz": gzip.compress, "zst": zstandard.compress}.get(name.rsplit(".")[-1], bytes)(content)
        (tmp_path / name).write_bytes(packed)
    found = gather_examples([Source(files=(name,), label_column="label")], tmp_path, ("kitchen",))
    assert found.table.select(["text", "kitchen"]).to_pylist() == [
        {"text": "knead the dough", "kitchen": 1},
        {"text": "saw the plank", "kitchen": 0},
    ]
    (report,) = found.sources
    assert (report.rows, report.unknown, report.unanswered, report.examples) == (3, 1, 1, 2)
    assert report.files == [{"name": name, "bytes": (tmp_path / name).stat().st_size, "sha256": sha256(tmp_path / name)}]


def sha256(path):
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_text_files_are_lines_where_they_are_named_and_documents_in_a_folder(tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("one\ntwo\n")
    (tmp_path / "texts" / "b.txt").write_bytes("\ufeffthree".encode())
    (tmp_path / "texts" / "notes.log").write_text("not an example")
    one = {"answers": {"kitchen": 1}}
    assert [row["text"] for row in rows_of(Source(files=("texts",), **one), tmp_path)] == ["one\ntwo\n", "three"]
    assert [row["text"] for row in rows_of(Source(files=("texts/a.txt",), **one), tmp_path)] == ["one", "two"]
    assert [row["text"] for row in rows_of(Source(files=("texts/a.txt",), format="documents", **one), tmp_path)] == ["one\ntwo\n"]
    assert [row["text"] for row in rows_of(Source(files=("texts/*.txt",), format="lines", **one), tmp_path)] == [
        "one",
        "two",
        "three",
    ]


def test_what_the_values_of_one_label_mean(tmp_path):
    for value, answer in ((True, 1), (0.0, 0), ("yes", 1), ("no", 0), ("kitchen", 1), (None, None)):
        write_jsonl(tmp_path / "a.jsonl", [{"text": "a", "label": value}, {"text": "b", "label": 1}])
        found = {row["text"]: row["kitchen"] for row in rows_of(Source(files=("a.jsonl",), label_column="label"), tmp_path)}
        assert found.get("a") == answer


def test_columns_come_before_word_lists_and_those_before_what_the_whole_source_says(tmp_path):
    (tmp_path / "words").write_text("dough\nPlank\n\n")
    texts = ["Knead the DOUGH", "saw the planks", "saw the plank.", "nothing", "dough, but not here"]
    write_jsonl(tmp_path / "a.jsonl", [{"text": text, "k": 0 if "not here" in text else None} for text in texts])
    source = Source(files=("a.jsonl",), label_columns={"kitchen": "k"}, weak={"kitchen": "words"})
    assert [(row["text"], row["kitchen"]) for row in rows_of(source, tmp_path)] == [(texts[0], 1), (texts[2], 1), (texts[4], 0)]
    source = Source(files=("a.jsonl",), label_columns={"kitchen": "k"}, weak={"kitchen": "words"}, answers={"kitchen": 0})
    assert [row["kitchen"] for row in rows_of(source, tmp_path)] == [1, 0, 1, 0, 0]


def test_a_limit_draws_by_the_text_and_not_by_its_place(tmp_path):
    texts = [f"text {number}" for number in range(200)]
    for name, order in (("a.jsonl", texts), ("b.jsonl", texts[::-1])):
        write_jsonl(tmp_path / name, [{"text": text, "label": 1} for text in order])
    first, second = (rows_of(Source(files=(name,), label_column="label", limit=20), tmp_path) for name in ("a.jsonl", "b.jsonl"))
    assert len(first) == 20 and sorted(row["text"] for row in first) == sorted(row["text"] for row in second)
    by_hash = sorted(texts, key=lambda text: xxhash.xxh3_64_intdigest(text.encode(), 1))[:20]
    assert [texts[place] for place in drawn(texts, 20, 1)] == sorted(by_hash, key=texts.index)


def test_documents_are_numbered_across_sources(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", [{"text": "one two three four", "label": 1}, {"text": "five six seven", "label": 0}])
    write_jsonl(tmp_path / "b.jsonl", [{"text": "eight nine ten", "label": 0}])
    sources = [Source(files=(name,), label_column="label", pieces=PieceLength(words=3)) for name in ("a.jsonl", "b.jsonl")]
    found = gather_examples(sources, tmp_path, ("kitchen",)).table
    assert found.select(["text", "source", "document"]).to_pylist() == [
        {"text": "one two three", "source": "a.jsonl", "document": 0},
        {"text": "four", "source": "a.jsonl", "document": 0},
        {"text": "five six seven", "source": "a.jsonl", "document": 1},
        {"text": "eight nine ten", "source": "b.jsonl", "document": 2},
    ]


@given(text=st.text(alphabet="ab \n", max_size=200), size=st.integers(20, 60))
def test_pieces_of_characters_hold_the_text_in_order(text, size):
    pieces, document = cut([text], PieceLength(characters=size))
    assert document == [0] * len(pieces) and all(0 < len(piece) <= size for piece in pieces)
    at = 0
    for piece in pieces:
        at = text.index(piece, at) + len(piece)
    joined, whole = "".join("".join(pieces).split()), "".join(text.split())
    assert whole.startswith(joined) and len(whole) - len(joined) < 0.2 * size  # a short rest is left out
    assert all(piece == piece.strip() for piece in pieces)


@given(words=st.lists(st.text(alphabet="ab", min_size=1, max_size=3), max_size=40), size=st.integers(3, 9))
def test_pieces_of_words(words, size):
    pieces, _ = cut(["\n".join(words)], PieceLength(words=size))
    whole = [words[start : start + size] for start in range(0, len(words), size)]
    if len(whole) > 1 and len(whole[-1]) < 0.2 * size:
        whole.pop()
    assert [piece.split() for piece in pieces] == whole


@pytest.fixture(scope="module")
def folder_of_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("folder")
    make_rows(folder / "rows.jsonl")
    (folder / "recipe.yaml").write_text("ingest: {}\nfilter: {steps: [gopher_quality]}\n")
    plan = new_plan(str(folder / "run"), str(folder / "recipe.yaml"), [str(folder / "rows.jsonl")])
    execute(plan, InlineEngine(), Progress(False), on_message=lambda _: None, on_stage=lambda _: None)
    return folder


def test_a_run_gives_a_sample_of_its_documents(folder_of_run):
    shards = sorted((folder_of_run / "run" / "ingest" / "data").glob("*.parquet"))
    documents = pa.concat_tables([pq.read_table(shard, columns=["id", "text"]) for shard in shards]).to_pylist()
    source = Source(run="run", answers={"kitchen": 0}, limit=10)
    found = gather_examples([source], folder_of_run, ("kitchen",), seed=4)
    drawn_ids = sorted(documents, key=lambda row: xxhash.xxh3_64_intdigest(row["id"], 4))[:10]
    assert sorted(found.table["text"].to_pylist()) == sorted(row["text"] for row in drawn_ids)
    (report,) = found.sources
    assert (report.name, report.rows, report.examples) == ("run", len(documents), 10)
    assert report.files[0]["name"] == f"ingest/data/{shards[0].name}" and report.files[0]["sha256"] == sha256(shards[0])
    for stage, folder, sentence in (
        ("dedup", "run", "run: its stage dedup is not finished."),
        ("ingest", "nowhere", "nowhere: no such run"),
    ):
        with pytest.raises(InputError, match="^" + re.escape(str(folder_of_run / sentence))):
            gather_examples([Source(run=folder, stage=stage, answers={"kitchen": 0})], folder_of_run)


def test_a_run_gives_the_documents_that_failed_a_rule(folder_of_run):
    shards = sorted((folder_of_run / "run" / "ingest" / "data").glob("*.parquet"))
    documents = pa.concat_tables([pq.read_table(shard, columns=["id", "text"]) for shard in shards]).to_pylist()
    reports = pa.concat_tables([pq.read_table(shard) for shard in sorted((folder_of_run / "run" / "filter" / "report").glob("*.parquet"))])
    rules = sorted({rule for names in reports["failed"].to_pylist() for rule in names})
    assert len(rules) > 1
    for failed in ((rules[0],), tuple(rules)):
        ids = {row["id"] for row in reports.select(["id", "failed"]).to_pylist() if set(failed) & set(row["failed"])}
        found = gather_examples([Source(run="run", failed=failed, answers={"spam": 1})], folder_of_run).table
        assert sorted(found["text"].to_pylist()) == sorted(row["text"] for row in documents if row["id"] in ids)
    with pytest.raises(InputError, match=r"run: its filter stage has no rule 'ugly' \(expected one of "):
        gather_examples([Source(run="run", failed=("ugly",), answers={"spam": 1})], folder_of_run)
