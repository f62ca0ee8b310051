"""Tests `corpusmill export`: the folder in transformers, and a card with the run's figures."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from built_run import HOSTILE, RunBuilder, write_run
from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from small_models import random_model
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from corpusmill.cli.export import export_model as export
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.manifest import Manifest, TaskRow
from corpusmill.pipeline.safe import safe_text
from corpusmill.report.markdown import block
from corpusmill.report.model_card import model_card
from corpusmill.train.checkpoint import load_model, save_model
from corpusmill.train.template import template_files

METRICS: dict[str, dict[str, Any]] = {
    "pretrain": {"steps": 500, "tokens": 1_024_000, "epochs": 0.37, "loss": 4.4466, "skipped": 0, "validation": {"documents": 4}},
    "sft": {"examples": 1026, "held_out_examples": 173, "steps": 120, "target_tokens": 118313, "skipped_steps": 2,
            "held_out_loss_before": 4.86474, "held_out_loss_after": 4.50698},
    "align": {"pairs": 693, "held_out_pairs": 106, "loss": "sigmoid", "beta": 0.1, "steps": 80, "skipped_steps": 0,
              "held_out_before": {"loss": 0.693147, "margin": 0.0, "preference_accuracy": 0.745283},
              "held_out_after": {"loss": 0.579675, "margin": 0.445896, "preference_accuracy": 0.754717}},
}  # fmt: skip
ADAMW = {"kind": "adamw", "lr": 3e-4, "weight_decay": 0.0}
LOOP = {"optimizer": ADAMW, "schedule": "linear", "warmup": 10, "clip": 1.0, "precision": "auto"}
RECIPE = {
    "ingest": {},
    "filter": {"steps": [{"language": {"keep": ["en", "de"]}}, {"toxicity": {}}]},
    "dedup": {"keep": "longest", "threshold": 0.75},
    "pretrain": {"batch": 8, "loop": LOOP},
    "sft": {"files": [], "loop": LOOP, "lora": {"rank": 8, "alpha": 16.0, "targets": ["q_proj"]}},
    "align": {"files": ["pairs.jsonl"], "loop": LOOP},
    "evaluate": {"temperature": 0.6, "top_k": 40},
}
BITS = {"value": 1.69734, "low": 1.65362, "high": 1.81895, "documents": 7, "bytes": 340947}
TASK = {"title": "HellaSwag", "metric": "acc", "items": 1000, "total": 10042, "chance": 0.25,
        "metrics": {"acc": {"value": 0.2931, "stderr": 0.0144}}, "overlap": {"found": 12, "searched": 990, "documents": 3}}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunBuilder:
    """Makes a run whose three models are the same random one."""
    run = write_run(tmp_path_factory.mktemp("export") / "run")
    run.json("run.json", {"inputs": ["crawl/", "hf://datasets/some/pages/data/*"], "recipe": RECIPE, "versions": {"corpusmill": "0.1"}})
    files = {"tokenizer.json": run.storage.read_bytes("tokenizer/tokenizer.json"), **template_files(64)}
    save_model(random_model(vocab_size=400), run.folder / "model", files)
    outputs = {f"model/{path.name}": path.read_bytes() for path in sorted((run.folder / "model").iterdir())}
    for stage, metrics in METRICS.items():
        run.stage(stage, [{**outputs, "metrics.json": json.dumps(metrics).encode()}])
    said = {"kind": "answer", "prompt": "````\n# not a title", "text": f"x {HOSTILE} ``` y"}
    run.json("evaluate/samples.json", {"align": [said]})
    run.json("evaluate/scores.json", {"pretrain": {"bits_per_byte": BITS}, "align": {"bits_per_byte": BITS, "tasks": {"hellaswag": TASK}}})
    evaluated(run)
    return run


def evaluated(run: RunBuilder) -> None:
    """Records that the run's current models have been evaluated."""
    models = [f"{stage}/model/model.safetensors" for stage in METRICS]
    inputs = [run.ref(path) for path in models]
    manifest = Manifest(run.storage.child("evaluate"))
    manifest.append(TaskRow("models", "e", inputs, "c", "v", 0, 0, 0, 0, []))
    manifest.finish(["models"])


