"""Alignment on several processes: the losses, rewards and KTO's reference point are those of one."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import run_ranks
from small_models import random_model

from corpusmill.train.align import AlignConfig
from corpusmill.train.checkpoint import save_model
from corpusmill.train.parallel.layout import ParallelDims
from corpusmill.train.preference_data import Pair, pairs_table
from corpusmill.train.template import template_files
from corpusmill.train.tuning import StartModel

SHAPE = {"vocab_size": 600, "layers": 2, "width": 32, "heads": 4, "kv_heads": 2, "head_dim": 8, "ffn": 64, "context": 80}
CONFIG = {
    "batch": 4, "micro_batch": 1, "epochs": 9, "beta": 0.05, "held_out": 0.2,
    "loop": {"threads": 1, "steps": 4, "warmup": 0, "spike": 0, "optimizer": {"lr": 1e-3}},
}  # fmt: skip


def pairs() -> Any:
    turns = [("user", "Tell me about mill {}."), ("assistant", "Mill {} grinds{}."), ("assistant", "The cart turns{}{}")]
    made = []
    for n in range(11):
        prompt, chosen, rejected = ([{"role": role, "content": text.format(n, " the grain" * (n % 3))}] for role, text in turns)
        made.append(Pair(f"pair {n}", None, "file", n % 5 == 4, prompt, chosen, rejected))
    return pairs_table(made)


def align(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """The log and the metrics of a training in a folder of its own below that of the model."""
    from corpusmill.train.preference import Alignment
    from corpusmill.train.workplace import CheckpointDir

    made = AlignConfig.model_validate(config)
    dims = (
        ParallelDims.distributed(made.parallel, torch.device("cpu"))
        if made.parallel.world > 1
        else ParallelDims.single(torch.device("cpu"))
    )
    work = folder / json.dumps(config["parallel"]).translate(str.maketrans('{}" :', "_____")) / made.loss
    aligned = Alignment(made, StartModel("model", str(folder / "model")), pairs(), dims)
    aligned.measure_reference(str(work), "weights")
    metrics = aligned.train(CheckpointDir(str(work), str(work / "log.jsonl")))
    return {"metrics": metrics, "lines": [json.loads(line) for line in (work / "log.jsonl").read_text().splitlines()]}


def every(folder: Path, configs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [align(folder, config) for config in configs]


LAYOUTS = [("sigmoid", {"replicate": 2}), ("sigmoid", {"pipeline": 2}), ("kto", {"replicate": 2}), ("kto", {"tensor": 2})]
OPTIONS: dict[str, dict[str, Any]] = {"sigmoid": {}, "kto": {"desirable_weight": 10.0}}


@pytest.fixture(scope="module")
def found(tokenizer_json, tmp_path_factory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("aligned")
    save_model(random_model(**SHAPE), folder / "model", {"tokenizer.json": tokenizer_json, **template_files(80)})
    configs = [{**CONFIG, **OPTIONS[loss], "loss": loss, "parallel": parallel} for loss, parallel in LAYOUTS]
    on_ranks = run_ranks(every, 2, folder, configs)[0]
    alone = {loss: align(folder, {**CONFIG, **options, "loss": loss, "parallel": {}}) for loss, options in OPTIONS.items()}
    return {"ranks": on_ranks, "alone": alone}


@pytest.mark.parametrize("number", range(len(LAYOUTS)), ids=[f"{loss} {next(iter(parallel))}" for loss, parallel in LAYOUTS])
def test_a_layout_changes_nothing(found, number):
    many, one = found["ranks"][number], found["alone"][LAYOUTS[number][0]]
    assert len(many["lines"]) == 4
    for line, expected in zip(many["lines"], one["lines"], strict=True):
        assert line == pytest.approx(expected, rel=1e-4, abs=1e-6)
    for side in ("held_out_before", "held_out_after"):
        assert many["metrics"][side] == pytest.approx(one["metrics"][side], rel=1e-4, abs=1e-6)


def test_the_reference_point_is_there(found):
    lines = found["alone"]["kto"]["lines"]
    assert lines[0]["kl"] == 0 < max(line["kl"] for line in lines)
