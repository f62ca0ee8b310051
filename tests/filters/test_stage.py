"""Tests the stage on a run: data, report, rules, resume, and messages on unsuitable inputs."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from corpusmill.filters.rules import METADATA_KEY
from corpusmill.filters.worker import FilterConfig, rule_table
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.schemas import DOCUMENTS, REPORT
from corpusmill.pipeline.shards import read_table

GOOD = """The old mill stands where two rivers meet, and people have come to it with their grain for longer than anyone remembers.
In spring the water is high enough to drive both wheels. During the dry months only the smaller one turns.
Her grandmother kept a diary of every sack that passed through the door, with the names of farmers and their villages.
Most of those villages are gone today! Only church towers and some orchards tell where they used to be.
Would a visitor notice any of that? Probably not, but the miller's daughter explains it to everybody who asks.
"""
TEXTS = [GOOD, "404 Not Found", "", GOOD.replace("people", "jane@doe.de"), "Dies ist ein deutscher Text, der nicht bleiben soll. " * 3]
FINEWEB = {
    "steps": [
        {"language": {"keep": ["eng"]}},
        "gopher_repetition",
        "gopher_quality",
        {"c4": {"filter_no_terminal_punct": False}},
        "fineweb_quality",
        "pii",
    ]
}


@pytest.fixture
def run(tmp_path: Path, make_documents, finished_ingest):
    return finished_ingest(tmp_path, [make_documents(TEXTS), make_documents([]), make_documents(TEXTS[:1])])


def test_data_and_report(run, run_filter, lid_model: str) -> None:
    stage_run = run_filter(run, FINEWEB)
    assert [row.task for row in stage_run.manifest.rows()] == ["part-00000", "part-00001", "part-00002"]
    report = read_table(stage_run.storage, "report/part-00000.parquet")
    rows = report.to_pylist()
    assert report.schema.names[: len(REPORT)] == REPORT.names
    assert [row["kept"] for row in rows] == [True, False, False, True, False]
    assert all(row["kept"] == (row["failed"] == []) for row in rows)
    assert rows[1]["failed"][:2] == ["language", "language_score"] and "gopher_short_doc" in rows[1]["failed"]
    assert {"repetition_empty", "too_few_sentences", "fineweb_empty"} <= set(rows[2]["failed"])
    assert rows[3]["pii_emails"] == 1 and rows[4]["language"] == "de"
    assert [row["chars_in"] for row in rows] == [len(text) for text in TEXTS]
    assert rows[0]["chars_out"] == len(GOOD.strip()) and rows[1]["chars_out"] == 0

    data = read_table(stage_run.storage, "data/part-00000.parquet")
    assert data.schema.names == [*DOCUMENTS.names, "language", "language_score"]
    assert data["text"].to_pylist() == [GOOD.strip(), GOOD.strip().replace("people", "email@example.com")]
    assert data["language"].to_pylist() == ["en", "en"]
    empty = read_table(stage_run.storage, "report/part-00001.parquet")
    assert empty.schema == report.schema and empty.num_rows == 0
    assert stage_run.manifest.rows()[0].failed["gopher_short_doc"] == 3
    assert "gopher_short_doc 3" in stage_run.stage.summary(stage_run)["failed"]


def test_the_report_names_its_rules(run, run_filter, lid_model: str) -> None:
    options = FINEWEB | {"thresholds": {"gopher_short_doc": 10, "list_ratio": None}}
    stage_run = run_filter(run, options)
    read = json.loads(read_table(stage_run.storage, "report/part-00001.parquet").schema.metadata[METADATA_KEY])
    assert read == [rule.as_json() for rule in rule_table(FilterConfig.model_validate(options))]
    by_name = {rule["rule"]: rule for rule in read}
    assert by_name["gopher_short_doc"]["threshold"] == 10 and by_name["gopher_short_doc"]["step"] == "gopher_quality"
    assert "list_ratio" not in by_name
    values = read_table(stage_run.storage, "report/part-00000.parquet")
    assert "list_ratio" in values.schema.names  # it is measured nevertheless


def test_bytes_do_not_depend_on_how_documents_are_grouped(
    tmp_path: Path, make_documents, finished_ingest, run_filter, lid_model, texts, quality_step
) -> None:
    texts, options = [*TEXTS, *texts[::2]], {"steps": [*FINEWEB["steps"], quality_step]}
    shards = {"one": [make_documents(texts)], "many": [make_documents(texts).slice(n, 20) for n in range(0, len(texts), 20)]}
    tables = {}
    for name, parts in shards.items():
        done = run_filter(finished_ingest(tmp_path / name, parts), options)
        tables[name] = [
            pa.concat_tables(
                read_table(done.storage, o.path) for row in done.manifest.rows() for o in row.outputs if o.path.startswith(kind)
            )
            for kind in ("data/", "report/")
        ]
    for one, many in zip(tables["one"], tables["many"]):
        assert one.schema == many.schema
        assert repr(one.to_pylist()) == repr(many.to_pylist())


def test_no_steps_keep_everything(run, run_filter) -> None:
    stage_run = run_filter(run, {"steps": []})
    assert read_table(stage_run.storage, "data/part-00000.parquet")["text"].to_pylist() == TEXTS
    assert read_table(stage_run.storage, "report/part-00000.parquet").schema.names == REPORT.names


def test_columns_of_earlier_stages_stay(tmp_path: Path, make_documents, finished_ingest, run_filter, quality_step) -> None:
    documents = make_documents(TEXTS).append_column("quality", pa.array([9.0] * 5)).append_column("extra", pa.array(["x"] * 5))
    stage_run = run_filter(finished_ingest(tmp_path, [documents]), {"steps": [quality_step]})
    data = read_table(stage_run.storage, "data/part-00000.parquet")
    assert data.schema.names == [*DOCUMENTS.names, "quality", "extra"]
    assert all(score is None or score <= 1 for score in data["quality"].to_pylist())


def test_inputs_that_are_not_fit(tmp_path: Path, make_documents, finished_ingest, run_filter) -> None:
    documents = make_documents(TEXTS)
    place = documents.schema.get_field_index("text")
    invalid = pa.Array.from_buffers(pa.large_string(), 1, pa.array([b"\xff\xfe"], pa.large_binary()).buffers())
    faults = {
        "has no column text": documents.drop_columns("text"),
        "not large_string": documents.set_column(place, "text", pa.array([1] * 5)),
        r"has no text \(null\)": documents.set_column(place, "text", pa.array([None] * 5, pa.large_string())),
        "not valid UTF-8": documents.slice(0, 1).set_column(place, "text", invalid),
    }
    for number, (message, table) in enumerate(faults.items()):
        run = finished_ingest(tmp_path / str(number), [table])
        with pytest.raises(InputError, match=rf"ingest/data/part-00000\.parquet.*{message}"):
            run_filter(run, {"steps": ["gopher_quality"]})
