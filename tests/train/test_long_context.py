"""Tests both stages on models of published architectures with a context of 32,768 tokens: rows, steps, memory, and the model's context."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen3Config

from corpusmill.pipeline.errors import InputError
from corpusmill.train.data import EVALUATION_TOKENS, within_budget
from corpusmill.train.parallel.model import ParallelModel
from corpusmill.train.template import template_files
from corpusmill.train.tuning import AlignConfig, AlignStage, SftConfig, SftStage

CONTEXT = 32_768
TINY = {
    "vocab_size": 600, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": CONTEXT,
}  # fmt: skip
CONFIGS = {"qwen3": Qwen3Config(**TINY), "llama": LlamaConfig(**TINY)}

#: Starting torch and the pipeline takes about 0.5 GB. Dense masks of rows of 2,048 tokens add 4 MB a row, one of 32,768 tokens adds 1.1 GB.
MOST_MEMORY = 1.5e9


def published(folder: Path, kind: str, tokenizer_json: bytes) -> Path:
    """Makes a folder as the Hugging Face hub has them."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(CONFIGS[kind]).save_pretrained(folder)
    for name, content in {"tokenizer.json": tokenizer_json, **template_files(CONTEXT)}.items():
        (folder / name).write_bytes(content)
    return folder


def chats(count: int) -> list[dict[str, Any]]:
    answer = "The mill grinds the grain of the village. " * 5
    return [{"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": f"{answer}{n}"}]} for n in range(count)]


def pairs(count: int) -> list[dict[str, Any]]:
    return [{"prompt": f"{n}?", "chosen": "The mill grinds heavy stones. " * 4, "rejected": f"A cart {n}. " * 8} for n in range(count)]


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


@pytest.mark.long
@pytest.mark.parametrize("kind", [kind if kind == "qwen3" else pytest.param(kind, marks=pytest.mark.long) for kind in CONFIGS])
def test_both_stages_finish_in_bounded_memory(tmp_path: Path, tokenizer_json: bytes, kind: str) -> None:
    files = {"sft": write(tmp_path / "chats.jsonl", chats(600)), "align": write(tmp_path / "pairs.jsonl", pairs(80))}
    steps = {"loop": {"threads": 1, "steps": 6}, "held_out": 0.1}
    recipe = {stage: {"files": [path], **steps} for stage, path in files.items()}
    recipe["sft"] |= {"model": str(published(tmp_path / "model", kind, tokenizer_json)), "batch": 4}
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    command = [sys.executable, "-m", "corpusmill", "run", str(tmp_path / "recipe.yaml"), "--output", str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said = process.communicate()[0]
    assert process.returncode == 0, said
    metrics = {stage: json.loads((tmp_path / "run" / stage / "metrics.json").read_text()) for stage in files}
    tokens = sum(pq.read_table(tmp_path / "run/sft/report/part-00000.parquet")["n_tokens"].to_pylist())
    sft = metrics["sft"]
    assert sft["context"] == metrics["align"]["context"] == 2048
    assert 0.85 * tokens / 2048 < sft["rows"] <= tokens / 2048 + 1 and sft["rows"] > 12  # nine tenths are learned, and rows are well filled
    assert sft["steps_an_epoch"] == -(-sft["rows"] // 4) > 2 and sft["steps"] == 6
    assert sft["held_out_loss_after"] < sft["held_out_loss_before"]
    assert f"{sft['rows']} of 2,048 tokens, {sft['steps_an_epoch']} steps an epoch" in " ".join(said.split())
    align = metrics["align"]
    assert align["steps_an_epoch"] == -(-align["pairs"] // 16) and align["held_out_after"]["loss"] < align["held_out_before"]["loss"]
    most = max(json.loads(line)["memory_bytes"] for stage in files for line in (tmp_path / "run" / stage / "logs/speed.jsonl").open())
    assert most < MOST_MEMORY
    for stage in files:
        left = json.loads((tmp_path / "run" / stage / "model/config.json").read_text())
        assert left["max_position_embeddings"] == CONTEXT and left["model_type"] == kind
        assert json.loads((tmp_path / "run" / stage / "model/tokenizer_config.json").read_text())["model_max_length"] == CONTEXT


# ---- the length of a row -----------------------------------------------------------------------------

QUICK = {"per_document": 1, "evaluate_every": 0, "held_out": 0.2, "loop": {"threads": 1, "steps": 2}}
STAGES = {"sft": (SftStage, SftConfig), "align": (AlignStage, AlignConfig)}


@pytest.mark.parametrize(("name", "length"), [("sft", 96), ("align", 64)])
def test_a_recipe_can_give_the_length_of_a_row(pretrained_run: Any, execute: Any, name: str, length: int) -> None:
    stage, config = STAGES[name]
    done = execute(pretrained_run, stage(config.model_validate({**QUICK, "context": length})))
    metrics = json.loads(pretrained_run.child(name).read_bytes("metrics.json"))
    report = pq.read_table(pretrained_run.path(f"{name}/report/part-00000.parquet")).to_pylist()
    assert (
        metrics["context"] == length
        and json.loads(pretrained_run.read_bytes(f"{name}/model/config.json"))["max_position_embeddings"] == 160
    )
    if name == "sft":
        longer = [row for row in report if row["n_tokens"] > 97]
        assert longer and all(row["truncated"] for row in longer)
        sentence = f"{len(longer)} examples are longer than a row of 96 tokens, and learned up to there (sft.context)."
        assert sentence in done.manifest.tasks["examples"].warnings
    else:
        assert {tuple(row["failed"]) for row in report} == {(), ("too_long",)}
    with pytest.raises(InputError, match=rf"{name}\.context: rows of 161 tokens are longer than the model's context of 160\."):
        execute(pretrained_run, stage(config.model_validate({**QUICK, "context": 161})))


# ---- held-out measurements ---------------------------------------------------------------------------


def test_batches_of_an_evaluation_keep_to_their_budget() -> None:
    sizes = [100, 4000, 50, 5000, 1, 2048, 2048, 1]
    batches = list(within_budget(sizes))
    assert batches == [[0], [1, 2], [3], [4, 5], [6, 7]] and EVALUATION_TOKENS == 4096
    assert list(within_budget([])) == []


@pytest.mark.parametrize("name", STAGES)
def test_held_out_measurements_keep_to_the_budget_whatever_the_batch(
    pretrained_run: Any, execute: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[int] = []
    nats = ParallelModel.nats

    def counting(self: ParallelModel, ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        measured.append(ids.numel())
        return nats(self, ids, *rest)

    monkeypatch.setattr(ParallelModel, "nats", counting)
    monkeypatch.setattr("corpusmill.train.data.EVALUATION_TOKENS", 400)
    stage, config = STAGES[name]
    found = []
    for micro in (1, 8):
        execute(pretrained_run, stage(config.model_validate({**QUICK, "micro_batch": micro, "loop": {"threads": 1, "steps": 0}})))
        metrics = json.loads(pretrained_run.child(name).read_bytes("metrics.json"))
        found.append(metrics["held_out_loss_before" if name == "sft" else "held_out_before"])
        if name == "sft":  # alignment measures its reference in the training's micro-batches, too
            assert 160 < max(measured) <= 400
    assert found[0] == found[1]
