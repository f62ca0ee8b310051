"""Tests the gradient of a step: that of the mean over all valid targets, clipped as torch clips."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from low_precision import ARCH, fresh
from torch import Tensor

from corpusmill.train.data import DataShare
from corpusmill.train.loop import fit
from corpusmill.train.losses import StepLoss, TokenObjective, step_totals
from corpusmill.train.model import Llama, RMSNorm
from corpusmill.train.options import LoopConfig, OptimizerConfig


@pytest.fixture(autouse=True)
def norms_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(self: RMSNorm, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))

    monkeypatch.setattr(RMSNorm, "forward", forward)


class Pieces(TokenObjective):
    """Six rows with unequal numbers of targets, in micro-batches of the given sizes."""

    def __init__(self, sizes: list[int], z_loss: float = 0.0):
        self.sizes, self.z_loss = sizes, z_loss

    def rows(self) -> tuple[Tensor, Tensor]:
        ids = torch.randint(ARCH.vocab_size, (6, 13), generator=torch.Generator().manual_seed(5))
        targets = ids[:, 1:].clone()
        targets[0, 3:] = targets[1, ::2] = targets[4] = -100
        return ids[:, :-1], targets

    def batches(self, step: int, share: DataShare) -> Iterator[Any]:
        ids, targets = self.rows()
        for part, aims in zip(ids.split(self.sizes), targets.split(self.sizes)):
            yield part, aims, None


def followed(folder: Path, objective: Pieces, clip: float) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Returns the gradient of one plain step of size 1, from the change of the weights (Adam's first step hides it), and its log line."""
    model = fresh().double()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = OptimizerConfig(kind="adamw", betas=(0.0, 0.0), eps=1e9, lr=1e9, weight_decay=0)
    config = LoopConfig(steps=1, save_every=1, warmup=0, schedule="constant", clip=clip, optimizer=optimizer, threads=1)
    fit(model, objective, config, state=folder / "state", log=folder / "log.jsonl")
    moved = {name: before[name] - p.detach() for name, p in model.named_parameters()}
    return moved, json.loads((folder / "log.jsonl").read_text())


def reference(z_loss: float = 0.0) -> tuple[Llama, float]:
    """Computes the gradient of the mean over all rows at once, in the model, and the mean loss."""
    model = fresh().double()
    ids, targets = Pieces([6]).rows()
    logits = model(ids)
    nats = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)
    (nats + z_loss * logits.logsumexp(-1)[targets >= 0].square().mean()).backward()
    return model, nats.item()


@pytest.mark.parametrize("sizes", [[6], [1, 3, 1, 1], [5, 1]], ids=str)
@pytest.mark.parametrize(("clip", "z_loss"), [(0.0, 0.0), (1e9, 0.0), (0.05, 0.0), (0.0, 1e-2)])
def test_the_mean_over_all_targets_is_followed_and_clipped_as_torch_clips(
    tmp_path: Path, sizes: list[int], clip: float, z_loss: float
) -> None:
    model, nats = reference(z_loss)
    norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), clip or 1e9))
    assert norm > 0.1
    moved, line = followed(tmp_path, Pieces(sizes, z_loss), clip)
    assert line["loss"] == pytest.approx(nats, rel=1e-12) and line["grad_norm"] == pytest.approx(norm, rel=1e-12)
    for name, p in model.named_parameters():
        assert p.grad is not None
        torch.testing.assert_close(moved[name], p.grad, rtol=1e-6, atol=1e-9, msg=name)  # the error of Adam's eps of 1e9


@settings(max_examples=30)
@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.integers(0, 10**9), st.floats(-10, 10)), max_size=6), st.booleans())
def test_totals_are_sums_whether_they_come_as_numbers_or_tensors(parts: list[tuple[float, int, float]], tensors: bool) -> None:
    def of(value: float) -> Any:
        return torch.tensor(value) if tensors else value

    losses = [StepLoss(torch.tensor(loss, dtype=torch.float64), of(count), {"right": of(right)}) for loss, count, right in parts]
    sums = step_totals(losses, ["right"], torch.device("cpu")).tolist()
    wanted = [sum(loss for loss, _, _ in parts), *[sum(count for _, count, _ in parts)] * 2, sum(right for _, _, right in parts)]
    assert sums == pytest.approx(wanted, rel=1e-6, abs=1e-4)