@pytest.fixture(scope="module")
def exported(run: RunBuilder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "small"
    assert export(str(run.folder), folder, license_="apache-2.0") == ("align", None)
    return folder


@pytest.fixture(scope="module")
def card(exported: Path) -> str:
    return (exported / "README.md").read_text()


@torch.no_grad()
def test_transformers_opens_it_with_the_same_logits_ids_and_template(run: RunBuilder, exported: Path) -> None:
    ids = torch.randint(400, (2, 60), generator=torch.Generator().manual_seed(1))
    theirs = AutoModelForCausalLM.from_pretrained(exported, dtype=torch.float64)
    ours = load_model(run.folder / "align" / "model", dtype=torch.float64)
    torch.testing.assert_close(theirs(ids).logits, ours(ids), rtol=0, atol=1e-10)
    assert (exported / "model.safetensors").read_bytes() == (run.folder / "align/model/model.safetensors").read_bytes()
    tokenizer = AutoTokenizer.from_pretrained(exported)
    text, trained = "Word 5x30 and ünïcode 🙂\n\n  again", run.storage.read_bytes("tokenizer/tokenizer.json").decode()
    assert tokenizer(text)["input_ids"] == Tokenizer.from_str(trained).encode(text).ids
    messages = [{"role": "user", "content": "Mill?"}]
    assert tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) == (
        "<|im_start|>user\nMill?<|im_end|>\n<|im_start|>assistant\n"
    )
    generation = GenerationConfig.from_pretrained(exported)
    assert (generation.temperature, generation.top_k, generation.max_new_tokens) == (0.6, 40, 32)
    assert generation.eos_token_id == [0, 3] and generation.pad_token_id == 1


