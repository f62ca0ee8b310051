"""The stage on a small run: what it learns, what it writes, and that it survives being killed."""

import json

import pyarrow.parquet as pq
import pytest

from corpusmill.pipeline.errors import InputError, NothingKept
from corpusmill.train.chat_templates import CHATML, LLAMA3
from corpusmill.train.sft import SftConfig, SftStage

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


def test_it_learns_from_the_runs_own_documents(pretrained_run, execute):
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


def test_the_model_opens_in_transformers(pretrained_run, execute):
    transformers = pytest.importorskip("transformers")
    execute(pretrained_run, stage())
    folder = pretrained_run.path("sft/model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    prompt = [{"role": "user", "content": "Mill?"}]
    ids = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    assert model(**ids).logits.shape[-1] == 600


def chat_of(run):
    from corpusmill.train.template import load_chat

    return load_chat(run.child("sft/model")), json.loads(run.child("sft/model").read_bytes("config.json"))


def test_llama_3s_template_brings_its_tokens(pretrained_run, execute, tmp_path):
    execute(pretrained_run, stage(template="llama3"))
    metrics, (chat, config) = metrics_of(pretrained_run), chat_of(pretrained_run)
    assert metrics["held_out_loss_after"] < metrics["held_out_loss_before"] - 0.5
    assert chat.template.source == LLAMA3 and config["eos_token_id"] == chat.special_ids["<|eot_id|>"]
    assert not list((tmp_path / "run/sft/checkpoints").glob("*/start"))
    assert execute(pretrained_run, stage(template="llama3")).performed == 0


def test_a_template_of_a_file_goes_with_the_model(pretrained_run, execute, tmp_path):
    own = tmp_path / "own.jinja"
    own.write_text(CHATML.replace("'\\n'", "' says\\n'", 1))
    changes = {"template": str(own), "per_document": 1, "loop": {"steps": 1}}
    execute(pretrained_run, stage(**changes))
    chat, config = chat_of(pretrained_run)
    assert chat.template.source == own.read_text() and config["eos_token_id"] == chat.special_ids["<|im_end|>"]
    assert execute(pretrained_run, stage(**changes)).performed == 0
    own.write_text(CHATML)
    assert execute(pretrained_run, stage(**changes)).performed == 2


def test_a_template_that_is_none():
    with pytest.raises(ValueError, match=r"mistral is no template; those are keep, chatml, llama3, or a file that ends with \.jinja"):
        SftConfig(template="mistral")


def test_killed_and_started_again_it_gives_the_same_bytes(pretrained_run, execute, tree, tmp_path, monkeypatch):
    from corpusmill.train.state import States

    execute(pretrained_run, stage())
    undisturbed = tree(tmp_path / "run")
    pretrained_run.remove_folder("sft")
    save = States.save

    def save_and_die(self, step, *rest):
        save(self, step, *rest)
        if step == 16:
            raise KeyboardInterrupt

    monkeypatch.setattr(States, "save", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        execute(pretrained_run, stage())
    monkeypatch.undo()
    execute(pretrained_run, stage())
    assert tree(tmp_path / "run") == undisturbed


def test_files_take_the_place_of_documents(pretrained_run, execute, tmp_path):
    path = tmp_path / "own.jsonl"
    rows = [{"instruction": f"Number {n}?", "output": f"It is {n}."} for n in range(60)]
    rows += [{"instruction": "Silent?", "output": "  "}, {"messages": [{"role": "user", "content": "Nobody answers."}]}]
    rows += [{"instruction": "grain " * 999, "output": "Behind the context."}]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    done = execute(pretrained_run, stage(files=[str(path)], per_document=8))
    row = done.manifest.tasks["examples"]
    assert (row.rows_in, row.kept, row.dropped) == (63, 60, 3)
    assert row.counts == {"empty_answer": 1, "no_answer": 1, "too_long": 1, "truncated": 1}
    assert row.warnings == ["3 of 63 examples were dropped (empty_answer 1, no_answer 1, too_long 1)."]
    report = pq.read_table(pretrained_run.path("sft/report/part-00000.parquet")).to_pylist()
    assert report[60]["id"] == f"{path}:61" and report[60]["failed"] == ["empty_answer"] and not report[60]["kept"]


def test_a_finished_stage_is_taken_over(pretrained_run, execute):
    execute(pretrained_run, stage())
    assert execute(pretrained_run, stage()).performed == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"instruction": 1}\n{"instruction": ', r"own\.jsonl: none of its 2 rows is an example; .*own\.jsonl:1: no example"),
        ('{"text": "a"}', r"own\.jsonl:1: no example that can be learned from: .* it has text\."),
        ('{"messages": [{"role": "tool", "content": "x"}]}', r"own\.jsonl:1, message 1: a turn of a tool"),
        ("", r"own\.jsonl: the file is empty"),
        ('{"messages": [{"role": "user", "content": "x"}]}', r"none of 1 examples can be learned from \(no_answer 1\)"),
    ],
)
def test_bad_files_are_one_sentence(pretrained_run, execute, tmp_path, content, message):
    path = tmp_path / "own.jsonl"
    path.write_text(content)
    with pytest.raises(NothingKept if "none of 1 examples" in message else InputError, match=message):
        execute(pretrained_run, stage(files=[str(path)], per_document=8))


def test_a_template_that_marks_nothing_is_refused(pretrained_run, execute):
    model = pretrained_run.child("pretrain/model")
    model.write_bytes("chat_template.jinja", b"{% for m in messages %}{{ m.content }}{% endfor %}")
    with pytest.raises(InputError, match=r"chat_template\.jinja: marks nothing that the assistant says"):
        execute(pretrained_run, stage())
