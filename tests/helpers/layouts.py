"""A small training in float64 on any layout, and all of it that has to equal one process.

Starting processes takes longer than these trainings, so `train_all` does several in the same ones.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from corpusmill.train.architecture import Architecture
from corpusmill.train.bits import Batch
from corpusmill.train.loop import fit
from corpusmill.train.model import Llama
from corpusmill.train.objective import Share, TokenObjective
from corpusmill.train.options import LoopConfig, ParallelConfig
from corpusmill.train.parallel.layout import Layout
from corpusmill.train.parallel.prepare import prepare

ARCH = Architecture(vocab_size=32, layers=6, width=16, heads=4, kv_heads=2, head_dim=4, ffn=24, context=16)
CPU, ROWS, LENGTH, STEPS = torch.device("cpu"), 8, 12, 5


def fresh(**changes: Any) -> Llama:
    """A model all of whose weights have gradients from the first step on."""
    model, generator = Llama(ARCH.model_copy(update=changes)).double(), torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, float(parameter.dim() == 1), 0.3, generator=generator)
    return model


def rows(step: int) -> Batch:
    """Rows of several documents; the share of targets that count goes from all to a tenth, and one row has none."""
    generator = torch.Generator().manual_seed(step)
    ids = torch.randint(ARCH.vocab_size, (ROWS, LENGTH + 1), generator=generator)
    segments = (torch.rand(ROWS, LENGTH, generator=generator) < 0.2).int().cumsum(1)
    masked = torch.rand(ROWS, LENGTH, generator=generator) < torch.linspace(0, 0.9, ROWS)[:, None]
    targets = ids[:, 1:].masked_fill(masked, -100)
    targets[3] = -100
    return ids[:, :-1], targets, segments


class Task(TokenObjective):
    """`micro_batch` of these rows at a time."""

    def __init__(self, micro_batch: int, segments: bool = True):
        self.micro_batch, self.segments = micro_batch, segments

    def batches(self, step: int, share: Share) -> Iterator[Batch]:
        begin, end = share.bounds(ROWS)
        for first in range(begin, end, self.micro_batch):
            ids, targets, segments = (part[first : min(first + self.micro_batch, end)] for part in rows(step) if part is not None)
            yield ids, targets, segments if self.segments else None


@dataclass
class Training:
    """What one process saw of a training; tensors by Hugging Face name are whole, but a pipeline's rank has its own only."""

    loss: float
    count: int
    norm: float
    gradients: dict[str, Tensor]  # of the first step, over all rows
    nats: Tensor  # of the fresh model on the rows of step 99
    log: list[dict[str, Any]]  # the first rank's
    weights: dict[str, Tensor]  # after STEPS steps


def whole(tensor: Tensor) -> Tensor:
    """A tensor that may be a DTensor, all of it."""
    return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).detach().clone()


def train(folder: Path, sizes: dict[str, Any], micro_batch: int = 1, segments: bool = True, **options: Any) -> Training:
    """On every process of the layout `sizes`: the first gradients, and a training of STEPS steps with clipping."""
    parallel = ParallelConfig(**sizes)
    layout = Layout.distributed(parallel, CPU) if parallel.world > 1 else Layout.single(CPU)
    config = LoopConfig.model_validate({"steps": STEPS, "warmup": 2, "clip": 0.1, "threads": 1, "optimizer": {"kind": "adamw"}} | options)
    task, computation = Task(micro_batch, segments), prepare(fresh(), layout, config)
    parts = computation.backward(task, 0, 1.0)
    loss, count = computation.total(
        torch.tensor([sum(float(p.total.detach()) for p in parts), sum(p.count for p in parts)], dtype=torch.float64)
    ).tolist()
    grads = {name: p.grad for name, p in computation.parameters.items() if p.grad is not None}
    norm = computation.squared_norm(grads) ** 0.5 * computation.gradient_scale
    gradients = {name: whole(grad) * computation.gradient_scale for name, grad in grads.items()}
    nats = computation.nats(*rows(99))
    log = folder / "train.jsonl"
    result = fit(
        fresh(), task, config, layout=layout, state=folder / f"state-{layout.rank}", log=log, evaluate_every=2,
        evaluate=lambda computation: {"nats": float(computation.nats(*rows(99)).sum())},
    )  # fmt: skip
    layout.barrier()
    lines = [json.loads(line) for line in log.read_text().splitlines()] if layout.is_main else []
    weights = {name: whole(p) for name, p in result.computation.parameters.items()}
    return Training(loss, int(count), norm, gradients, nats, lines, weights)


def train_all(folder: Path, cases: dict[str, dict[str, Any]]) -> dict[str, Training]:
    """Several trainings in the same processes; each case has the options of `train`."""
    return {name: train(folder / name.replace(" ", "-"), **options) for name, options in cases.items()}


def train_alone(folder: Path, sizes: dict[str, Any], **options: Any) -> Training:
    """The same training as `train` in this process alone."""
    return train(folder, {}, **options)


def check_equal(ranks: list[Training], one: Training, tolerance: float = 1e-10) -> None:
    """Every rank of a layout against one process."""
    for name in ("gradients", "weights"):
        assert set().union(*(getattr(rank, name) for rank in ranks)) == set(getattr(one, name)) and getattr(one, name)
    for rank in ranks:
        assert rank.count == one.count and abs(rank.loss / one.loss - 1) < tolerance and abs(rank.norm / one.norm - 1) < tolerance
        torch.testing.assert_close(rank.nats.double(), one.nats.double(), rtol=tolerance, atol=tolerance)
        for name in ("gradients", "weights"):
            for key, tensor in getattr(rank, name).items():
                expected = getattr(one, name)[key]
                error = float((tensor - expected).norm() / expected.norm())
                assert error < tolerance, (name, key, error)
    assert [line["count"] for line in ranks[0].log] == [line["count"] for line in one.log]
    for key in ("loss", "grad_norm", "nats"):
        values = [[line[key] for line in training.log if key in line] for training in (ranks[0], one)]
        torch.testing.assert_close(*(torch.tensor(v, dtype=torch.float64) for v in values), rtol=tolerance, atol=0)
