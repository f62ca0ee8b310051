"""Tests the recipe of characters, end to end with few steps: nanoGPT's split, an allowed model, and a loss that transformers confirms."""

import json
from pathlib import Path

import numpy as np
import pytest

from corpusmill.pipeline.engine import InlineEngine
from corpusmill.pipeline.run import execute, new_plan
from corpusmill.pipeline.special_tokens import EOT_ID
from corpusmill.pipeline.token_shards import TokenShards
from corpusmill.pipeline.watch.progress import Progress

RECIPE = Path(__file__).parent.parent / "recipes" / "shakespeare-char.yaml"
NANOGPT, CONTEXT = 804_096, 64


@pytest.fixture(scope="module")
def text(shared_data: Path) -> str:
    """Returns the beginning of the file and its end, with all of its 65 characters."""
    whole = (shared_data / "text" / "tinyshakespeare.txt").read_text()
    return "\n " + whole[:20_000] + "".join(sorted(set(whole))) + whole[-10_000:]


@pytest.fixture(scope="module")
def run(text: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shakespeare")
    (folder / "part.txt").write_text(text)
    overrides = ["pretrain.loop.steps=4", "pretrain.loop.precision=fp32", "pretrain.loop.threads=1"]
    plan = new_plan(str(folder / "run"), str(RECIPE), [str(folder / "part.txt")], overrides)
    execute(plan, InlineEngine(), Progress(False))
    return folder / "run"


def test_the_split_is_nanogpts_to_the_character(run: Path, text: str) -> None:
    border = int(len(text) * 0.9)
    ids = {character: number for number, character in enumerate(sorted(set(text)), 4)}
    for split, part in (("train", text[:border]), ("validation", text[border:])):
        shards = TokenShards(run / "tokens" / split)
        assert shards.window(0, shards.total).tolist() == [*(ids[character] for character in part), EOT_ID]


def test_the_model_has_no_more_parameters_than_nanogpts(run: Path) -> None:
    from safetensors.numpy import load_file

    weights = load_file(run / "pretrain" / "model" / "model.safetensors")
    count = sum(array.size for array in weights.values())
    assert count == json.loads((run / "pretrain" / "metrics.json").read_text())["parameters"] <= NANOGPT
    assert weights["lm_head.weight"].shape == (69, 128)  # all 65 characters are there, so the whole text gives no larger vocabulary


def test_the_loss_is_that_of_every_character_of_the_last_tenth_in_windows(run: Path, text: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(run / "pretrain" / "model", dtype=torch.float64)
    ids = {character: number for number, character in enumerate(sorted(set(text)), 4)}
    held_out = np.array([EOT_ID, *(ids[character] for character in text[int(len(text) * 0.9) :])])
    nats, count = 0.0, len(held_out) - 1
    with torch.no_grad():
        for begin in range(0, count, CONTEXT):
            window = torch.from_numpy(held_out[begin : begin + CONTEXT + 1])
            logits = model(window[None, :-1]).logits[0]
            nats += torch.nn.functional.cross_entropy(logits, window[1:], reduction="sum").item()
    metrics = json.loads((run / "pretrain" / "metrics.json").read_text())["validation"]
    assert (metrics["tokens"], metrics["utf8_bytes"]) == (count, count)
    assert metrics["nats_per_token"] == pytest.approx(nats / count, abs=1e-5)
    assert nats / count < np.log(65)  # the four steps have lowered the loss
