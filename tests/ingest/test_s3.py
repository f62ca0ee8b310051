"""Tests inputs in a bucket."""

from contextlib import closing
from dataclasses import asdict
from types import SimpleNamespace

import pytest

from corpusmill.ingest import inputs, stage
from corpusmill.ingest.config import IngestConfig
from corpusmill.ingest.inputs import discover
from corpusmill.ingest.original import original_of
from corpusmill.ingest.stage import IngestWorker
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.files import expand, file_ref, listed
from corpusmill.pipeline.stage import Task
from corpusmill.pipeline.storage import Storage


@pytest.fixture
def bucket(s3) -> SimpleNamespace:
    s3.bucket("crawls")
    return SimpleNamespace(put=lambda key, body: s3.put(f"s3://crawls/{key}", body))


def test_a_bucket_equals_a_folder(bucket, warcs, ingest, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compares ids, texts and places, in as many tasks; and finds each record again."""
    (tmp_path / "in").mkdir()
    files = {
        "a.warc.gz": warcs.write(warcs.mixed(8)),
        "b.warc": warcs.write(warcs.mixed(8), gzip=False),
        "c.jsonl": b'{"text": "a line"}\n',
    }
    for name, content in files.items():
        (tmp_path / "in" / name).write_bytes(content)
        bucket.put(f"2026/{name}", content)
    bucket.put("2026/notes.log", b"no documents")
    monkeypatch.setattr(inputs, "SMALLEST", 4000)
    local = ingest(tmp_path / "in", name="local")
    remote = ingest("s3://crawls/2026/*.warc.gz", "s3://crawls/2026", name="remote")
    columns = ("id", "url", "text", "offset", "length")
    assert [[row[c] for c in columns] for row in remote.data] == [[row[c] for c in columns] for row in local.data]
    assert len(remote.rows) == len(local.rows) + 1 > 4  # the log is accounted for
    assert {row["source"] for row in remote.data} == {f"s3://crawls/2026/{name}" for name in files}
    for row in remote.report[:2]:
        assert original_of(row, IngestConfig()).content


def test_a_resumed_run_looks_at_no_file_again(s3, bucket, ingest, monkeypatch: pytest.MonkeyPatch) -> None:
    """70 files are three tasks, which look at 32 at a time. The second run asks the bucket for its list alone, and a new file is looked at
    with its neighbours."""
    monkeypatch.setattr(stage, "LOOKED", 32)
    names = [f"{number:02d}" for number in range(70)]
    for name in names:
        bucket.put(f"many/{name}.jsonl", b'{"text": "of %s"}\n' % name.encode())
    first = ingest("s3://crawls/many")
    assert [row["text"] for row in first.data] == [f"of {name}" for name in names]
    looked = [row.task for row in first.run.manifest.rows() if row.task.startswith("files-")]
    assert looked == ["files-00000", "files-00001", "files-00002"]
    s3.forget()
    again = ingest("s3://crawls/many")
    assert again.data == first.data and again.run.performed == 0
    assert [request.partition("&")[0] for request in s3.log()] == ["HEAD /crawls/many", "GET /crawls?list-type=2"]
    bucket.put("many/70.log", b"no documents")
    s3.forget()
    assert ingest("s3://crawls/many").data == first.data
    assert {request.partition("?")[0] for request in s3.log()} >= {"GET /crawls/many/64.jsonl", "GET /crawls/many/70.log"}
    assert not any("/many/00.jsonl" in request for request in s3.log())


def test_globs_folders_and_fingerprints(bucket) -> None:
    for key in ("x/a.jsonl", "x/y/b.jsonl", "x/c.txt"):
        bucket.put(key, b'{"text": "t"}\n')
    assert expand("s3://crawls/x/*.jsonl") == ["s3://crawls/x/a.jsonl"]
    assert expand("s3://crawls/**/*.jsonl") == ["s3://crawls/x/a.jsonl", "s3://crawls/x/y/b.jsonl"]
    assert expand("s3://crawls/x/a.jsonl") == ["s3://crawls/x/a.jsonl"]
    assert listed("s3://crawls/x") == {
        f"s3://crawls/x/{name}": file_ref(f"s3://crawls/x/{name}") for name in ("a.jsonl", "c.txt", "y/b.jsonl")
    }
    before = file_ref("s3://crawls/x/a.jsonl")
    assert file_ref("s3://crawls/x/a.jsonl") == before and before.bytes == 14
    bucket.put("x/a.jsonl", b'{"text": "u"}\n')
    assert file_ref("s3://crawls/x/a.jsonl").fingerprint != before.fingerprint


def test_what_is_not_there_is_one_sentence(bucket) -> None:
    for given, sentence in {
        "s3://crawls/none.warc.gz": "no such file or folder",
        "s3://crawls/*.warc.gz": "no file matches",
        "s3://no-such-bucket/x.warc.gz": "there is no such bucket",
    }.items():
        with pytest.raises(InputError, match=sentence) as caught:
            discover([given])
        assert "\n" not in str(caught.value)


def test_an_object_that_is_replaced_after_the_listing_is_a_sentence(bucket, tmp_path) -> None:
    """The new object has the same size, so that no range request fails: ranges alone would give a mixture of both."""
    bucket.put("x/a.jsonl", b'{"text": "old"}\n' * 9)
    before = file_ref("s3://crawls/x/a.jsonl")
    bucket.put("x/a.jsonl", b'{"text": "new"}\n' * 9)
    worker = IngestWorker(IngestConfig(), Storage(str(tmp_path / "run")), {"pages": False})
    worker.setup()
    segment = asdict(inputs.Segment("jsonl", "plain", 0, before.bytes, before.bytes))
    with closing(worker), pytest.raises(InputError, match=r"^s3://crawls/x/a\.jsonl: was changed or replaced since the run listed it"):
        list(worker.process(Task("part-00000", (before,), {"segments": [segment]})))
