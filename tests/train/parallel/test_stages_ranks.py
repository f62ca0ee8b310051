"""Tests both tunings on every kind of layout, each rank with its part of the model, against one process in float64: all logged values."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from parallel_runs import in_float64
from ranks import run_ranks

from corpusmill.train import align, sft
from corpusmill.train.model import RMSNorm
from corpusmill.train.options import ParallelConfig
from corpusmill.train.parallel import ParallelDims, local_of
from corpusmill.train.parallel.model import ParallelModel
from corpusmill.train.sft import FinetuningJob, blank_start
from corpusmill.train.tuning import AlignConfig, AlignStage, SftConfig, SftStage

BEGIN = FinetuningJob.begin
LOOP = {"precision": "fp32", "threads": 1, "steps": 3, "warmup": 0, "save_every": 2, "optimizer": {"kind": "adamw"}}
CONFIGS: dict[str, Any] = {
    "sft": {"batch": 4, "examples": 40, "per_document": 1, "evaluate_every": 2, "held_out": 0.1, "loop": LOOP},
    "align": {"batch": 4, "pairs": 20, "per_document": 1, "evaluate_every": 2, "held_out": 0.2, "loop": LOOP},
}
LAYOUTS: list[dict[str, dict[str, Any]]] = [
    {"one": {}},
    {"shards": {"shard": 2}, "pipeline": {"pipeline": 2, "micro_batch": 2}},
    {"tensor": {"tensor": 2}},
    {"pipeline x shards": {"pipeline": 2, "shard": 2, "micro_batch": 1}},
]


def begin_with_a_part(job: FinetuningJob, parallel_model: ParallelModel) -> None:
    """Begins a training, and checks that no rank holds the whole model."""
    BEGIN(job, parallel_model)
    held = sum(local_of(p).numel() for p in parallel_model.model.parameters())
    assert job.dims.world == 1 or held < 0.6 * job.model.arch.parameters()


def on_layouts(run: str, folder: str, layouts: dict[str, dict[str, Any]]) -> None:
    """Runs both trainings on each layout; each leaves its log and metrics in a folder of its name."""
    RMSNorm.forward = in_float64  # type: ignore[method-assign]
    sft.blank_start = lambda *args: blank_start(*args).double()
    FinetuningJob.begin = begin_with_a_part  # type: ignore[method-assign]
    for module in (sft, align):
        stage = "sft" if module is sft else "align"
        for name, options in layouts.items():
            parallel = {key: value for key, value in options.items() if key != "micro_batch"}
            dims = ParallelDims.distributed(ParallelConfig.model_validate(parallel), torch.device("cpu"))
            kind = module.__name__.rpartition(".")[2]
            config = {**CONFIGS[kind], "micro_batch": options.get("micro_batch", 0), "parallel": parallel}
            work = Path(folder) / name / kind
            metrics = module.train(dims, None, config, run, f"{run}/pretrain/model", "pretrain/model", str(work / "work"))
            if dims.is_main:
                (work / "metrics.json").write_text(json.dumps(metrics))
                (Path(run) / stage / "logs" / "train.jsonl").rename(work / "train.jsonl")
            dims.barrier()


Trained = Callable[[str, str], tuple[list[dict[str, Any]], dict[str, Any]]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, make_pretrained_run: Any, execute: Any) -> Trained:
    """Returns a function of a layout and a job that gives the log and the metrics; it trains those of the same processes at once."""
    folder = tmp_path_factory.mktemp("tuned")
    run = make_pretrained_run(folder)
    quick = {"loop": {**LOOP, "steps": 0}}
    execute(run, SftStage(SftConfig.model_validate(CONFIGS["sft"] | quick)))
    execute(run, AlignStage(AlignConfig.model_validate(CONFIGS["align"] | quick)), earlier=("ingest", "pretrain"))

    def read(layout: str, kind: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        place = folder / layout / kind
        if not place.exists():
            (layouts,) = [layouts for layouts in LAYOUTS if layout in layouts]
            processes = math.prod(size for name, size in layouts[layout].items() if name in ("replicate", "shard", "tensor", "pipeline"))
            run_ranks(on_layouts, processes, run.root, str(folder), layouts)
        lines = [json.loads(line) for line in (place / "train.jsonl").read_text().splitlines()]
        return lines, json.loads((place / "metrics.json").read_text())

    return read


@pytest.mark.long
@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("layout", [*LAYOUTS[1], *(pytest.param(name, marks=pytest.mark.long) for each in LAYOUTS[2:] for name in each)])
def test_a_layout_equals_one_process(trained: Trained, layout: str, kind: str) -> None:
    (lines, metrics), (expected, wanted) = trained(layout, kind), trained("one", kind)
    assert len(lines) == 3 and lines[-1]["loss"] < lines[0]["loss"]
    for line, other in zip(lines, expected, strict=True):
        assert flat(line) == pytest.approx(flat(other), rel=1e-9, abs=1e-9)
    assert flat(metrics) == pytest.approx(flat(wanted), rel=1e-9, abs=1e-9)
    if kind == "align":
        assert lines[0]["preference_loss"] == pytest.approx(math.log(2), abs=1e-6)


def flat(metrics: dict[str, Any]) -> dict[str, float]:
    """Returns the figures of a line of the log or of `metrics.json`, those of a section under `section.name`."""
    sections = {key: value for key, value in metrics.items() if isinstance(value, dict)}
    inside = {f"{section}.{name}": figure for section, figures in sections.items() for name, figure in figures.items()}
    return inside | {key: value for key, value in metrics.items() if isinstance(value, int | float)}
