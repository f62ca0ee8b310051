"""Tests rows in the layouts of published data sets, for both stages: transcripts, ShareGPT, lists of messages, trees."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpusmill.pipeline.errors import InputError
from corpusmill.train.align import PreferencePair, prepare_pair, read_pairs
from corpusmill.train.sft import Example, read_examples
from corpusmill.train.tuning import report_table as pair_report

Row = dict[str, Any]


def user(content: str) -> Row:
    return {"role": "user", "content": content}


def assistant(content: str) -> Row:
    return {"role": "assistant", "content": content}


def written(folder: Path, rows: list[Row], kind: str) -> list[str]:
    path = folder / f"a.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("\n".join(map(json.dumps, rows)))
    return [str(path)]


# ---- preferences -------------------------------------------------------------------------------------

ASKED = [user("Can you help?"), assistant("Of course."), user("What is a mill?")]
GOOD, BAD = assistant("A machine that grinds."), assistant("No idea.")

TRANSCRIPT = "\n\nHuman: Can you help?\n\nAssistant: Of course.\n\nHuman: What is a mill?\n\nAssistant:"
SHARE_GPT = [{"from": {"user": "human", "assistant": "gpt"}[turn["role"]], "value": turn["content"]} for turn in ASKED]
LAYOUTS: dict[str, Row] = {
    # https://huggingface.co/datasets/Anthropic/hh-rlhf
    "Anthropic": {"chosen": f"{TRANSCRIPT} {GOOD['content']}", "rejected": f"{TRANSCRIPT} {BAD['content']}"},
    # the same with the prompt in a column of its own (Dahoas/full-hh-rlhf)
    "Anthropic, prompt": {"prompt": TRANSCRIPT, "chosen": f" {GOOD['content']}", "rejected": f" {BAD['content']}"},
    # https://github.com/hiyouga/LLaMA-Factory/blob/main/data/README.md, preference datasets
    "ShareGPT": {
        "conversations": SHARE_GPT,
        "chosen": {"from": "gpt", "value": GOOD["content"]},
        "rejected": {"from": "gpt", "value": BAD["content"]},
    },
    "OpenAI": {"messages": ASKED, "chosen": GOOD, "rejected": BAD},
    # https://huggingface.co/datasets/HuggingFaceH4/ultrafeedback_binarized; `messages` are those of `chosen`
    "UltraFeedback": {
        "prompt": ASKED[0]["content"], "prompt_id": "b5", "chosen": [*ASKED, GOOD], "rejected": [*ASKED, BAD],
        "messages": [*ASKED, GOOD], "score_chosen": 8.0, "score_rejected": 3.5,
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_preferences_of_published_data_sets(tmp_path: Path, layout: str, kind: str) -> None:
    (pair,) = read_pairs(written(tmp_path, [LAYOUTS[layout]], kind), 0.0)
    stripped = [{**turn, "content": turn["content"].strip()} for turn in (*pair.prompt, *pair.chosen, *pair.rejected)]
    assert stripped == [*ASKED, GOOD, BAD] and (len(pair.chosen), len(pair.rejected)) == (1, 1)


def test_transcripts_that_part_early_keep_the_turns_behind(tmp_path: Path) -> None:
    row = {
        "chosen": "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Bye\n\nAssistant: Bye!",
        "rejected": "\n\nHuman: Hi\n\nAssistant: Go away",
    }
    (pair,) = read_pairs(written(tmp_path, [row], "jsonl"), 0.0)
    assert pair.prompt == [user("Hi")] and pair.rejected == [assistant("Go away")]
    assert pair.chosen == [assistant("Hello"), user("Bye"), assistant("Bye!")]


@pytest.mark.parametrize(
    ("row", "rule", "sentence"),
    [
        ({"chosen": GOOD, "rejected": BAD}, "no_pair", "none of `prompt`, `instruction` and `conversations`"),
        ({"conversations": "Hi", "chosen": GOOD, "rejected": BAD}, "no_pair", "expected a list of messages"),
        ({"prompt": "Hi", "chosen": GOOD, "rejected": {"from": "cat", "value": "x"}}, "unknown_role", "the role 'cat' is not known"),
        ({"prompt": {"text": "Hi", "role": "prompter"}}, "no_pair", "no question of the tree has two answers with different ranks"),
    ],
)
def test_a_row_that_is_no_preference_is_one_sentence_and_a_report_row(
    tmp_path: Path, encoder: Any, row: Row, rule: str, sentence: str
) -> None:
    found = read_pairs(written(tmp_path, [LAYOUTS["ShareGPT"], row], "jsonl"), 0.0)
    report = pair_report([prepare_pair(pair, encoder, 256) for pair in found]).to_pylist()
    assert [line["kept"] for line in report] == [True, False] and report[1]["failed"] == [rule]
    assert report[1]["id"] == f"{tmp_path / 'a.jsonl'}:2" and sentence in report[1]["note"]
    assert report[1]["note"].startswith(report[1]["id"])


# ---- trees -------------------------------------------------------------------------------------------

# A tree of OpenAssistant (https://github.com/LAION-AI/Open-Assistant/tree/main/oasst-data): the second answer is the best one; two
# questions follow it, one of them without an answer, and one follows the other answer.


def node(name: str, role: str, text: str, *replies: Row, **more: Any) -> Row:
    return {
        "message_id": name,
        "text": text,
        "role": role,
        "lang": "en",
        "review_count": 3,
        "deleted": False,
        **more,
        "replies": [*replies],
    }


TREE: Row = {
    "message_tree_id": "q1",
    "tree_state": "ready_for_export",
    "prompt": node(
        "q1", "prompter", "What is a mill?",
        node("a1", "assistant", "No idea.", node("q2", "prompter", "Really?", node("a2", "assistant", "Really.")), rank=1),
        node(
            "a3", "assistant", "It grinds.",
            node("q3", "prompter", "What?", node("a4", "assistant", "Grain.", rank=1), node("a5", "assistant", "Corn.", rank=0)),
            node("q4", "prompter", "Thanks."),
            rank=0,
        ),
        node("a6", "assistant", "Spam", rank=2, deleted=True),
    ),
}  # fmt: skip


def flat(tree: Row) -> list[Row]:
    """Returns the tree as OpenAssistant's files of messages have it, and their Parquet on the Hugging Face hub."""
    rows: list[Row] = []

    def add(node: Row, parent: str | None) -> None:
        rows.append({key: value for key, value in node.items() if key != "replies"} | {"parent_id": parent, "rank": node.get("rank")})
        for reply in node["replies"]:
            add(reply, node["message_id"])

    add(tree["prompt"], None)
    return rows


