"""The usual formats, and what becomes of an example that can't be learned from whole."""

import gzip
import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from corpusmill.pipeline.errors import InputError
from corpusmill.train.chat_templates import CHATML
from corpusmill.train.sft_data import Example, build_examples, dropped_table, examples_table, prepare, read_examples, report_table
from corpusmill.train.template import ChatEncoder, ChatTemplate

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
        {"prompt": TURNS[:1], "completion": "Hello"},
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
    path.write_text(json.dumps([{"instruction": "Add.", "input": given, "output": "3"} for given in ("", None, [], 0)]))
    assert [example.bad is None for example in read_examples([str(path)], 0.0)] == [True, True, False, False]


def test_a_system_message_that_all_share_does_not_decide_what_is_held_out(tmp_path):
    path = tmp_path / "a.jsonl"
    system = {"role": "system", "content": "Be brief."}
    rows = [{"messages": [system, {"role": "user", "content": f"{n // 2}?"}, TURNS[1]]} for n in range(400)]
    path.write_text("\n".join(map(json.dumps, rows)))
    held_out = [example.held_out for example in read_examples([str(path)], 0.2)]
    assert held_out[::2] == held_out[1::2] and 40 < sum(held_out) < 130


def test_containers(tmp_path):
    row = {"messages": TURNS}
    pq.write_table(pa.Table.from_pylist([row, row]), tmp_path / "a.parquet")
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(json.dumps(row).encode() + b"\n", mtime=0) * 2)
    (tmp_path / "a.ndjson.zst").write_bytes(zstandard.compress(json.dumps(row).encode() + b"\n") * 2)
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(json.dumps([row]).encode(), mtime=0))
    found = read_examples([str(tmp_path / name) for name in ("a.parquet", "a.jsonl.gz", "a.ndjson.zst", "a.json.gz")], 0.0)
    assert [e.messages for e in found] == [TURNS] * 7


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"x", r"a\.txt: the name does not tell the format"),
        ("a.parquet.gz", b"x", r"a\.parquet\.gz: the name does not tell the format"),
        ("a.json", b"{}", r"a\.json: a \.json file of examples is one array"),
        ("a.json", b"[{]", r"a\.json: not JSON \(Expecting property name"),
        ("a.jsonl", b"[1]\n2", r"a\.jsonl: none of its 2 rows is an example; .*a\.jsonl:1: expected an object with named fields, not list"),
        ("a.jsonl.gz", b"no gzip", r"a\.jsonl\.gz: not a gzip file"),
        ("a.jsonl.gz", gzip.compress(b"{}" * 999, mtime=0)[:-9], r"a\.jsonl\.gz: the gzip file is truncated"),
        ("a.jsonl.zst", b"no zstd", r"a\.jsonl\.zst: not a zstd file"),
        ("a.jsonl.zst", zstandard.compress(b"{}" * 999)[:-9], r"a\.jsonl\.zst: the zstd file is truncated"),
        ("a.parquet", b"PAR1", r"a\.parquet: not a readable Parquet file"),
    ],
)
def test_bad_files_are_one_sentence_with_their_place(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_examples([str(tmp_path / name)], 0.1)


@pytest.mark.parametrize(
    ("line", "rule", "sentence"),
    [
        (b'{"a": "\xff"}', "invalid_utf8", r"a\.jsonl:3: byte 7 is not UTF-8"),
        (b'{"messages": [', "not_json", r"a\.jsonl:3: not JSON"),
        pytest.param(b"[" * 100_000, "not_json", r"a\.jsonl:3: not JSON", id="deep"),
        pytest.param(b"9" * 10_000, "not_json", r"a\.jsonl:3: not JSON", id="digits"),
        (b'"text"', "no_example", r"a\.jsonl:3: expected an object with named fields, not str"),
        (b'{"\\u001b[31m": 1}', "no_example", r"a\.jsonl:3: no example .* it has [^\x1b]*\."),
        (b'{"prompt": "a", "completion": "\\ud800"}', "no_example", r"a\.jsonl:3: character 0 is half of a surrogate pair"),
        (b'{"prompt": 1, "completion": "b"}', "no_example", r"a\.jsonl:3: `prompt` is a int, expected text"),
        (b'{"messages": []}', "no_example", r"a\.jsonl:3: expected a list of messages"),
        (b'{"messages": [{"role": "user"}]}', "no_example", r"a\.jsonl:3, message 1: `content` is missing"),
        (
            b'{"messages": [{"role": "user", "content": [{"type": "image"}]}]}',
            "no_example",
            r"message 1: `content` has parts that are no text",
        ),
        (b'{"messages": [{"role": ["x"], "content": "y"}]}', "unknown_role", r"message 1: the role \['x'\] is not known"),
        (b'{"messages": [{"role": "tool", "content": "y"}]}', "tool_turn", r"message 1: a turn of a tool"),
        (b'{"messages": [{"role": "assistant", "content": null, "tool_calls": [{}]}]}', "tool_turn", r"message 1: a turn of a tool"),
        (b'{"conversations": [{"from": "observation", "value": "y"}]}', "tool_turn", r"message 1: a turn of a tool"),
    ],
)
def test_a_row_that_is_no_example_is_reported_and_the_others_go_on(tmp_path, encoder, line, rule, sentence):
    (tmp_path / "a.jsonl").write_bytes(json.dumps({"messages": TURNS}).encode() + b"\n\n" + line + b"\n")
    good, bad = [prepare(e, encoder, 64) for e in read_examples([str(tmp_path / "a.jsonl")], 0.0)]
    assert not good.failed and bad.failed == [rule] and bad.tokens is None
    assert re.search(sentence, bad.note) and "\x1b" not in bad.note
    assert report_table([good, bad]).select(["id", "kept", "failed", "note"]).to_pylist()[1] == {
        "id": f"{tmp_path / 'a.jsonl'}:3", "kept": False, "failed": [rule], "note": bad.note,
    }  # fmt: skip
    assert dropped_table([good, bad])["failed"].to_pylist() == [[rule]]


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"a\.jsonl: can't be read \(No such file"):
        read_examples([str(tmp_path / "a.jsonl")], 0.1)


