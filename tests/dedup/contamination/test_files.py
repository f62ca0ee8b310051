"""Evaluation sets as files: all forms in which they are published give the same rows, and bad ones a sentence."""

import gzip
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from corpusmill.dedup.contamination.config import ContaminationConfig
from corpusmill.dedup.contamination.files import SetFile, set_files
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.formats.evaluation_sets import read_set

ROWS = [{"question": f"What is {n}?", "answer": f"“{n}”"} for n in range(3)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def arrow(stream: bool) -> bytes:
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pylist(ROWS)
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), sink)
    return sink.getvalue()


def archive(content: bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("set/part.jsonl", content)
        file.writestr("set/README.md", "not data")
    return sink.getvalue()


FORMS = {
    "a.jsonl": LINES,
    "bom.jsonl": b"\xef\xbb\xbf" + LINES.replace(b"\n", b"\r\n\r\n"),
    "list.json": json.dumps(ROWS, indent=1).encode(),
    "data.json": json.dumps({"version": 1, "data": ROWS}).encode(),
    "examples.json": json.dumps({"canary": "x", "examples": ROWS}).encode(),
    "a.jsonl.gz": gzip.compress(LINES, mtime=0),
    "a.jsonl.zst": zstandard.compress(LINES),
    "a.parquet": parquet(),
    "stream.arrow": arrow(True),
    "file.arrow": arrow(False),
    "a.zip": archive(LINES),
    "no_ending": LINES,
}


def read(path: Path) -> list[dict[str, Any]]:
    return [row for _, rows in read_set(str(path)) for row in rows]


@pytest.mark.parametrize("name", FORMS)
def test_all_forms_give_the_same_rows(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(FORMS[name])
    assert read(tmp_path / name) == ROWS


def test_one_item_is_a_set(tmp_path: Path) -> None:
    (tmp_path / "one.jsonl").write_text(json.dumps(ROWS[0]))
    assert read(tmp_path / "one.jsonl") == ROWS[:1]


def test_squads_own_form(tmp_path: Path) -> None:
    questions = [{"id": str(n), "question": f"q{n}", "answers": [{"text": "a", "answer_start": 0}]} for n in range(3)]
    data = [{"title": "t", "paragraphs": [{"context": "c", "qas": questions[:2]}, {"context": "d", "qas": questions[2:]}]}]
    (tmp_path / "dev.json").write_text(json.dumps({"version": "1.1", "data": data}))
    assert [(row["context"], row["question"]) for row in read(tmp_path / "dev.json")] == [("c", "q0"), ("c", "q1"), ("d", "q2")]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.jsonl", b'{"a": 1}\n{broken\n', r"a.jsonl:2: not JSON \("),
        ("a.jsonl", b'{"a": 1}\n[1]\n', "a.jsonl:2: an item of an evaluation set has to be a JSON object."),
        ("a.jsonl", b"\n \n", "a.jsonl: the evaluation set is empty."),
        ("a.jsonl", b"", "a.jsonl: the evaluation set is empty."),
        ("a.json", b"[]", "a.json:1: an item of an evaluation set has to be a JSON object."),
        ("a.jsonl", b'{"a": "\xff"}\n', "a.jsonl: byte 7 is not UTF-8, so it can't be read as an evaluation set."),
        ("a.jsonl.gz", gzip.compress(LINES, mtime=0)[:-12], "a.jsonl.gz: the compressed file is cut off."),
        ("a.jsonl.gz", gzip.compress(LINES, mtime=0)[:-8] + b"12345678", "a.jsonl.gz: the compressed file is damaged."),
        ("a.parquet", parquet()[:-30], "a.parquet: not a readable Parquet file"),
        ("a.arrow", arrow(True)[:200], "a.arrow: not a readable Arrow file"),
        ("a.zip", archive(LINES)[:-40], "a.zip: not a readable zip archive"),
        ("a.zip", archive(LINES).replace(b"part.jsonl", b"part.text_"), "a.zip: no JSONL, JSON or Parquet file in the archive."),
        ("a.zip", archive(b"{broken"), r"a.zip/set/part.jsonl:1: not JSON"),
        ("deep.jsonl", b'{"a":' + b"[" * 200_000, r"deep.jsonl:1: not JSON"),
    ],
)
def test_bad_files_are_one_sentence_that_names_them(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=sentence) as caught:
        read(tmp_path / name)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(str(tmp_path)) and str(caught.value).endswith(".")


def files_of(*given: Any) -> list[SetFile]:
    return set_files(ContaminationConfig.model_validate({"sets": list(given)}).set_configs())


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(LINES)


def test_names_say_what_a_set_is(tmp_path: Path) -> None:
    write(tmp_path, "gsm8k_test.jsonl", "arc/ARC-Easy/test-00000-of-00002.parquet", "arc/ARC-Easy/test-00001-of-00002.parquet")
    write(tmp_path, "arc/ARC-Challenge/test-00000-of-00001.parquet", "piqa/plain_text/validation/data-00000-of-00001.arrow")
    write(tmp_path, "one/items.json", "two/items.json")
    names = {Path(file.ref.path).relative_to(tmp_path).as_posix(): file.name for file in files_of(str(tmp_path))}
    assert names == {
        "gsm8k_test.jsonl": "gsm8k_test",
        "arc/ARC-Easy/test-00000-of-00002.parquet": "ARC-Easy/test",
        "arc/ARC-Easy/test-00001-of-00002.parquet": "ARC-Easy/test",
        "arc/ARC-Challenge/test-00000-of-00001.parquet": "ARC-Challenge/test",
        "piqa/plain_text/validation/data-00000-of-00001.arrow": "piqa/plain_text/validation",
        "one/items.json": "one/items",
        "two/items.json": "two/items",
    }


def test_folders_and_globs_give_what_holds_data(tmp_path: Path) -> None:
    write(tmp_path, "a.jsonl", "README.md", "dataset_info.json", ".hidden.jsonl", "deep/b.json.gz")
    assert [Path(file.ref.path).name for file in files_of(str(tmp_path))] == ["a.jsonl", "b.json.gz"]
    assert [Path(file.ref.path).name for file in files_of(f"{tmp_path}/*.jsonl", str(tmp_path / "a.jsonl"))] == ["a.jsonl"]
    (named,) = files_of({"path": str(tmp_path / "README.md"), "name": "mine"})
    assert named.name == "mine"
    for given, sentence in (
        (f"{tmp_path}/x.jsonl", "no such file or folder"),
        (f"{tmp_path}/*.csv", "no file matches"),
        (f"{tmp_path}/*.md", "no JSONL, JSON, Parquet, Arrow or zip"),
    ):
        with pytest.raises(InputError, match=sentence):
            files_of(given)


def test_fingerprints_change_with_the_file(tmp_path: Path) -> None:
    write(tmp_path, "a.jsonl")
    (before,) = files_of(str(tmp_path))
    (tmp_path / "a.jsonl").write_bytes(LINES + LINES)
    (after,) = files_of(str(tmp_path))
    assert before.ref.path == after.ref.path and before.ref.fingerprint != after.ref.fingerprint


def test_sets_lie_on_any_store(tmp_path: Path) -> None:
    import fsspec

    with fsspec.open("memory://sets/a.jsonl", "wb") as file:
        file.write(LINES)
    (found,) = files_of("memory://sets/*.jsonl")
    assert found.name == "a" and [row for _, rows in read_set(found.ref.path) for row in rows] == ROWS
