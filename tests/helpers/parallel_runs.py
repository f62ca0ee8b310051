"""Compares a training on a parallel layout with one process: float64 throughout, rows with unequal numbers of targets."""

import json
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import run_ranks
from torch import Tensor

from corpusmill.train import model as models
from corpusmill.train.data import Batch, DataShare
from corpusmill.train.loop import fit
from corpusmill.train.model import Llama, Objective, RMSNorm, StepLoss
from corpusmill.train.options import Architecture, LoopConfig, LoraConfig, ParallelConfig
from corpusmill.train.parallel import ParallelDims, local_of, squared_norm
from corpusmill.train.parallel.model import prepare
from corpusmill.train.sft import adapt, adapters

SHAPE = {"vocab_size": 50, "layers": 2, "width": 24, "heads": 4, "kv_heads": 2, "head_dim": 6, "ffn": 40, "context": 16}
LOGITS = models.LOGITS
LOOP = {"precision": "fp32", "steps": 3, "warmup": 2, "schedule": "constant", "clip": 0.5, "save_every": 100}


@dataclass(frozen=True)
class Case:
    """The model and settings of a training. `parallel` holds sizes by kind; empty means one process."""

    parallel: dict[str, Any] = field(default_factory=dict)
    arch: dict[str, Any] = field(default_factory=dict)
    loop: dict[str, Any] = field(default_factory=dict)
    rows: int = 8
    micro: int = 0
    documents: bool = False
    dtype: torch.dtype = torch.float64
    poison: int = -1  # a step in which the last share's loss is not a number
    lora: dict[str, Any] = field(default_factory=dict)  # empty: all weights are trained
    logits: int = LOGITS  # that exist at once

    @property
    def config(self) -> LoopConfig:
        return LoopConfig.model_validate({**LOOP, **self.loop})


class Rows(Objective):
    """Random rows that depend on the step alone. Later rows have more masked targets; the last one has all but one masked."""

    def __init__(self, case: Case, arch: Architecture):
        self.case, self.arch = case, arch

    def rows(self, step: int) -> Batch:
        generator = torch.Generator().manual_seed(100 + step)
        length, rows = self.arch.context, self.case.rows
        tokens = torch.randint(self.arch.vocab_size, (rows, length + 1), generator=generator)
        targets = tokens[:, 1:].clone()
        for row in range(rows):
            targets[row, : length * row // rows] = -100
        targets[-2] = -100
        if step == self.case.poison:
            targets[-1] = 0
        segments = (torch.rand(rows, length, generator=generator) < 0.2).cumsum(1) if self.case.documents else None
        return tokens[:, :-1], targets, segments

    def batches(self, step: int, share: DataShare) -> Iterator[Batch]:
        ids, targets, segments = self.rows(step)
        ((first, last),) = share.micro_batches(self.case.rows, 0)
        size = self.case.micro or last - first
        for begin in range(first, last, size):
            part = slice(begin, min(begin + size, last))
            yield ids[part], targets[part], None if segments is None else segments[part]

    def loss(self, model: Llama, batch: Batch) -> StepLoss:
        return poisoned(super().loss(model, batch), batch[1])


def poisoned(loss: StepLoss, targets: Tensor) -> StepLoss:
    loss.total = loss.total * (math.nan if (targets == 0).all(dim=1).any() else 1.0)
    return loss


def whole(tensor: Any) -> Tensor:
    """Returns the whole of a tensor that may be sharded."""
    return tensor.full_tensor() if hasattr(tensor, "placements") else tensor  # type: ignore[no-any-return]


AS_IT_IS = RMSNorm.forward


def in_float64(self: RMSNorm, x: Tensor) -> Tensor:
    """Computes the norm without its detour over fp32, whose rounding would turn errors of 1e-16 into 1e-8."""
    return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))


def fresh(case: Case) -> Llama:
    """Returns the same random weights on every rank, so that every gradient is random too."""
    model = Llama(Architecture.model_validate({**SHAPE, **case.arch}))
    generator = torch.Generator().manual_seed(3)
    for p in model.parameters():
        p.data = torch.randn(p.shape, generator=generator, dtype=torch.float64) * 0.2 + (p.dim() == 1)
    if case.lora:
        adapt(model, LoraConfig.model_validate(case.lora), seed=3)
        for module in adapters(model).values():
            module.lora_B.data.normal_(std=0.1, generator=generator)
    return model.to(case.dtype)


def first_step(case: Case, dims: ParallelDims, rows: type[Rows] = Rows) -> dict[str, Any]:
    """Returns the loss, its gradients and their norm, and the nats of all rows, before the first update."""
    model = fresh(case).to(dims.device)
    objective = rows(case, model.arch)
    parallel_model = prepare(model, dims, case.config)
    parts = parallel_model.backward(objective, 0)
    sums = torch.tensor([sum(float(part.total.detach()) for part in parts), sum(part.count for part in parts)], dtype=torch.float64)
    grads = {name: p.grad for name, p in parallel_model.parameters.items()}
    norm = float(squared_norm(grads.values(), parallel_model.dims)) ** 0.5 * parallel_model.gradient_scale
    gradients = {name: whole(grad) * parallel_model.gradient_scale for name, grad in grads.items() if grad is not None}
    nats = parallel_model.nats(*(None if part is None else part.to(dims.device) for part in objective.rows(7)))
    return {"sums": parallel_model.total(sums), "norm": norm, "grads": gradients, "nats": nats}


