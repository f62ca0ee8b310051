"""Tests the file of labels: changes of several people and processes, and files that are none."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from killing import in_child

from corpusmill.filters.labels import COLUMNS, SCHEMA, DocumentLabel, DocumentLabels, LabelFile, checked_name, checked_names, hash_of
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.storage import Storage

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def label(id_: str, name: str, who: str = "anna", minutes: int = 0, text: str = "a text") -> DocumentLabel:
    return DocumentLabel(id_, name, who, NOON + timedelta(minutes=minutes), hash_of(text))


@pytest.fixture(params=["disk", "memory", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "s3":
        return Storage(f"{request.getfixturevalue('s3').bucket('labels')}/run")
    return Storage(str(tmp_path) if request.param == "disk" else f"memory://labels{tmp_path}")


def test_labels_are_given_changed_and_taken_away(storage: Storage) -> None:
    file = LabelFile(storage)
    assert file.read() == DocumentLabels(("good", "bad"), {})
    file.change(lambda before: before.with_labels([label("a", "good"), label("b", "toxic"), label("a", "bad", "bert")]))
    file.change(lambda before: before.with_labels([label("a", "bad", minutes=1)]))
    found = LabelFile(storage).read()
    assert found.names == ("good", "bad", "toxic")
    assert {(one.who, one.label) for one in found.of("a")} == {("anna", "bad"), ("bert", "bad")}
    file.change(lambda before: before.without("a", "anna"))
    assert [one.who for one in LabelFile(storage).read().of("a")] == ["bert"]
    table = pq.read_table(pa.BufferReader(storage.read_bytes("labels.parquet")))
    assert table.schema.remove_metadata() == SCHEMA and table.column_names == list(COLUMNS)
    assert table["when"].to_pylist() == [NOON, NOON]


def test_a_later_label_counts_and_a_tie_is_no_majority() -> None:
    both = DocumentLabels().with_labels([label("a", "bad", minutes=5), label("a", "good")])
    assert [one.label for one in both.of("a")] == ["bad"]
    split = both.with_labels([label("a", "good", "bert"), label("b", "good"), label("a", "good", "carl", text="another")])
    assert split.by_document() == {"a": "good", "b": "good"}
    assert both.with_labels([label("a", "good", "bert")]).by_document() == {"a": None}


def test_nothing_is_lost_where_two_processes_write_at_once(tmp_path: Path) -> None:
    def write(who: str) -> None:
        file = LabelFile(Storage(str(tmp_path)))
        for number in range(15):
            file.change(lambda before, number=number: before.with_labels([label(str(number), "good", who)]))

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda who: in_child(write, who), ("anna", "bert"))) == [0, 0]
    assert len(LabelFile(Storage(str(tmp_path))).read().given) == 30


def test_files_that_are_no_labels(tmp_path: Path) -> None:
    path, file = tmp_path / "labels.parquet", LabelFile(Storage(str(tmp_path)))

    def refused(sentence: str) -> None:
        content = path.read_bytes()
        with pytest.raises(InputError, match=sentence):
            file.read()
        with pytest.raises(InputError, match=sentence):
            file.change(lambda before: before.with_labels([label("a", "good")]))
        assert path.read_bytes() == content

    path.write_bytes(b"PAR1 no")
    refused("labels.parquet: not a readable Parquet file")
    pq.write_table(pa.table({"id": ["a"], "la\x1b[31mbel": ["b"]}), path)
    refused(r"has the columns id string, label string; labels have id string, label string, who string, when timestamp\[us, tz=UTC\]")
    pq.write_table(pa.Table.from_pylist([{"id": "a"}], SCHEMA), path)
    refused("has empty cells")
    for names in (b"nonsense", b'{"a": 1}', b'["a\\u202e"]', b"[3]"):
        pq.write_table(pa.Table.from_pylist([], SCHEMA).replace_schema_metadata({b"corpusmill.labels": names}), path)
        refused("its metadata has no names of labels")


@pytest.mark.parametrize("name", ["", "x" * 10_000, "a\x1b[31mb", "a\u202eb", " a", "a\nb", 3])
def test_bad_names(name: str) -> None:
    with pytest.raises(InputError, match="has 1 to 64 characters, no control characters") as caught:
        checked_name(name)
    assert len(str(caught.value)) < 200 and str(caught.value).isprintable()


def test_names_of_a_run() -> None:
    assert checked_names(["good", "<b>bad</b>"]) == ("good", "<b>bad</b>")
    for names in ([], ["a", "a"], list("abcdefghij")):
        with pytest.raises(InputError, match="1 to 9 names of labels, all different"):
            checked_names(names)
