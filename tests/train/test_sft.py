"""Tests the usual formats, and examples that can't be learned whole."""

import gzip
import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import zstandard
from small_models import random_ids, random_model

from corpusmill.pipeline.errors import InputError, NothingKept
from corpusmill.pipeline.storage import Storage
from corpusmill.train.checkpoint import CheckpointDir, load_model, save_model
from corpusmill.train.data import IGNORED, pack
from corpusmill.train.sft import DROPPED, Example, build_examples, grown, prepare, read_examples, with_template
from corpusmill.train.template import CHATML, ChatEncoder, load_chat, template_files
from corpusmill.train.tuning import SftConfig, SftStage, StartModel, items_table, report_table

# ---- sft data ----------------------------------------------------------------------------------------

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
    path.write_text(json.dumps([{"instruction": "Add.", "input": given, "output": "3"} for given in ("", None, [], 0)]))
    assert [not example.failed for example in read_examples([str(path)], 0.0)] == [True, True, False, False]


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
        ("a.jsonl", b"", r"a\.jsonl: the file is empty"),
        ("a.jsonl", b"[1]\n2", r"a\.jsonl: none of its 2 rows is an example; .*a\.jsonl:1: expected an object with named fields, not list"),
        ("a.jsonl.gz", gzip.compress(b"{}" * 999, mtime=0)[:-9], r"a\.jsonl\.gz: not a whole gzip file \(Truncated"),
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
        (b'{"\\u001b[31m": 1}', "no_example", r"a\.jsonl:3: no example .* it has [^\x1b]*\."),
        (b'{"messages": [{"role": ["x"], "content": "y"}]}', "unknown_role", r"message 1: the role \['x'\] is not known"),
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
    assert items_table([bad], DROPPED)["failed"].to_pylist() == [[rule]]


def test_a_conversation_that_the_template_refuses_is_dropped_with_its_sentence(tokenizer_json):
    source = "{% if messages[0].role != 'user' %}{{ raise_exception('roles must alternate') }}{% endif %}" + CHATML
    prepared = prepare(example("Hi"), ChatEncoder(tokenizer_json, source, "x.jinja"), 64)
    assert prepared.failed == ["no_answer"]
    begun = Example("x", None, "file", False, [{"role": "assistant", "content": "Hi"}])
    prepared = prepare(begun, ChatEncoder(tokenizer_json, source, "x.jinja"), 64)
    assert (
        prepared.failed == ["template_refused"] and prepared.note == "x.jinja: the conversation can't be rendered (roles must alternate)."
    )


def test_documents_that_are_held_out_stay_held_out():
    text = "The mill stands at the river. " * 8
    table = pa.Table.from_pylist([{"id": f"d{n}", "url": None, "title": "Mill", "text": text} for n in range(9)])
    found = build_examples([table], "s", 9, 1, 200, lambda identifier: identifier == "d3")
    assert {e.id for e in found if e.held_out} == {"d3"} and len(found) == 9


# ---- vocabulary --------------------------------------------------------------------------------------

# A model that gets rows for new tokens, against transformers' resize, and as a folder in which everything agrees.

transformers = pytest.importorskip("transformers")


@pytest.mark.parametrize("tied", [False, True])
def test_new_rows_are_the_mean_as_transformers_has_it(tmp_path, tied):
    model = random_model(tied=tied)
    save_model(model, tmp_path / "m")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    theirs.resize_token_embeddings(101, mean_resizing=True)
    ours = grown(model, [97, 98, 99, 100])
    assert ours.arch.vocab_size == 101 and (ours.lm_head.weight is ours.model.embed_tokens.weight) is tied
    for new, old, peer in ((ours.model.embed_tokens, model.model.embed_tokens, theirs.get_input_embeddings()),
                           (ours.lm_head, model.lm_head, theirs.get_output_embeddings())):  # fmt: skip
        assert torch.equal(new.weight[:97], old.weight)
        torch.testing.assert_close(new.weight[97:], peer.weight[97:], rtol=0, atol=1e-4)  # theirs is drawn from around the mean
    ids = random_ids((2, 9))
    logits = ours(ids)
    torch.testing.assert_close(logits[..., :97], model(ids))
    torch.testing.assert_close(logits[..., 97:], model(ids).mean(-1, keepdim=True).expand(-1, -1, 4), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("tied", "rows"), [(True, 0), (False, 40)])
