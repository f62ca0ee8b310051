"""Tests that `sft inspect` shows exactly the trained tokens, and nothing that controls a terminal."""

import io
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from corpusmill.pipeline.errors import InputError
from corpusmill.report.sft_look import CUT, LEARNED, ExampleSet, choose, show, source_of_run
from corpusmill.train.sft import DROPPED as DROPPED_SCHEMA
from corpusmill.train.sft import EXAMPLES as SCHEMA
from corpusmill.train.sft import Example, prepare
from corpusmill.train.tuning import DROPPED_FILE, EXAMPLES_FILE, items_table

ROLES = {"u": "user", "a": "assistant", "s": "system"}


def example(identifier: str, roles: str, *contents: str, held_out: bool = False) -> Example:
    return Example(identifier, None, "file", held_out, [{"role": ROLES[r], "content": c} for r, c in zip(roles, contents, strict=True)])


EXAMPLES = [
    example("a1", "sua", "Be brief.", "Hi <|im_end|> \x1b[31mred", "Hello <script>"),
    example("a2", "uaua", "One?", "It is one.", "Two?", "It is two."),
    example("b1", "ua", "Held out?", "Yes.", held_out=True),
    example("b2", "ua", "Long?", "The mill grinds the grain. " * 40),
]
DROPPED = [
    example("c1", "ua", "Silent?", " "),
    Example("own.jsonl:7", None, "file", False, failed=["not_json"], note="own.jsonl:7: not JSON."),
]


@pytest.fixture
def source(encoder) -> ExampleSet:
    return ExampleSet("here", encoder, 150, EXAMPLES, [])


def printed(source: ExampleSet, shown, tokens: bool = False, **console) -> str:
    file = io.StringIO()
    show(source, shown, Console(file=file, highlight=False, soft_wrap=True, **console), tokens)
    return file.getvalue()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("sua"), st.text(st.characters(exclude_categories=["Cs"]), max_size=40)), min_size=1, max_size=6))
def test_states_are_those_of_the_targets(encoder, turns):
    one = example("x", "".join(role for role, _ in turns), *(content for _, content in turns))
    prepared, shown = prepare(one, encoder, 64), ExampleSet("here", encoder, 64, [one], None).show(one)
    assert [token.id for token in shown.tokens] == prepared.encoded.ids.tolist()
    assert shown.count(CUT) == max(0, len(prepared.encoded.ids) - 65) and shown.example.failed == prepared.failed
    targets = prepared.tokens.mask.tolist() if prepared.tokens else [False] * len(shown.tokens[:65])
    assert [token.state == LEARNED for token in shown.tokens[:65]] == targets
    assert shown.count(LEARNED) == prepared.n_target_tokens
    if "\ufffd" not in (whole := encoder.tokenizer.decode(prepared.encoded.ids.tolist(), skip_special_tokens=False)):
        assert prepared.truncated or "".join(stretch.text for stretch in shown.stretches) == whole


def test_marks_where_there_is_no_colour(source):
    text = printed(source, choose(source, 2))
    assert "2 of here: 3 examples to learn from, 1 held out, 0 dropped; context 150" in text
    assert "a1 file, " in text and "\x1b" not in text
    assert (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi <\\|im_end|> red<|im_end|>\n"
        "<|im_start|>assistant\n{+Hello <script><|im_end|>+}\n"
    ) in text
    assert re.findall(r"\{\+(.*?)\+\}", text.split("a2 file")[1]) == ["It is one.<|im_end|>", "It is two.<|im_end|>"]
    long = printed(source, choose(source, 1, identifier="b2"))
    assert re.search(r"\{\+The mill .*\+\}\[-.*<\|im_end\|>\n-\]\n", long) and re.search(r"tokens, \d+ learned, \d+ cut off", long)


def test_a_run_shows_what_it_kept_and_what_it_dropped(pretrained_run, finish, encoder):
    prepared = [prepare(one, encoder, 160) for one in [*EXAMPLES, *DROPPED]]
    kept, dropped = ([one for one in prepared if bool(one.failed) is which] for which in (False, True))
    finish(pretrained_run, "sft", {EXAMPLES_FILE: items_table(kept, SCHEMA), DROPPED_FILE: items_table(dropped, DROPPED_SCHEMA)})
    folder = pretrained_run.root
    pretrained_run.write_bytes("run.json", json.dumps({"recipe": {"sft": {"template": "llama3"}}}).encode())
    source = source_of_run(folder)
    assert source.context == 160 and [one.example.id for one in choose(source, 9)] == ["a1", "a2", "b2"]
    assert [one.example.id for one in choose(source, 9, held_out=True)] == ["b1"]
    silent, bad = choose(source, 9, dropped=True)
    assert (silent.example.failed, silent.example.note, bool(silent.tokens)) == (["empty_answer"], None, True)
    assert (bad.example.failed, bad.example.note, bad.tokens) == (["not_json"], "own.jsonl:7: not JSON.", [])
    assert choose(source, 1, identifier="own.jsonl:7")[0].example.failed == ["not_json"]
    assert choose(source, 1)[0].tokens[0].text == "<|begin_of_text|>"
    with pytest.raises(InputError, match="no example with the id 'zz'"):
        choose(source, 1, identifier="zz")
    pretrained_run.child("sft").remove_folder("data")
    with pytest.raises(InputError, match=r"has no examples of instruction tuning yet \(run: corpusmill run "):
        source_of_run(folder)