FILES = [("trees", "jsonl"), ("messages", "jsonl"), ("messages", "parquet")]


def tree_file(folder: Path, form: str, kind: str) -> list[str]:
    return written(folder, [TREE] if form == "trees" else flat(TREE), kind)


@pytest.mark.parametrize(("form", "kind"), FILES)
def test_examples_are_the_conversations_along_the_best_answers(tmp_path: Path, form: str, kind: str) -> None:
    found = read_examples(tree_file(tmp_path, form, kind), 0.0)
    told = [user("What is a mill?"), assistant("It grinds."), user("What?"), assistant("Corn.")]
    assert [example.messages for example in found] == [told]
    assert found[0].id.startswith(f"{tmp_path / 'a'}.{kind}") and found[0].id.endswith(", thread 1")


@pytest.mark.parametrize(("form", "kind"), FILES)
def test_pairs_are_siblings_by_rank(tmp_path: Path, form: str, kind: str) -> None:
    found = read_pairs(tree_file(tmp_path, form, kind), 0.5)
    root = [user("What is a mill?")]
    assert [(pair.prompt, pair.chosen, pair.rejected) for pair in found] == [
        (root, [assistant("It grinds.")], [assistant("No idea.")]),
        ([*root, assistant("It grinds."), user("What?")], [assistant("Corn.")], [assistant("Grain.")]),
    ]
    assert len({pair.held_out for pair in found}) == 1  # a tree is on one side of the split


def test_each_answered_branch_of_a_best_answer_is_an_example(tmp_path: Path) -> None:
    answered = [node(f"q{n}", "prompter", f"{n}?", node(f"a{n}", "assistant", f"{n}.")) for n in (7, 8)]
    tree = {"prompt": node("q", "prompter", "Hi", node("a", "assistant", "Hello", *answered))}
    found = read_examples(written(tmp_path, [tree], "jsonl"), 0.0)
    assert [[turn["content"] for turn in example.messages] for example in found] == [
        ["Hi", "Hello", "7?", "7."],
        ["Hi", "Hello", "8?", "8."],
    ]


def reasons(found: list[Example] | list[PreferencePair]) -> list[str]:
    return [str(item.note) for item in found if item.failed]


def test_messages_without_their_tree_are_reported(tmp_path: Path) -> None:
    path = str(tmp_path / "a.jsonl")
    rows = [*flat(TREE), {**node("z", "assistant", "c"), "parent_id": ["none"]}]
    found = read_examples(written(tmp_path, rows, "jsonl"), 0.0)
    assert reasons(found) == [f"{path}:11: the file does not have the message before it."]
    assert sum(not example.failed for example in found) == 1


def test_a_file_of_a_tree_without_answers_is_refused(tmp_path: Path) -> None:
    alone = written(tmp_path, [{"prompt": node("q", "prompter", "Hi")}], "jsonl")
    with pytest.raises(InputError, match=r"a\.jsonl:1: a tree of messages without an answer"):
        read_examples(alone, 0.0)
    with pytest.raises(InputError, match=r"a\.jsonl:1: no pair: no question of the tree has two answers with different ranks"):
        read_pairs(alone, 0.0)