@pytest.mark.parametrize("roles", ["au", "aua", "uua", "uaa", "sua", "ausa", "uau"])
def test_turns_in_any_order_are_kept_and_every_answer_is_learned(encoder, roles):
    names = {"a": "assistant", "u": "user", "s": "system"}
    messages = [{"role": names[role], "content": f"{names[role]} {n}"} for n, role in enumerate(roles)]
    prepared = prepare(Example("x", None, "file", False, messages), encoder, 99)
    learned = encoder.tokenizer.decode(prepared.tokens.ids[prepared.tokens.mask].tolist(), skip_special_tokens=False)
    assert learned == "".join(f"assistant {n}<|im_end|>" for n, role in enumerate(roles) if role == "a")


def test_a_conversation_that_the_template_refuses_is_dropped_with_its_sentence(tokenizer_json):
    source = "{% if messages[0].role != 'user' %}{{ raise_exception('roles must alternate') }}{% endif %}" + CHATML
    prepared = prepare(example("Hi"), ChatEncoder(tokenizer_json, ChatTemplate(source, "x.jinja")), 64)
    assert prepared.failed == ["no_answer"]
    begun = Example("x", None, "file", False, [{"role": "assistant", "content": "Hi"}])
    prepared = prepare(begun, ChatEncoder(tokenizer_json, ChatTemplate(source, "x.jinja")), 64)
    assert (
        prepared.failed == ["template_refused"] and prepared.note == "x.jinja: the conversation can't be rendered (roles must alternate)."
    )


def test_a_long_example_is_cut_before_it_is_packed(encoder):
    long = prepare(example("Tell.", "grain " * 200), encoder, 64)
    assert long.truncated and len(long.tokens.ids) == 65 and long.n_tokens > 65 and not long.failed


@pytest.mark.parametrize(
    ("contents", "failed"),
    [
        (("Hi", "Hello"), []),
        (("Nobody answers.",), ["no_answer"]),
        (("Hi", " \n"), ["empty_answer"]),
        (("grain " * 200, "Yes."), ["too_long"]),
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
    with pytest.raises(InputError, match=r"none of its 175 rows is an example; .*seed\.jsonl:1: no example .* it has id, instances, "):
        read_examples([str(shared_data / "sft" / "self_instruct_seed.jsonl")], 0.1)


def test_documents_that_are_held_out_stay_held_out():
    text = "The mill stands at the river. " * 8
    table = pa.Table.from_pylist([{"id": f"d{n}", "url": None, "title": "Mill", "text": text} for n in range(9)])
    found = build_examples([table], "s", 9, 1, 200, lambda identifier: identifier == "d3")
    assert {e.id for e in found if e.held_out} == {"d3"} and len(found) == 9