def test_its_own_instructions_run(exported: Path, card: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(exported)
    (program,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    exec(compile(program, "README.md", "exec"), {})
    assert capsys.readouterr().out.endswith("\n")


def test_hugging_face_reads_the_front_matter(exported: Path) -> None:
    data = ModelCard.load(exported / "README.md").data
    assert (data.license, data.language, data.datasets) == ("apache-2.0", ["en", "de"], ["some/pages"])
    assert (data.library_name, data.pipeline_tag) == ("transformers", "text-generation")
    assert data.tags == ["llama", "corpusmill", "conversational", "sft", "align"] and data.model_name == "small"
    assert [(r.dataset_name, r.metric_type, r.metric_value) for r in data.eval_results or ()] == [
        ("held-out documents of the run", "bits_per_byte", 1.69734), ("HellaSwag", "acc", 0.2931),
    ]  # fmt: skip


FIGURES = (
    "| dedup | 45 | 42 | 3 | 93.3% |",
    "### filter: 11 of 56 documents dropped",
    r"| `symbols` | symbol\_ratio \> 0.1 | 4 | 7.1% | 3 |",
    r"| `never` | words \> 100,000 | 0 | 0.0% | 0 |",
    "| copies removed, near | 3 (6.7% of 45) |",
    "| bytes a token | 2.5 on 10 documents of the run |",
    "| tokens seen | 1,024,000 |",
    "| loss over the last steps | 4.447 nats a token |",
    "| loss on held-out examples | 4.865 before, 4.507 after |",
    r"| trained | a LoRA of rank 8, alpha 16, on q\_proj |",
    "| loss | DPO |",
    "| held-out pairs ranked right | 74.5% before, 75.5% after |",
    "Intervals are of 95%; ± is one standard error. This model is `align`.",
    "| bits per byte | 1.697 (1.654 to 1.819) | 1.697 (1.654 to 1.819) | 340,947 bytes of 7 held-out documents of the run |",
    "| HellaSwag, acc |  | 29.3% ± 1.4 | 1,000 items of 10,042, guessing gives 25.0%, 12 of 990 are in the run's documents |",
    "- A toxicity classifier, which errs in both directions, dropped 0 documents: the model can write offensive text.",
    "- Personal data was not removed from the documents.",
    "| made from | pairs.jsonl |",
    "- ingest: crawl-0.warc.gz: cut short at byte 60000, so its last record is left out.",
)


def test_every_figure_is_the_runs(card: str) -> None:
    assert [line for line in FIGURES if line not in card] == []


def test_the_card_tells_which_weights_they_are(run: RunBuilder, exported: Path, card: str) -> None:
    assert hashlib.sha256((exported / "model.safetensors").read_bytes()).hexdigest() in card
    assert f"| parameters | {random_model(vocab_size=400).arch.parameters():,} |" in card


def test_nothing_from_models_or_documents_is_markup(card: str) -> None:
    tokens = MarkdownIt("commonmark").enable("table").parse(card.split("---\n", 2)[2])
    blocks = [token.content for token in tokens if token.type == "fence"]
    assert any("# not a title" in text for text in blocks) and any("<script>alert(1)" in text for text in blocks)
    inline = [child for token in tokens for child in token.children or ()]
    assert not [token for token in [*tokens, *inline] if token.type in ("html_block", "html_inline", "link_open", "image")]
    assert [t.content for t, before in zip(tokens[1:], tokens) if before.type == "heading_open" and before.tag == "h1"] == ["small"]
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e]", card)


@given(st.text(alphabet=st.sampled_from("ab `~*_#|\\<>&;[]()!-+=:/.\n\r\t\x1b\u202e1"), max_size=60))
def test_any_text_in_a_block_stays_text(text: str) -> None:
    (fence,) = MarkdownIt("commonmark").parse(block(text))
    assert (fence.type, fence.content) == ("fence", safe_text(text) + "\n")


def test_it_is_the_same_again_and_another_type_where_asked(run: RunBuilder, exported: Path, tmp_path: Path) -> None:
    export(str(run.folder), tmp_path / "small", license_="apache-2.0")
    for path in exported.iterdir():
        assert (tmp_path / "small" / path.name).read_bytes() == path.read_bytes()
    assert export(str(run.folder), tmp_path / "small", "pretrain", name="base", dtype="bf16", force=True) == ("pretrain", None)
    model, whole = load_model(tmp_path / "small"), load_model(exported)
    assert all(torch.equal(p.bfloat16().float(), q) for p, q in zip(whole.parameters(), model.parameters(), strict=True))
    assert json.loads((tmp_path / "small" / "config.json").read_bytes())["torch_dtype"] == "bfloat16"
    card = ModelCard.load(tmp_path / "small" / "README.md")
    assert (
        card.data.license == "unknown" and "Preference alignment" not in card.text and 'tokenizer.bos_token + "The history of"' in card.text
    )


def test_figures_of_another_model_are_not_in_the_card(run: RunBuilder, tmp_path: Path) -> None:
    shutil.copytree(run.folder, tmp_path / "run")
    again = RunBuilder(tmp_path / "run")
    files = {f"model/{path.name}": path.read_bytes() for path in (run.folder / "model").iterdir()}
    save_model(random_model(seed=1, vocab_size=400), tmp_path / "other")
    files["model/model.safetensors"] = (tmp_path / "other" / "model.safetensors").read_bytes()
    again.stage("sft", [files])  # trained again; neither `align` nor `evaluate` has followed
    manifest = Manifest(again.storage.child("align"))
    manifest.append(replace(manifest.rows()[0], inputs=[run.ref("sft/model/model.safetensors")]))
    reasons = "Stale: align (sft was done again after it), evaluate (sft was done again after it)."
    sentence = f"{reasons} To redo these stages: corpusmill run {again.folder} --from align --to evaluate"
    with pytest.raises(InputError, match=re.escape(sentence)):
        export(str(again.folder), tmp_path / "align")
    assert not (tmp_path / "align").exists()
    assert export(str(again.folder), tmp_path / "align", although_stale=True) == ("align", sentence)
    assert export(str(again.folder), tmp_path / "sft", "sft") == ("sft", None)
    assert f"\n> **{reasons}" in (tmp_path / "align" / "README.md").read_text()
    again.json("evaluate/scores.json", {"pretrain": {"bits_per_byte": BITS}, "sft": {"bits_per_byte": {**BITS, "value": 1.5}}})
    assert export(str(again.folder), tmp_path / "sft", "sft", force=True) == ("sft", None)
    card = ModelCard.load(tmp_path / "sft" / "README.md")
    assert "Left out are the scores of sft: they were measured before" in card.text and "1.500" not in card.text
    assert "| score | pretrain | on |" in card.text and "## Samples" not in card.text and not card.data.eval_results


def test_a_model_from_elsewhere_is_named_and_the_run_answers_for_no_documents(tmp_path: Path) -> None:
    run = RunBuilder(tmp_path / "run")
    given = {"model": "/home/someone/models/Base-1B", "files": ["pairs.jsonl"]}
    run.json("run.json", {"inputs": [], "recipe": {"align": given}})
    run.stage("align", [{"metrics.json": json.dumps(METRICS["align"]).encode()}])
    card = ModelCard(model_card(str(run.folder), "align", random_model().arch, "mine"))
    assert card.data.base_model == "Base-1B" and card.data.tags == ["llama", "corpusmill", "conversational", "align"]
    assert "parameters, made from Base-1B, then aligned with preferences." in card.text and "| tuned from | Base-1B |" in card.text
    assert "- It was made from Base-1B, of whose training this run knows nothing" in card.text
    for absent in ("someone", "instructions", "offensive documents", "Personal data"):
        assert absent not in card.content, absent
    run.json("run.json", {"inputs": [], "recipe": {"align": {**given, "model": "runs/demo/sft/model"}}})
    assert ModelCard(model_card(str(run.folder), "align", random_model().arch, "mine")).data.base_model == "demo-sft"


def test_what_is_in_the_way_is_a_sentence(run: RunBuilder, tmp_path: Path, corpusmill: Callable[..., tuple[int, bytes, str]]) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("keep")
    code, _, error = corpusmill("export", run.folder, tmp_path / "notes")
    assert code == 2 and "already exists, and is not empty; --force replaces it" in error
    code, _, error = corpusmill("export", run.folder, tmp_path / "notes", "--force")
    assert code == 2 and "is no model folder" in error and (tmp_path / "notes" / "mine.txt").read_text() == "keep"
    code, _, error = corpusmill("export", run.folder, tmp_path / "out", "--model", "evaluate")
    assert code == 2 and "--model evaluate: no such stage (expected one of pretrain, sft, align)" in error
    code, out, _ = corpusmill("export", run.folder, tmp_path / "out", "--model", "sft")
    assert code == 0 and b"the model of sft, and its card, README.md" in out


def test_commands_of_models_take_a_run_for_its_last_model(run: RunBuilder, tmp_path: Path, corpusmill) -> None:
    options = ("--prompt", "the cat", "--max-tokens", 4, "--temperature", 0)
    code, out, err = corpusmill("generate", run.folder, *options)
    assert code == 0 and err == f"Model: {run.folder}/align/model\n"
    assert corpusmill("generate", run.folder / "align/model", *options) == (0, out, "")
    write_run(tmp_path / "run", ("ingest",)).json("run.json", {"inputs": [], "recipe": {"ingest": {}}})
    code, out, err = corpusmill("chat", tmp_path / "run")
    assert (
        code == 2 and not out and err == f"corpusmill: {tmp_path}/run: no stage has finished that trains a model (pretrain, sft, align).\n"
    )
