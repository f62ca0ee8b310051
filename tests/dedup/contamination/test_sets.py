"""Tests the files of evaluation sets: formats and texts."""

import csv
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

from corpusmill.dedup.config import ContaminationConfig, FieldsConfig
from corpusmill.dedup.contamination.sets import FORMATS, SetFile, reader, set_files
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.formats.evaluation_sets import read_set

SET_ROWS = [{"question": f"What is {n}?", "answer": f"“{n}”"} for n in range(3)]
LINES = "".join(json.dumps(row) + "\n" for row in SET_ROWS).encode()


def arrow(stream: bool) -> bytes:
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pylist(SET_ROWS)
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(SET_ROWS), sink)
    return sink.getvalue()


def archive(content: bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("set/part.jsonl", content)
        file.writestr("set/README.md", "not data")
    return sink.getvalue()


def delimited(delimiter: str) -> bytes:
    sink = io.StringIO()
    writer = csv.DictWriter(sink, ["question", "answer"], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(SET_ROWS)
    return sink.getvalue().encode()


FORMS = {
    "a.jsonl": LINES,
    "bom.jsonl": b"\xef\xbb\xbf" + LINES.replace(b"\n", b"\r\n\r\n"),
    "list.json": json.dumps(SET_ROWS, indent=1).encode(),
    "data.json": json.dumps({"version": 1, "data": SET_ROWS}).encode(),
    "examples.json": json.dumps({"canary": "x", "examples": SET_ROWS}).encode(),
    "a.jsonl.gz": gzip.compress(LINES, mtime=0),
    "a.jsonl.zst": zstandard.compress(LINES),
    "a.csv": delimited(","),
    "bom.tsv": b"\xef\xbb\xbf" + delimited("\t"),
    "a.csv.gz": gzip.compress(delimited(";"), mtime=0),
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
    assert read(tmp_path / name) == SET_ROWS


def test_squads_own_form(tmp_path: Path) -> None:
    questions = [{"id": str(n), "question": f"q{n}", "answers": [{"text": "a", "answer_start": 0}]} for n in range(3)]
    data = [{"title": "t", "paragraphs": [{"context": "c", "qas": questions[:2]}, {"context": "d", "qas": questions[2:]}]}]
    (tmp_path / "dev.json").write_text(json.dumps({"version": "1.1", "data": data}))
    assert [(row["context"], row["question"]) for row in read(tmp_path / "dev.json")] == [("c", "q0"), ("c", "q1"), ("d", "q2")]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.jsonl", b'{"a": 1}\n{broken\n', r"a.jsonl:2: not JSON \("),
        ("a.jsonl", b'{"a": 1}\n[1]\n', "a.jsonl:2: a row has to be a JSON object."),
        ("a.jsonl", b"", "a.jsonl: there is no row in it."),
        ("a.jsonl", b'{"a": "\xff"}\n', "a.jsonl: byte 7 is not UTF-8."),
        ("a.jsonl.gz", gzip.compress(LINES, mtime=0)[:-12], "a.jsonl.gz: the compressed file is cut off."),
        ("a.parquet", parquet()[:-30], "a.parquet: not a readable Parquet file"),
        ("a.zip", archive(LINES)[:-40], "a.zip: not a readable zip archive"),
        ("a.csv", b"question,answer\nq,a\nq\n", r"a.csv:3: not a row of CSV \(it has 1 of 2 columns\)."),
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
    write(tmp_path, "a.jsonl", "README.md", "dataset_info.json", ".hidden.jsonl", ".cache/x.metadata", "deep/b.json.gz", "deep/c.tsv")
    assert [Path(file.ref.path).name for file in files_of(str(tmp_path))] == ["a.jsonl", "b.json.gz", "c.tsv"]
    assert [Path(file.ref.path).name for file in files_of(f"{tmp_path}/*.jsonl", str(tmp_path / "a.jsonl"))] == ["a.jsonl"]
    write(tmp_path, "deep/d.xlsx")
    with pytest.raises(InputError, match=r"deep/d.xlsx: not a kind of file that holds rows \(JSONL, JSON, CSV, TSV, .*move this one\.$"):
        files_of(str(tmp_path))
    (named,) = files_of({"path": str(tmp_path / "README.md"), "name": "mine"})
    assert named.name == "mine"
    for given, sentence in (
        (f"{tmp_path}/x.jsonl", "no such file or folder"),
        (f"{tmp_path}/*.csv", "no file matches"),
        (f"{tmp_path}/*.md", "no file with rows in it"),
    ):
        with pytest.raises(InputError, match=sentence):
            files_of(given)


CHOICES = {"text": ["red", "blue"], "label": ["A", "B"]}
ROWS: list[tuple[str, dict[str, Any], list[tuple[str, str]]]] = [
    (
        "MBPP",
        {"task_id": 1, "text": "t", "code": "c", "test_list": ["assert a", "assert b"], "test_setup_code": "", "challenge_test_list": []},
        [("text", "t"), ("code", "c"), ("test_list", "assert a\nassert b")],
    ),
    (
        "HellaSwag",
        {"ind": 1, "ctx_a": "c", "ctx_b": "", "ctx": "c", "endings": ["x", "y"], "label": "1"},
        [("ctx", "c"), ("ctx, endings", "c\ny")],
    ),
    ("HellaSwag", {"ctx": "c", "endings": ["x", "y"], "label": ""}, [("ctx", "c"), ("ctx, endings", "c\nx\ny")]),
    ("PIQA", {"goal": "g", "sol1": "1", "sol2": "2", "label": 0}, [("goal", "g"), ("goal, sol1", "g\n1"), ("goal, sol2", "g\n2")]),
    (
        "WinoGrande",
        {"sentence": "The _ fell.", "option1": "cup", "option2": "pen", "answer": "1"},
        [("sentence, option1", "The cup fell."), ("sentence, option2", "The pen fell.")],
    ),
    ("MATH", {"problem": "p", "level": "Level 1", "type": "Algebra", "solution": "s"}, [("problem", "p"), ("solution", "s")]),
    (
        "MMLU",
        {"question": "q", "subject": "law", "choices": ["x", "y"], "answer": 1},
        [("question", "q"), ("question, choices", "q\nx\ny")],
    ),
    (
        "ARC, CommonsenseQA",
        {"id": "1", "question": "q", "choices": CHOICES, "answerKey": "A"},
        [("question", "q"), ("question, choices.text", "q\nred\nblue")],
    ),
    (
        "ARC, AI2's files",
        {
            "id": "1",
            "question": {"stem": "q", "choices": [{"text": "red", "label": "A"}, {"text": "blue", "label": "B"}]},
            "answerKey": "A",
        },
        [("question.stem", "q"), ("question.stem, question.choices.text", "q\nred\nblue")],
    ),
    (
        "OpenBookQA",
        {"id": "1", "question_stem": "q", "choices": CHOICES, "answerKey": "A"},
        [("question_stem", "q"), ("question_stem, choices.text", "q\nred\nblue")],
    ),
    (
        "TruthfulQA, multiple choice",
        {"question": "q", "mc1_targets": {"choices": ["x", "y"], "labels": [1, 0]}, "mc2_targets": {"choices": ["z"], "labels": [1]}},
        [("question", "q"), ("question, mc1_targets.choices", "q\nx\ny")],
    ),
    (
        "TruthfulQA, generation",
        {"type": "t", "question": "q", "best_answer": "b", "correct_answers": ["b"], "incorrect_answers": []},
        [("question", "q"), ("question, best_answer", "q\nb")],
    ),
    (
        "SQuAD",
        {"id": "1", "title": "t", "context": "c", "question": "q", "answers": {"text": ["a"], "answer_start": [0]}},
        [("question", "q")],
    ),
    ("BoolQ, DROP", {"question": "q", "answer": True, "passage": "p"}, [("question", "q")]),
    (
        "COPA",
        {"premise": "p", "choice1": "1", "choice2": "2", "question": "cause"},
        [("premise, choice1", "p\n1"), ("premise, choice2", "p\n2")],
    ),
    (
        "DCLM, multiple choice",
        {"query": "Passage: p\nQuestion: q?", "choices": ["no", "yes"], "gold": 1},
        [("query", "q?"), ("query, choices", "q?\nno\nyes")],
    ),
    (
        "DCLM, schema",
        {"context_options": ["a", "b"], "continuation": "c", "gold": 1},
        [("context_options, continuation", "a c"), ("context_options, continuation", "b c")],
    ),
    ("DCLM, language modelling", {"context": "a b", "continuation": "c"}, [("context, continuation", "a b c")]),
    (
        "MMLU-Pro",
        {"question_id": 1, "question": "q", "options": ["x"], "answer": "A", "answer_index": 0},
        [("question", "q"), ("question, options", "q\nx")],
    ),
]


@pytest.mark.parametrize(("name", "row", "texts"), ROWS)
def test_formats_are_told_by_their_keys(name: str, row: dict[str, Any], texts: list[tuple[str, str]]) -> None:
    assert next(known.name for known in FORMATS if known.fits(row)) == name
    assert reader("set.jsonl", [row], None)(row) == texts


@pytest.mark.parametrize("names", ["", "question,A,B,C,D,answer\n", "question,opa,opb,opc,opd,cop\n"])
def test_options_in_columns(tmp_path: Path, names: str) -> None:
    path = tmp_path / "set.csv"
    path.write_text(f"{names}What is it?,red,blue,green,none of these,B\n")
    ((place, rows),) = read_set(str(path))
    question = ("question", "What is it?")
    assert reader(place, rows, None)(rows[0]) == [question, ("question, choices", "What is it?\nred\nblue\ngreen\nnone of these")]


def test_fields_that_a_recipe_names() -> None:
    row = {"q": "question", "doc": {"body": "context"}, "options": [{"t": "x"}, {"t": "y"}], "gold": 3}
    names = FieldsConfig(question="q", context="doc.body", choices="options.t", answer="gold")
    assert reader("set.jsonl", [row], names)(row) == [
        ("q", "question"), ("doc.body", "context"), ("gold", "3"), ("q, options.t", "question\nx\ny"),
    ]  # fmt: skip
    with pytest.raises(InputError, match=r"^set.jsonl: no item has a field 'body' .* they have doc, gold, options, q\.$"):
        reader("set.jsonl", [row], FieldsConfig(question="body"))
    with pytest.raises(ValueError, match="at least one of question, context, choices and answer"):
        FieldsConfig()


def test_a_format_that_nobody_knows() -> None:
    with pytest.raises(InputError, match=r"^set.jsonl: no known format .*\(its items have premise, verdict\); name the fields"):
        reader("set.jsonl", [{"premise": "p", "verdict": 1}], None)
    with pytest.raises(InputError, match="its items have answer, question, verdict"):  # all items must fit
        reader("set.jsonl", [{"question": "q", "answer": "a"}, {"question": "q", "verdict": 1}], None)


def test_the_real_sets(shared_data: Path) -> None:
    files = set_files(ContaminationConfig(sets=[str(shared_data / "eval")]).set_configs())
    found = {file.name: [(place, rows) for place, rows in read_set(file.ref.path)] for file in files}
    assert {name: sum(len(rows) for _, rows in tables) for name, tables in found.items()} == {
        "HumanEval": 164, "blimp": 67_000, "gsm8k_test": 1319, "lambada_test": 5153,
    }  # fmt: skip
    readers = {name: [(reader(place, rows, None), rows) for place, rows in tables] for name, tables in found.items()}
    fields = {name: {field for read, rows in tables for row in rows for field, _ in read(row)} for name, tables in readers.items()}
    assert fields == {
        "HumanEval": {"prompt", "canonical_solution", "test"}, "blimp": {"sentence_good", "sentence_bad"},
        "gsm8k_test": {"question", "answer"}, "lambada_test": {"text"},
    }  # fmt: skip
    first = json.loads((shared_data / "eval" / "gsm8k_test.jsonl").read_text().splitlines()[0])
    assert found["gsm8k_test"][0][1][0] == first