def trained(case: Case, dims: ParallelDims, folder: Path) -> dict[str, Any]:
    """Returns the weights after all steps of the loop, the lines of its log, and the nats of all rows before and after the weights are
    halved.
    """
    model = fresh(case)
    log = folder / "log.jsonl"
    objective = Rows(case, model.arch)
    rows = objective.rows(8)
    result = fit(model, objective, case.config, dims=dims, state=folder / "state", log=log)
    lines = [json.loads(line) for line in log.read_text().splitlines()] if dims.is_main else []
    weights = {name: whole(p.detach()).clone() for name, p in result.parallel_model.parameters.items()}
    looks = [result.parallel_model.nats(*rows)]
    for p in result.parallel_model.parameters.values():
        local_of(p.detach()).mul_(0.5)
    looks.append(result.parallel_model.nats(*rows))
    return {"weights": weights, "lines": lines, "skipped": result.skipped, "count": result.count, "looks": looks}


def on_layout(cases: Sequence[Case], folder: Path) -> list[dict[str, Any]]:
    """Returns the results of a rank, or of the one process, for each case."""
    found = []
    for number, case in enumerate(cases):
        RMSNorm.forward = in_float64 if case.dtype == torch.float64 else AS_IT_IS  # type: ignore[method-assign]
        models.LOGITS = case.logits
        config, cpu = ParallelConfig.model_validate(case.parallel), torch.device("cpu")
        dims = ParallelDims.distributed(config, cpu)
        found.append(first_step(case, dims) | trained(case, dims, folder / str(number)))
    return found


def run(*cases: Case) -> list[dict[str, Any]]:
    """Runs each case on its layout; all cases need the same number of processes. Ranks that share a weight must have the same bits."""
    world = ParallelConfig.model_validate(cases[0].parallel).world
    with tempfile.TemporaryDirectory() as folder:
        ranks = run_ranks(on_layout, world, list(cases), Path(folder))
    merged = []
    for results in zip(*ranks):
        first = results[0]
        for other in results[1:]:
            for kind in ("grads", "weights"):
                for name, values in other[kind].items():
                    assert torch.equal(first[kind].setdefault(name, values), values), (kind, name)
            assert torch.equal(first["sums"], other["sums"]) and first["norm"] == other["norm"]
            assert (first["skipped"], first["count"]) == (other["skipped"], other["count"])
        first["nats"] = [[result["nats"], *result["looks"]] for result in results]
        merged.append(first)
    return merged


def alone(*cases: Case) -> list[dict[str, Any]]:
    """Runs each case on one process, without micro-batches and with every layer computed once; equal ones are trained once."""
    single = [replace(case, parallel={}, micro=0, logits=LOGITS, loop={**case.loop, "checkpointing": False}) for case in cases]
    distinct = {str(case): case for case in single}
    trained = dict(zip(distinct, run(*distinct.values())))
    return [trained[str(case)] for case in single]


def check_equal(many: dict[str, Any], one: dict[str, Any], tolerance: float = 1e-10) -> None:
    """Checks that a layout computes what one process does: each value to `tolerance` of the largest value in its tensor."""
    torch.testing.assert_close(many["sums"], one["sums"], rtol=tolerance, atol=0)
    assert many["norm"] == pytest.approx(one["norm"], rel=tolerance)
    for kind in ("grads", "weights"):
        assert many[kind].keys() == one[kind].keys()
        for name, expected in one[kind].items():
            largest = float(expected.abs().max())
            assert largest > 0 and expected.dtype == many[kind][name].dtype
            torch.testing.assert_close(many[kind][name], expected, rtol=0, atol=tolerance * largest, msg=lambda m: f"{kind} {name}: {m}")  # noqa: B023
    for nats in many["nats"]:
        torch.testing.assert_close(nats, one["nats"][0], rtol=tolerance, atol=tolerance)
    for line, expected in zip(many["lines"], one["lines"], strict=True):
        assert float(line["loss"]) == pytest.approx(float(expected["loss"]), rel=tolerance, nan_ok=True)
        assert float(line["grad_norm"]) == pytest.approx(float(expected["grad_norm"]), rel=tolerance, nan_ok=True)
        assert line["count"] == expected["count"]
    assert (many["skipped"], many["count"]) == (one["skipped"], one["count"])


def check_close(many: dict[str, Any], one: dict[str, Any], tolerance: float) -> None:
    """Checks the same for 16-bit arithmetic by the norm of each tensor, because its rounding depends on how rows and matrices are cut."""
    torch.testing.assert_close(many["sums"], one["sums"], rtol=tolerance, atol=0)
    assert many["norm"] == pytest.approx(one["norm"], rel=tolerance)
    for kind in ("grads", "weights"):
        for name, expected in one[kind].items():
            assert many[kind][name].dtype == torch.float32
            error = float((many[kind][name] - expected).norm() / expected.norm())
            assert error < tolerance, (kind, name, error)
    assert many["skipped"] == one["skipped"] == 0
