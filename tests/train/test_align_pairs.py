"""Tests pairs from documents and from files."""

import json

import numpy as np
import pyarrow as pa
import pytest

from corpusmill.pipeline.errors import InputError
from corpusmill.train.align import PreferencePair, build_pairs, prepare_pair, read_pairs
from corpusmill.train.template import LLAMA3, ChatEncoder, add_special_tokens
from corpusmill.train.tuning import report_table
from corpusmill.train.user_files import preferences

# ---- preference data ---------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Hi", "chosen": "Hello", "rejected": "Go away"},
        {"instruction": "Hi", "input": "", "output": "unused", "chosen": "Hello", "rejected": "Go away"},
        {"prompt": "Hi", "chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
    ],
)
def test_formats(tmp_path, row):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(row))
    (pair,) = read_pairs([str(path)], 0.0)
    assert (pair.prompt, pair.chosen, pair.rejected) == ([USER], [GOOD], [BAD])


def test_a_prompt_comes_before_what_the_completions_share():
    """Turns with which both begin are a part of the prompt, and do not replace it."""
    rest = [GOOD, turn("user", "Then?")]
    row = {"prompt": [USER], "chosen": [*rest, GOOD], "rejected": [*rest, BAD]}
    assert preferences("a:1", row) == [("a:1", ([USER, *rest], [GOOD], [BAD]))]
    system = turn("system", "Be kind.")
    row = {"prompt": "Then?", "chosen": [system, USER, *rest, GOOD], "rejected": [system, USER, *rest, BAD]}
    assert preferences("a:1", row) == [("a:1", ([system, USER, *rest], [GOOD], [BAD]))]


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


def test_an_answer_whose_begin_the_tokenizer_joins_with_its_prompt_follows_it(tokenizer_json):
    """GPT-2's pattern cuts two line breaks before a word, and keeps them together at the end of a prompt."""
    tokenizer = json.loads(tokenizer_json)
    tokenizer["model"]["merges"].append(["Ċ", "Ċ"])
    tokenizer["model"]["vocab"]["ĊĊ"] = len(tokenizer["model"]["vocab"])
    names = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    special = add_special_tokens(json.dumps(tokenizer).encode(), names)
    joining = ChatEncoder(special, LLAMA3, special={"bos_token": names[0]})
    prompt, whole = joining.encode([USER], add_generation_prompt=True).ids, joining.encode([USER, GOOD]).ids
    assert not np.array_equal(whole[: len(prompt)], prompt)
    chosen = prepare_pair(PreferencePair("x", None, "file", False, [USER], [GOOD], [BAD]), joining, 128).sides[0]
    assert np.array_equal(chosen.ids[: len(prompt)], prompt) and not chosen.mask[: len(prompt)].any()
    answer, text = (joining.tokenizer.decode(ids.tolist(), skip_special_tokens=False) for ids in (chosen.ids[chosen.mask], chosen.ids))
    assert (answer, text) == ("Hello<|eot_id|>", joining.tokenizer.decode(whole.tolist(), skip_special_tokens=False))


def test_a_template_that_rewrites_the_prompt_is_refused(tokenizer_json):
    source = "{{ messages | length }}{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
    rewriting = ChatEncoder(tokenizer_json, source, "x.jinja")
    prepared = prepare_pair(PreferencePair("x", None, "file", False, [USER], [GOOD], [BAD]), rewriting, 64)
    assert prepared.failed == ["template_refused"]
    assert prepared.note.startswith("x.jinja: with its completion the conversation does not begin with the prompt as it is asked")
