"""The usual formats, and what becomes of an example that can't be learned from whole."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpusmill.pipeline.errors import InputError
from corpusmill.train.sft_data import Example, build_examples, examples_table, prepare, read_examples, report_table

TURNS = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]


def example(*contents: str) -> Example:
    return Example("x", None, "file", False, [{"role": ("user", "assistant")[n % 2], "content": c} for n, c in enumerate(contents)])


@pytest.mark.parametrize(
    "row",
    [
        {"messages": TURNS},
        {"messages": [TURNS[0], {"role": "assistant", "content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]}]},
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
        {"instruction": "Hi", "input": "", "output": "Hello"},
        {"instruction": "Hi", "output": "Hello", "input": None},
        {"prompt": "Hi", "completion": "Hello"},
        {"prompt": TURNS[:1], "completion": TURNS[1:]},
    ],
)
def test_formats(tmp_path, row):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(row) + "\n")
    (found,) = read_examples([str(path)], 0.0)
    assert found.messages == TURNS and found.id == f"{path}:1"


def test_an_input_stands_below_its_instruction(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"instruction": "Add.", "input": "1 and 2", "output": "3"}]))
    (found,) = read_examples([str(path)], 0.0)
    assert found.messages[0]["content"] == "Add.\n\n1 and 2" and found.id == f"{path}, row 1"


def test_containers(tmp_path):
    row = {"messages": TURNS}
    pq.write_table(pa.Table.from_pylist([row, row]), tmp_path / "a.parquet")
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(json.dumps(row).encode() + b"\n", mtime=0) * 2)
    found = read_examples([str(tmp_path / "a.parquet"), str(tmp_path / "a.jsonl.gz")], 0.0)
    assert [e.messages for e in found] == [TURNS] * 4


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"x", r"a\.txt: the name does not tell the format"),
        ("a.json", b"{}", r"a\.json: a \.json file of examples is one array"),
        ("a.jsonl", b"[1]", r"a\.jsonl:1: expected an object with named fields, not list"),
        ("a.jsonl", b'\n\n{"a": "\xff"}', r"a\.jsonl:3: byte 7 is not UTF-8"),
        ("a.jsonl", b'{"prompt": "a", "completion": "\\ud800"}', r"a\.jsonl:1: character 0 is half of a surrogate pair"),
        ("a.jsonl", b'{"prompt": 1, "completion": "b"}', r"a\.jsonl:1: `prompt` is a int, expected text"),
        ("a.jsonl", b'{"messages": []}', r"a\.jsonl:1: expected a list of messages"),
        ("a.jsonl", b'{"messages": [{"role": "user"}]}', r"a\.jsonl:1, message 1: `content` is missing"),
        ("a.jsonl", b"[" * 100_000, r"a\.jsonl:1: not JSON"),
        ("a.jsonl.gz", b"no gzip", r"a\.jsonl\.gz: not a gzip file"),
        ("a.jsonl.gz", gzip.compress(b"{}" * 999, mtime=0)[:-9], r"a\.jsonl\.gz: the gzip file is truncated"),
        ("a.parquet", b"PAR1", r"a\.parquet: not a readable Parquet file"),
    ],
)
def test_bad_files_are_one_sentence_with_their_place(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_examples([str(tmp_path / name)], 0.1)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"a\.jsonl: can't be read \(No such file"):
        read_examples([str(tmp_path / "a.jsonl")], 0.1)


def test_a_long_example_is_cut_before_it_is_packed(encoder):
    long = prepare(example("Tell.", "grain " * 200), encoder, 64)
    assert long.truncated and len(long.tokens.ids) == 65 and long.n_tokens > 65 and not long.failed


@pytest.mark.parametrize(
    ("contents", "failed"),
    [
        (("Hi", "Hello"), []),
        (("Nobody answers.",), ["nothing_to_learn"]),
        (("Hi", " \n"), ["empty_answer"]),
        (("grain " * 200, "Yes."), ["nothing_to_learn", "too_long"]),
    ],
)
def test_what_is_dropped(encoder, contents, failed):
    prepared = prepare(example(*contents), encoder, 64)
    assert prepared.failed == failed and (prepared.tokens is None) == bool(failed)
    (row,) = report_table([prepared]).to_pylist()
    assert row["failed"] == failed and row["kept"] is not bool(failed)
    assert row["chars_out"] == (0 if failed else row["chars_in"])


def test_real_instructions(shared_data, encoder):
    found = read_examples([str(shared_data / "sft" / "rasbt_instructions.jsonl")], 0.1)
    assert len(found) == 1100 and 60 < sum(e.held_out for e in found) < 160
    prepared = [prepare(e, encoder, 256) for e in found]
    assert not any(p.failed for p in prepared)
    assert examples_table(found).num_rows == 1100


def test_what_is_no_example_says_what_it_has(shared_data):
    with pytest.raises(InputError, match=r"seed\.jsonl:1: no example .* it has id, instances, instruction, is_classification, name\."):
        read_examples([str(shared_data / "sft" / "self_instruct_seed.jsonl")], 0.1)


def test_documents_that_are_held_out_stay_held_out():
    text = "The mill stands at the river. " * 8
    table = pa.Table.from_pylist([{"id": f"d{n}", "url": None, "title": "Mill", "text": text} for n in range(9)])
    found = build_examples([table], "s", 9, 1, 200, lambda identifier: identifier == "d3")
    assert {e.id for e in found if e.held_out} == {"d3"} and len(found) == 9
