"""fp16 gradients that overflow: the step is done again, the scale is part of the saved state, and what no scale cures is skipped."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from low_precision import Rows, fresh, run

from corpusmill.train.loop import fit
from corpusmill.train.model import Llama
from corpusmill.train.objective import StepLoss
from corpusmill.train.options import LoopConfig


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


def test_a_step_that_overflows_is_done_again_with_half_the_scale(tmp_path: Path) -> None:
    objective = Rows(1e4)  # gradients that the first scales carry out of fp16's range
    model, result = run(tmp_path, "fp16", objective, optimizer={"kind": "adamw"})
    log = lines(tmp_path)
    overflows = log[-1]["overflows"]
    assert overflows > 3 and log[-1]["scale"] == 2.0 ** (16 - overflows) and result.skipped == 0
    assert objective.seen.count(0) == 1 + log[0]["overflows"]  # no batch was left out
    plain, _ = run(tmp_path / "plain", "fp32", Rows(1e4), optimizer={"kind": "adamw"})
    assert lines(tmp_path / "plain")[0]["grad_norm"] == pytest.approx(log[0]["grad_norm"], rel=1e-2)
    for p, q in zip(model.parameters(), plain.parameters()):
        torch.testing.assert_close(p, q, rtol=0.1, atol=0.02)


class Killed(BaseException):
    pass


def test_the_scale_comes_back_with_the_saved_state(tmp_path: Path) -> None:
    whole, _ = run(tmp_path / "whole", "fp16", Rows(1e4))

    class Dying(Rows):
        def loss(self, model: Llama, batch: Any) -> StepLoss:
            if self.seen[-1] >= 6:
                raise Killed
            return super().loss(model, batch)

    with pytest.raises(Killed):
        run(tmp_path / "killed", "fp16", Dying(1e4))
    again, result = run(tmp_path / "killed", "fp16", Rows(1e4))
    assert result.resumed_from == 4
    assert all(torch.equal(p, q) for p, q in zip(whole.parameters(), again.parameters()))
    assert (tmp_path / "killed" / "train.jsonl").read_bytes() == (tmp_path / "whole" / "train.jsonl").read_bytes()


class Explodes(torch.autograd.Function):
    """A finite value with a gradient that is not."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        return grads[0] * float("inf")


def test_what_no_scale_cures_is_skipped_and_leaves_the_scale(tmp_path: Path) -> None:
    class Broken(Rows):
        def loss(self, model: Llama, batch: Any) -> StepLoss:
            part = super().loss(model, batch)
            return StepLoss(Explodes.apply(part.total), part.count) if self.seen[-1] == 5 else part

    model = fresh()
    config = LoopConfig(steps=8, save_every=8, warmup=0, threads=1, precision="fp16")
    result = fit(model, Broken(), config, state=tmp_path / "state", log=tmp_path / "train.jsonl")
    log = lines(tmp_path)
    assert result.skipped == 1 and "gradient norm is" in log[5]["skipped"]
    assert log[4]["scale"] == log[5]["scale"] == log[6]["scale"] and log[5]["overflows"] == log[4]["overflows"]
    assert all(p.isfinite().all() for p in model.parameters())