def test_the_folder_opens_in_transformers_and_its_files_agree(tmp_path, tokenizer_json, tied, rows):
    """`rows` is the number of rows that the embedding has beyond the tokenizer's tokens."""
    size = len(json.loads(tokenizer_json)["model"]["vocab"])
    files = {"tokenizer.json": tokenizer_json, **template_files(64, end_token="<|endoftext|>")}
    save_model(random_model(vocab_size=size + rows, tied=tied), tmp_path / "parent", files)
    parent = Storage(str(tmp_path / "parent"))
    start, checkpoint_dir = StartModel("parent", parent.root), CheckpointDir(str(tmp_path), str(tmp_path / "log.jsonl"))
    assert with_template(SftConfig(), start, checkpoint_dir) is start
    folder = with_template(SftConfig(template="llama3"), start, checkpoint_dir).storage
    model = transformers.AutoModelForCausalLM.from_pretrained(folder.root)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder.root)
    begin, end = size, size + 3
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, len(tokenizer)) == (begin, end, 1, size + 4)
    assert (model.config.bos_token_id, model.config.eos_token_id, model.config.pad_token_id) == (begin, end, 1)
    assert (model.generation_config.bos_token_id, model.generation_config.eos_token_id) == (begin, [0, 3, end])
    assert model.config.vocab_size == size + max(rows, 4) and model.config.tie_word_embeddings is tied
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "Mill?"}], add_generation_prompt=True, return_tensors="pt")[
        "input_ids"
    ]
    torch.testing.assert_close(load_model(folder.root)(ids), model(ids).logits, rtol=1e-4, atol=1e-4)
    assert load_chat(folder).encode([{"role": "user", "content": "Mill?"}], True).ids.tolist() == ids[0].tolist()


# ---- sft ---------------------------------------------------------------------------------------------

# The stage on a small run: what it learns and writes, and resuming after kills.

QUICK = {
    "epochs": 4,
    "batch": 4,
    "evaluate_every": 5,
    "per_document": 1,
    "loop": {"threads": 1, "steps": 24, "save_every": 8, "optimizer": {"lr": 2e-2, "muon_lr": 0.02}},
}


def stage(**changes) -> SftStage:
    return SftStage(SftConfig.model_validate({**QUICK, **changes}))


def metrics_of(run) -> dict:
    return json.loads(run.child("sft").read_bytes("metrics.json"))


