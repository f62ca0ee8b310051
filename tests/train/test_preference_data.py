"""Pairs from documents and from files."""

import json
import re

import numpy as np
import pyarrow as pa
import pytest

from corpusmill.pipeline.errors import InputError
from corpusmill.train.chat_folder import add_special_tokens
from corpusmill.train.chat_templates import LLAMA3
from corpusmill.train.corrupted_pairs import build_pairs
from corpusmill.train.pair_files import pair_messages, read_pairs
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


def test_nothing_held_out_is_learned():
    pairs = build_pairs([documents(80)], "s", 80, 1, 150, lambda identifier: int(identifier[1:]) % 4 == 0)
    others = [pair for pair in pairs if pair.kind == "other"]
    assert {pair.held_out for pair in others} == {False, True}
    for pair in others:
        (number,) = {int(n) for n in re.findall(r"number (\d+) ", pair.rejected[0]["content"])}
        assert f"d{number}" == pair.rejected_id and (number % 4 == 0) == pair.held_out


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


@pytest.mark.parametrize("given", ["Then?", [GOOD, turn("user", "Then?")]])
def test_a_prompt_comes_before_what_the_completions_share(given):
    """Turns that both begin with are a part of the prompt, and do not take its place."""
    rest = [GOOD, turn("user", "Then?")]
    row = {"prompt": [USER], "chosen": [*rest, GOOD], "rejected": [*rest, BAD]}
    assert pair_messages("a:1", row) == ([USER, *rest], [GOOD], [BAD])
    system = turn("system", "Be kind.")
    row = {"prompt": given, "chosen": [system, USER, *rest, GOOD], "rejected": [system, USER, *rest, BAD]}
    assert pair_messages("a:1", row) == ([system, USER, *rest], [GOOD], [BAD])


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


def test_a_completion_with_a_blank_turn_among_others_is_empty(encoder):
    silent = [turn("assistant", " "), turn("user", "Well?"), GOOD]
    prepared = prepare_pair(Pair("x", None, "file", False, [USER], silent, [BAD]), encoder, 128)
    assert (prepared.failed, prepared.note) == (["empty"], "chosen says nothing")


def test_a_completion_that_begins_with_a_question_is_dropped(encoder):
    prepared = prepare_pair(Pair("x", None, "file", False, [USER], [turn("user", "Again"), GOOD], [BAD]), encoder, 128)
    assert prepared.failed == ["template_refused"] and "a completion begins with an assistant's turn" in prepared.note


def test_an_answer_whose_begin_the_tokenizer_joins_with_its_prompt_follows_it(tokenizer_json):
    """GPT-2's pattern cuts two line breaks before a word, and keeps them together at the end of a prompt."""
    tokenizer = json.loads(tokenizer_json)
    tokenizer["model"]["merges"].append(["Ċ", "Ċ"])
    tokenizer["model"]["vocab"]["ĊĊ"] = len(tokenizer["model"]["vocab"])
    names = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    special = add_special_tokens(json.dumps(tokenizer).encode(), names)
    joining = ChatEncoder(special, ChatTemplate(LLAMA3, special={"bos_token": names[0]}))
    prompt, whole = joining.encode([USER], add_generation_prompt=True).ids, joining.encode([USER, GOOD]).ids
    assert not np.array_equal(whole[: len(prompt)], prompt)
    chosen = prepare_pair(Pair("x", None, "file", False, [USER], [GOOD], [BAD]), joining, 128).chosen
    assert np.array_equal(chosen.ids[: len(prompt)], prompt) and not chosen.mask[: len(prompt)].any()
    answer, text = (joining.tokenizer.decode(ids.tolist(), skip_special_tokens=False) for ids in (chosen.ids[chosen.mask], chosen.ids))
    assert (answer, text) == ("Hello<|eot_id|>", joining.tokenizer.decode(whole.tolist(), skip_special_tokens=False))


def test_a_template_that_rewrites_the_prompt_is_refused(tokenizer_json):
    source = "{{ messages | length }}{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
    rewriting = ChatEncoder(tokenizer_json, ChatTemplate(source, "x.jinja"))
    prepared = prepare_pair(Pair("x", None, "file", False, [USER], [GOOD], [BAD]), rewriting, 64)
    assert prepared.failed == ["template_refused"]
    assert prepared.note.startswith("x.jinja: with its completion the conversation does not begin with the prompt as it is asked")


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
