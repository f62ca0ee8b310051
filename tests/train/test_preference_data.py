"""Pairs from documents and from files."""

import json
import re

import numpy as np
import pyarrow as pa
import pytest

from corpusmill.pipeline.errors import InputError
from corpusmill.train.corrupted_pairs import build_pairs
from corpusmill.train.pair_files import read_pairs
from corpusmill.train.preference_data import Pair, pairs_from_table, pairs_table, prepare_pair, report_table
from corpusmill.train.template import ChatEncoder, ChatTemplate


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


USER, GOOD, BAD = turn("user", "Hi"), turn("assistant", "Hello"), turn("assistant", "Go away")


def documents(count: int) -> pa.Table:
    rows = []
    for n in range(count):
        text = " ".join(f"Mill number {n} grinds grain of the field {k}." for k in range(12))
        rows.append({"id": f"d{n}", "url": f"https://mill.test/{n}", "title": "", "text": text})
    return pa.Table.from_pylist(rows)


def test_rejected_completions_are_false_and_as_long():
    pairs = build_pairs([documents(80)], "s", 80, 1, 150, lambda _: False)
    assert len(pairs) == 80 and {pair.kind for pair in pairs} == {"other", "repeated", "shuffled"}
    for pair in pairs:
        chosen, rejected = pair.chosen[0]["content"], pair.rejected[0]["content"]
        assert chosen != rejected and abs(len(chosen) - len(rejected)) < 80
        number = pair.id[1:]
        assert f"number {number} " in chosen
        if pair.kind == "other":
            assert f"number {number} " not in rejected
        if pair.kind == "shuffled":
            assert sorted(chosen.split()) == sorted(rejected.split())


def test_a_script_without_spaces_is_shuffled_by_characters():
    text = "水车在河边转动把谷物磨成面粉供全村人食用。" * 12
    table = pa.Table.from_pylist([{"id": f"d{n}", "url": None, "title": "", "text": f"{text}{n}"} for n in range(40)])
    for pair in build_pairs([table], "s", 40, 1, 150, lambda _: False):
        if pair.kind != "other":
            assert pair.chosen != pair.rejected


def test_the_same_pairs_in_any_shards():
    whole = documents(30)
    parts = [whole.slice(20), whole.slice(0, 20)]
    assert build_pairs([whole], "s", 20, 1, 150, lambda _: False) == build_pairs(parts, "s", 20, 1, 150, lambda _: False)


def test_one_document_has_no_other():
    for pair in build_pairs([documents(1)], "s", 5, 1, 150, lambda _: False):
        assert pair.kind != "other" or pair.chosen == pair.rejected


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Hi", "chosen": "Hello", "rejected": "Go away"},
        {"instruction": "Hi", "input": "", "output": "unused", "chosen": "Hello", "rejected": "Go away"},
        {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
        {"prompt": "Hi", "chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
    ],
)
def test_formats(tmp_path, row):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(row))
    (pair,) = read_pairs([str(path)], 0.0)
    assert (pair.prompt, pair.chosen, pair.rejected) == ([USER], [GOOD], [BAD])


def test_only_the_completion_is_compared(encoder):
    prompt = [USER, GOOD, turn("user", "Again")]
    prepared = prepare_pair(Pair("x", None, "file", False, prompt, [GOOD], [BAD]), encoder, 128)
    for side, completion in ((prepared.chosen, "Hello"), (prepared.rejected, "Go away")):
        borders = np.flatnonzero(np.diff(side.mask.astype(int), prepend=0, append=0))
        assert len(borders) == 2
        text = encoder.tokenizer.decode(side.ids[borders[0] : borders[1]].tolist(), skip_special_tokens=False)
        assert text == f"{completion}<|im_end|>"


@pytest.mark.parametrize(
    ("chosen", "rejected", "failed", "note"),
    [
        ("Hello", "Go away", [], None),
        ("Hello", " Hello ", ["equal"], "chosen and rejected are the same"),
        ("Hello", " ", ["empty"], "rejected says nothing"),
        ("", "", ["equal", "empty"], "chosen and rejected are the same; chosen says nothing; rejected says nothing"),
        ("Hello", "grain " * 99, ["too_long"], r"rejected has \d+ tokens with its prompt, and 65 fit"),
    ],
)
def test_what_is_dropped(encoder, chosen, rejected, failed, note):
    pair = Pair("x", None, "file", False, [USER], [turn("assistant", chosen)], [turn("assistant", rejected)])
    prepared = prepare_pair(pair, encoder, 64)
    assert prepared.failed == failed and (prepared.note is note is None or re.fullmatch(note, prepared.note))


def test_a_row_that_is_no_pair_is_a_report_row(tmp_path, encoder):
    path = tmp_path / "own.jsonl"
    rows = ['{"prompt": "a", "chosen": "b", "rejected": "c"}', '{"prompt": "a", "chosen": "b"}', "{not JSON", "[1]",
            '{"prompt": "a", "chosen": [{"role": "alien", "content": "b"}], "rejected": "c"}']  # fmt: skip
    path.write_text("\n".join(rows))
    prepared = [prepare_pair(pair, encoder, 64) for pair in read_pairs([str(path)], 0.0)]
    report = report_table(prepared).to_pylist()
    assert [row["kept"] for row in report] == [True, False, False, False, False]
    assert [row["id"] for row in report] == [f"{path}:{number}" for number in range(1, 6)]
    assert [row["failed"] for row in report[1:]] == [["no_pair"], ["not_json"], ["no_pair"], ["unknown_role"]]
    assert all(row["note"].startswith(f"{path}:{number}") for number, row in enumerate(report[1:], 2))
    assert "`rejected` is missing" in report[1]["note"] and report[1]["chars_in"] == report[1]["n_chosen_tokens"] == 0


def test_a_file_without_any_pair_is_refused(tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text('{"chosen": "b"}\n{"rejected": "b"}')
    with pytest.raises(InputError, match=r"own\.jsonl: none of its 2 rows is a pair; .*own\.jsonl:1: no pair: `rejected` is missing"):
        read_pairs([str(path)], 0.0)


def test_a_template_that_rewrites_the_prompt_is_refused(tokenizer_json):
    source = "{{ messages | length }}{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
    rewriting = ChatEncoder(tokenizer_json, ChatTemplate(source, "x.jinja"))
    with pytest.raises(InputError, match=r"x\.jinja: writes a prompt differently"):
        prepare_pair(Pair("x", None, "file", False, [USER], [GOOD], [BAD]), rewriting, 64)


def test_tables_give_the_pairs_back():
    pairs = build_pairs([documents(10)], "s", 10, 1, 150, lambda identifier: identifier == "d1")
    assert pairs_from_table(pairs_table(pairs)) == pairs


def test_real_pairs(shared_data, encoder):
    pairs = read_pairs([str(shared_data / "dpo" / "rasbt_preferences.jsonl")], 0.1)
    prepared = [prepare_pair(pair, encoder, 512) for pair in pairs]
    assert len(pairs) == 1100
    assert sum(p.failed == ["equal"] for p in prepared) == sum(
        p.pair.chosen[0]["content"].strip() == p.pair.rejected[0]["content"].strip() for p in prepared
    )