def test_it_learns_from_the_runs_own_documents_and_opens_in_transformers(pretrained_run, execute):
    done = execute(pretrained_run, stage())
    metrics = metrics_of(pretrained_run)
    assert metrics["examples"] + metrics["held_out_examples"] == 80
    assert metrics["held_out_loss_after"] < metrics["held_out_loss_before"] - 0.5
    assert "held-out loss" in done.stage.summary(done)
    names = {o.path for row in done.manifest.rows() for o in row.outputs}
    assert {"model/config.json", "model/model.safetensors", "model/tokenizer.json", "model/chat_template.jinja"} <= names
    examples = pq.read_table(pretrained_run.path("sft/data/examples.parquet")).to_pylist()
    assert {e["kind"] for e in examples} == {"title", "continuation", "heading"}
    report = pq.read_table(pretrained_run.path("sft/report/part-00000.parquet"))
    assert report.num_rows == 80 and report["n_target_tokens"].to_pylist()[0] > 0
    folder = pretrained_run.path("sft/model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    prompt = [{"role": "user", "content": "Mill?"}]
    ids = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    assert model(**ids).logits.shape[-1] == 600
    assert execute(pretrained_run, stage()).performed == 0


def chat_of(run):
    from corpusmill.train.template import load_chat

    return load_chat(run.child("sft/model")), json.loads(run.child("sft/model").read_bytes("config.json"))


def test_a_template_of_a_file_goes_with_the_model(pretrained_run, execute, tmp_path):
    own = tmp_path / "own.jinja"
    own.write_text(CHATML.replace("'\\n'", "' says\\n'", 1))
    changes = {"template": str(own), "per_document": 1, "loop": {"steps": 1}}
    execute(pretrained_run, stage(**changes))
    chat, config = chat_of(pretrained_run)
    assert chat.source == own.read_text() and config["eos_token_id"] == chat.special_ids["<|im_end|>"]
    assert execute(pretrained_run, stage(**changes)).performed == 0
    own.write_text(CHATML)
    assert execute(pretrained_run, stage(**changes)).performed == 2


def test_files_and_templates_without_any_answer_are_refused(pretrained_run, execute, tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps({"messages": TURNS[:1]}))
    with pytest.raises(NothingKept, match=r"none of 1 examples can be learned from \(no_answer 1\)"):
        execute(pretrained_run, stage(files=[str(path)], per_document=8))
    template = b"{% for m in messages %}{{ m.content }}{% endfor %}"
    pretrained_run.child("pretrain/model").write_bytes("chat_template.jinja", template)
    with pytest.raises(InputError, match=r"chat_template\.jinja: marks nothing that the assistant says"):
        execute(pretrained_run, stage())


def test_killed_and_started_again_it_gives_the_same_bytes(pretrained_run, killed_and_resumed):
    killed_and_resumed(pretrained_run, stage(loop={**QUICK["loop"], "steps": 4, "save_every": 2}))


def test_files_take_the_place_of_documents(pretrained_run, execute, tmp_path):
    path = tmp_path / "own.jsonl"
    rows = [{"instruction": f"Number {n}?", "output": f"It is {n}."} for n in range(60)]
    rows += [{"instruction": "Silent?", "output": "  "}, {"messages": [{"role": "user", "content": "Nobody answers."}]}]
    rows += [{"instruction": "grain " * 999, "output": "Behind the context."}]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    done = execute(pretrained_run, stage(files=[str(path)], per_document=8))
    row = done.manifest.tasks["examples"]
    assert (row.rows_in, row.kept, row.dropped) == (63, 60, 3)
    assert row.failed == {"empty_answer": 1, "no_answer": 1, "too_long": 1} and row.counts == {"truncated": 1}
    assert row.warnings == ["3 of 63 examples were dropped (empty_answer 1, no_answer 1, too_long 1)."]
    report = pq.read_table(pretrained_run.path("sft/report/part-00000.parquet")).to_pylist()
    assert report[60]["id"] == f"{path}:61" and report[60]["failed"] == ["empty_answer"] and not report[60]["kept"]


# ---- trl labels --------------------------------------------------------------------------------------

# Ids and labels of packed conversations, against those with which TRL's SFTTrainer would train (`assistant_only_loss`).

trl = pytest.importorskip("trl")

CONTEXT = 400
TRL_TURNS = {
    "s": ("system", "You grind grain. "),
    "u": ("user", " What is a mill,\n\nand why?"),
    "a": ("assistant", "It grinds größere Körner 谢谢.\n"),
}
ROLES = ["ua", "suauaua", "au", "uua", "uaa", "uau", "ua" * 9, "u" * 19 + "a"]


def conversations() -> list[list[dict[str, str]]]:
    return [
        [{"role": TRL_TURNS[kind][0], "content": TRL_TURNS[kind][1] * (1 + (row + n) % 3)} for n, kind in enumerate(roles)]
        for row, roles in enumerate(ROLES)
    ]


@pytest.mark.parametrize("template", ["chatml", "llama3"])
def test_ids_and_labels_are_those_of_trl(tmp_path, tokenizer_json, template):
    from datasets import Dataset

    save_model(random_model(vocab_size=600, context=CONTEXT), tmp_path / "m", {"tokenizer.json": tokenizer_json, **template_files(CONTEXT)})
    parent = Storage(str(tmp_path / "m"))
    encoder = load_chat(parent, template)
    checkpoint_dir = CheckpointDir(str(tmp_path), str(tmp_path / "log.jsonl"))
    folder = with_template(SftConfig(template=template), StartModel("m", parent.root), checkpoint_dir).storage
    arguments = trl.SFTConfig(
        str(tmp_path), assistant_only_loss=True, max_length=CONTEXT + 1, use_cpu=True, bf16=False, report_to=[], disable_tqdm=True
    )
    given = Dataset.from_list([{"messages": messages} for messages in conversations()])
    trainer = trl.SFTTrainer(folder.root, arguments, train_dataset=given)
    theirs = trainer.data_collator(list(trainer.train_dataset))

    prepared = [prepare(Example(str(n), None, "file", False, messages), encoder, CONTEXT) for n, messages in enumerate(conversations())]
    kept = [p.tokens for p in prepared if p.tokens]
    packed = pack(kept, CONTEXT)
    assert [p.truncated for p in prepared] == [len(roles) > 9 for roles in ROLES]
    assert prepared[-1].failed == ["too_long"]
    assert len(kept) == len(theirs["labels"]) == len(ROLES) - 1 and packed.n_rows < len(kept)
    for row, members in enumerate(packed.members):
        for segment, number in enumerate(members):
            length = int(theirs["attention_mask"][number].sum())
            here = packed.segments[row] == segment
            assert packed.ids[row][here].tolist() == theirs["input_ids"][number, : length - 1].tolist()
            assert packed.targets[row][here].tolist() == theirs["labels"][number, 1:length].tolist()
        assert (packed.targets[row][packed.segments[row] == len(members)] == IGNORED).all()
    assert np.count_nonzero(packed.targets != IGNORED) == int((theirs["labels"][:, 1:] != -100).sum())
