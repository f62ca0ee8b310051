"""Tests the export and import of labels, with files as Label Studio and Argilla write them."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from corpusmill.filters.labels import DocumentLabel, LabelFile, hash_of, texts_of
from corpusmill.pipeline.storage import Storage
from corpusmill.report.label_files import export_labels, import_labels
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


@pytest.mark.parametrize("format", ["jsonl", "label-studio", "argilla"])
def test_an_export_can_be_imported(run: Path, documents: list[tuple[str, str]], corpusmill: Callable, tmp_path: Path, format: str) -> None:
    (a, text), (b, other), (c, _), _ = documents
    given = [
        DocumentLabel(a, "bad", "anna", NOON, hash_of(text)),
        DocumentLabel(a, "<b>tox\u00efc</b>", "bert <bert@host.test>", NOON, hash_of(text)),
        DocumentLabel(b, "good", "anna", NOON, hash_of(other)),
    ]
    gone = DocumentLabel(c, "good", "anna", NOON, hash_of("of an earlier crawl"))
    LabelFile(Storage(str(run))).change(lambda before: before.with_labels([*given, gone]))
    before = labelled(run)
    code, out, error = corpusmill("labels", "export", run, "--format", format, "--output", tmp_path / "file")
    left_out = format != "jsonl"
    assert code == 0 and f"{4 - left_out} labels written" in out.decode() and ("1 labels are left out" in error) == left_out
    (run / "labels.parquet").unlink()
    code, out, error = corpusmill("labels", "import", run, tmp_path / "file")
    assert (code, out.decode(), error) == (0, f"{4 - left_out} labels read.\n", "")
    if left_out:
        before.pop((gone.id, gone.who))
    assert labelled(run) == before
    assert not any(check.faults for check in verify(str(run)) if "labels" in str(check.faults))


def test_label_studios_own_export(run: Path, documents: list[tuple[str, str]], tmp_path: Path) -> None:
    (a, text), (b, _), _, _ = documents
    tasks = [
        {
            "id": 7, "data": {"id": a, "text": text}, "project": 1,
            "annotations": [
                {
                    "id": 1, "completed_by": {"id": 3, "email": "anna@host.test"}, "was_cancelled": False,
                    "created_at": "2026-04-30T08:00:00.1Z", "updated_at": "2026-05-01T12:00:00Z",
                    "result": [{"id": "x", "type": "choices", "from_name": "quality", "to_name": "text", "value": {"choices": ["bad"]}}],
                },
                {"id": 2, "completed_by": 4, "was_cancelled": True, "result": []},
            ],
        },
        {
            "id": 8, "data": {"id": b},
            "annotations": [{"completed_by": 4, "result": [{"type": "choices", "value": {"choices": ["good"]}}]}],
        },
    ]  # fmt: skip
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    assert import_labels(str(run), str(tmp_path / "export.json"), "me") == (2, [])
    found = labelled(run)
    assert found[a, "anna@host.test"] == DocumentLabel(a, "bad", "anna@host.test", NOON, hash_of(text))
    assert found[b, "user 4"].text_sha256 == hash_of(dict(documents)[b])


def test_argillas_own_export(run: Path, documents: list[tuple[str, str]], tmp_path: Path) -> None:
    (a, text), *_ = documents
    record = {
        "id": a, "fields": {"text": text}, "metadata": {}, "suggestions": {}, "vectors": {}, "_server_id": "2e8",
        "responses": {"quality": [{"value": "good", "user_id": "59f7bf7b-b818-4b6f-8f80-e7cce9c25ee6"}]},
    }  # fmt: skip
    (tmp_path / "records.json").write_text(json.dumps([record]))
    assert import_labels(str(run), str(tmp_path / "records.json"), "me") == (1, [])
    assert labelled(run)[a, "59f7bf7b-b818-4b6f-8f80-e7cce9c25ee6"].label == "good"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("[", "not JSON"),
        ("[3]", "entry 1: not an object"),
        ('{"id": "ID", "label": "good"}\n{"id": "ID"}', r"file:2: no label of a format that can be read \(KeyError: 'label'\)"),
        ('{"id": "ID", "label": ["good"]}', r"file:1: no label .*is no text"),
        ('{"id": "ID", "label": "good", "when": "noon"}', "file:1: no label"),
        ('{"id": "ID", "label": "a\\u202eb"}', "file:1: 'ab': the name of a label has 1 to 64 characters"),
        ('{"id": "ID", "label": "' + "x" * 10_000 + '"}', "file:1: 'xxx.*…': the name of a label"),
        ('[{"annotations": [{"result": [{"type": "choices", "value": {"choices": []}}]}], "data": {"id": "ID"}}]', "entry 1: no label"),
        (b"\xff", "byte 0 is not UTF-8"),
    ],
)
def test_files_that_are_refused(run: Path, documents: list[tuple[str, str]], tmp_path: Path, content: Any, sentence: str) -> None:
    from corpusmill.pipeline.errors import InputError

    path = tmp_path / "file"
    path.write_bytes(content if isinstance(content, bytes) else content.replace("ID", documents[0][0]).encode())
    with pytest.raises(InputError, match=sentence):
        import_labels(str(run), str(path), "me")
    assert labelled(run) == {}


def test_documents_that_the_run_does_not_have(run: Path, documents: list[tuple[str, str]], tmp_path: Path, corpusmill: Callable) -> None:
    lines = [{"id": documents[0][0], "label": "good"}, {"id": "nobody\x1b[31m", "label": "bad"}]
    (tmp_path / "file").write_text("\n".join(map(json.dumps, lines)))
    code, out, error = corpusmill("labels", "import", run, tmp_path / "file", "--as", "anna")
    assert code == 0 and out == b"1 labels read.\n" and "does not have 1 of the documents (nobody" in error and "\x1b" not in error
    assert [key[1] for key in labelled(run)] == ["anna"]
    code, _, error = corpusmill("labels", "export", tmp_path / "nothing")
    assert code == 2 and "no such run" in error
    assert json.loads(export_labels(str(run), "jsonl")[0])["text"] == documents[0][1]
