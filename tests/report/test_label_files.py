"""Tests labels as lines of JSON: printed, and read again."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from corpusmill.filters.labels import DocumentLabel, LabelFile, hash_of, texts_of
from corpusmill.pipeline.storage import Storage
from corpusmill.report.label_files import label_lines, read_labels_into
from corpusmill.report.whole.verify import verify

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.fixture
def run(tmp_path: Path, builder: Callable[[Path], Any]) -> Path:
    builder(tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def documents(run: Path) -> list[tuple[str, str]]:
    from asking import rows_of

    return list(dict(texts_of(Storage(str(run)), [row["id"] for row in rows_of(run, "filter")])).items())[:4]


def labelled(run: Path) -> dict[tuple[str, str], DocumentLabel]:
    return dict(LabelFile(Storage(str(run))).read().given)


def test_printed_labels_can_be_read_again(run: Path, documents: list[tuple[str, str]], corpusmill: Callable, tmp_path: Path) -> None:
    (a, text), (b, other), (c, _), _ = documents
    given = [
        DocumentLabel(a, "bad", "anna", NOON, hash_of(text)),
        DocumentLabel(a, "<b>tox\u00efc</b>", "bert <bert@host.test>", NOON, hash_of(text)),
        DocumentLabel(b, "good", "anna", NOON, hash_of(other)),
        DocumentLabel(c, "good", "anna", NOON, hash_of("of an earlier crawl")),
    ]
    LabelFile(Storage(str(run))).change(lambda before: before.with_labels(given))
    before = labelled(run)
    code, out, _ = corpusmill("labels", run)
    assert code == 0 and [json.loads(line)["text"] for line in out.decode().splitlines()] == [
        None if label.id == c else dict(documents)[label.id] for label in sorted(given, key=lambda label: (label.id, label.who))
    ]
    (tmp_path / "file").write_bytes(out)
    (run / "labels.parquet").unlink()
    code, out, error = corpusmill("labels", run, tmp_path / "file")
    assert (code, out.decode(), error) == (0, "4 labels read.\n", "")
    assert labelled(run) == before
    assert not any(check.faults for check in verify(str(run)) if "labels.parquet" in str(check.faults))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("[", "file:1: not JSON"),
        ("[3]", "file:1: not an object with id and label"),
        ('{"id": "ID", "label": "good"}\n{"id": "ID"}', "file:2: not an object with id and label"),
        ('{"id": "ID", "label": ["good"]}', "file:1: label is no text"),
        ('{"id": "ID", "label": "good", "when": "noon"}', "file:1: Invalid isoformat string: 'noon'"),
        ('{"id": "ID", "label": "a\\u202eb"}', "file:1: 'ab': the name of a label has 1 to 64 characters"),
        ('{"id": "ID", "label": "' + "x" * 10_000 + '"}', "file:1: 'xxx.*…': the name of a label"),
        (b"\xff", "byte 0 is not UTF-8"),
    ],
)
def test_files_that_are_refused(run: Path, documents: list[tuple[str, str]], tmp_path: Path, content: Any, sentence: str) -> None:
    from corpusmill.pipeline.errors import InputError

    path = tmp_path / "file"
    path.write_bytes(content if isinstance(content, bytes) else content.replace("ID", documents[0][0]).encode())
    with pytest.raises(InputError, match=sentence):
        read_labels_into(str(run), str(path), "me")
    assert labelled(run) == {}


def test_documents_that_the_run_does_not_have(run: Path, documents: list[tuple[str, str]], tmp_path: Path, corpusmill: Callable) -> None:
    lines = [{"id": documents[0][0], "label": "good"}, {"id": "nobody\x1b[31m", "label": "bad"}]
    (tmp_path / "file").write_text("\n".join(map(json.dumps, lines)))
    code, out, error = corpusmill("labels", run, tmp_path / "file", "--as", "anna")
    assert code == 0 and out == b"1 label read.\n" and "does not have 1 of the documents (nobody" in error and "\x1b" not in error
    assert [key[1] for key in labelled(run)] == ["anna"]
    (tmp_path / "file").write_text(json.dumps(lines[1]))
    code, _, error = corpusmill("labels", run, tmp_path / "file")
    assert code == 2 and "so no label was read" in error
    code, _, error = corpusmill("labels", tmp_path / "nothing")
    assert code == 2 and "no such run" in error
    assert json.loads(next(label_lines(str(run))))["text"] == documents[0][1]
