"""Instruction tuning and alignment on every kind of layout, against one process in float64: losses, gradient norms, all that is logged."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from parallel_runs import in_float64
from ranks import run_ranks

from corpusmill.train import instruction, preference
from corpusmill.train.align import AlignConfig, AlignStage
from corpusmill.train.model import RMSNorm
from corpusmill.train.options import ParallelConfig
from corpusmill.train.parallel.layout import ParallelDims
from corpusmill.train.sft import SftConfig, SftStage
from corpusmill.train.tuned import start_from

LOOP = {"threads": 1, "steps": 4, "warmup": 1, "save_every": 2, "optimizer": {"kind": "adamw"}}
CONFIGS: dict[str, Any] = {
    "instruction": {"batch": 4, "per_document": 1, "evaluate_every": 2, "held_out": 0.2, "loop": LOOP},
    "preference": {"batch": 4, "pairs": 30, "per_document": 1, "evaluate_every": 2, "held_out": 0.2, "loop": LOOP},
}
LAYOUTS: dict[int, dict[str, dict[str, Any]]] = {
    1: {"one": {}},
    2: {
        "copies": {"replicate": 2},
        "shards": {"shard": 2},
        "shared moments": {"shard": 2, "zero": 1},
        "tensor": {"tensor": 2},
        "pipeline": {"pipeline": 2, "micro_batch": 2},
    },
    4: {"shards x tensor": {"shard": 2, "tensor": 2}, "pipeline x shards": {"pipeline": 2, "shard": 2, "micro_batch": 1}},
}


def on_layouts(run: str, folder: str, layouts: dict[str, dict[str, Any]]) -> None:
    """Both trainings on each layout; each leaves its log and metrics in a folder of its name."""
    RMSNorm.forward = in_float64  # type: ignore[method-assign]
    for module in (instruction, preference):
        module.start_from = lambda *args: start_from(*args).double()  # type: ignore[attr-defined]
        stage = "sft" if module is instruction else "align"
        for name, options in layouts.items():
            parallel = {key: value for key, value in options.items() if key != "micro_batch"}
            dims = ParallelDims.distributed(ParallelConfig.model_validate(parallel), torch.device("cpu"))
            kind = module.__name__.rpartition(".")[2]
            config = {**CONFIGS[kind], "micro_batch": options.get("micro_batch", 0), "parallel": parallel}
            work = Path(folder) / name / kind
            arguments = {"weights": "the same"} if module is preference else {}
            metrics = module.train(dims, None, config, run, f"{run}/pretrain/model", "pretrain/model", str(work / "work"), **arguments)
            if dims.is_main:
                (work / "metrics.json").write_text(json.dumps(metrics))
                (Path(run) / stage / "logs" / "train.jsonl").rename(work / "train.jsonl")
            dims.barrier()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, make_pretrained_run: Any, execute: Any) -> Path:
    folder = tmp_path_factory.mktemp("tuned")
    run = make_pretrained_run(folder)
    quick = {"loop": {**LOOP, "steps": 0}}
    execute(run, SftStage(SftConfig.model_validate(CONFIGS["instruction"] | quick)))
    execute(run, AlignStage(AlignConfig.model_validate(CONFIGS["preference"] | quick)), earlier=("ingest", "pretrain"))
    for processes, layouts in LAYOUTS.items():
        run_ranks(on_layouts, processes, run.root, str(folder), layouts)
    return folder


def read(folder: Path, dims: str, kind: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    place = folder / dims / kind
    return [json.loads(line) for line in (place / "train.jsonl").read_text().splitlines()], json.loads((place / "metrics.json").read_text())


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("dims", [name for processes, names in LAYOUTS.items() for name in names if processes > 1])
def test_a_layout_equals_one_process(trained: Path, dims: str, kind: str) -> None:
    (lines, metrics), (expected, alone) = read(trained, dims, kind), read(trained, "one", kind)
    assert len(lines) == 4 and lines[-1]["loss"] < lines[0]["loss"]
    for line, other in zip(lines, expected, strict=True):
        assert line == pytest.approx(other, rel=1e-9, abs=1e-9)
    assert flat(metrics) == pytest.approx(flat(alone), rel=1e-9, abs=1e-9)


def flat(metrics: dict[str, Any]) -> dict[str, float]:
    """The figures of `metrics.json`, those of a section under `section.name`."""
    sections = {key: value for key, value in metrics.items() if isinstance(value, dict)}
    inside = {f"{section}.{name}": figure for section, figures in sections.items() for name, figure in figures.items()}
    return inside | {key: value for key, value in metrics.items() if isinstance(value, int | float)}


def test_the_first_preference_loss_is_ln_2_on_every_layout(trained: Path) -> None:
    for layouts in LAYOUTS.values():
        for dims in layouts:
            assert read(trained, dims, "preference")[0][0]["preference_loss"] == pytest.approx(math.log(2), abs=1e-6)
