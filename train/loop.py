"""The training loop of every stage: pre-training, instruction tuning, preference alignment.

`objective(model, step)` is a pure function of the weights and the step number, so the step number is the whole state
of the data; a run that was killed and started again takes the same steps with the same bits.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from corpusmill.pipeline.config import config_digest
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.progress import Progress
from corpusmill.train.checkpoint import load_state, model_tensors, save_state
from corpusmill.train.device import autocast, deterministic
from corpusmill.train.guard import LOSS_FLOOR, NORM_FLOOR, SpikeGuard
from corpusmill.train.log import StepLog
from corpusmill.train.loop_progress import loop_bar
from corpusmill.train.model import Llama
from corpusmill.train.optimizer import Optimizer
from corpusmill.train.options import LoopConfig
from corpusmill.train.schedule import lr_fraction


@dataclass
class StepLoss:
    """The loss of a (micro-)batch: the sum over its valid targets (or pairs), how many there are, and sums to log.

    `metrics` are sums too: the log shows them divided by the step's count. `tokens` is for speed only (0: the count).
    """

    total: Tensor
    count: int
    metrics: dict[str, float] = field(default_factory=dict)
    tokens: int = 0


#: One batch, or its micro-batches one after the other: their gradients are added, then divided by the count of all.
Objective = Callable[[Llama, int], StepLoss | Iterable[StepLoss]]


@dataclass
class FitResult:
    """What a whole training did, resumed parts included (`seconds` and `tokens_per_second`: of this process alone)."""

    steps: int
    count: int  # targets (or pairs) trained on
    tokens: int
    skipped: int
    losses: list[float]  # the mean losses of the last steps
    resumed_from: int
    seconds: float
    tokens_per_second: float

    @property
    def loss(self) -> float:
        """The mean loss of the last steps; NaN where there was none."""
        return sum(self.losses) / len(self.losses) if self.losses else float("nan")


@dataclass
class _Progress:
    """What a resumed run has to know beside weights and moments; all of it JSON."""

    count: int = 0
    tokens: int = 0
    skipped: int = 0
    skipped_in_row: int = 0
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)


def fit(
    model: Llama,
    objective: Objective,
    config: LoopConfig,
    *,
    state: Path,
    log: Path,
    describe: Callable[[int], list[str]] | None = None,
    evaluate: Callable[[Llama], dict[str, float]] | None = None,
    evaluate_every: int = 0,
    progress: Progress | None = None,
    title: str = "train",
) -> FitResult:
    """Trains `model` in place for `config.steps` steps, or what is left of them after the latest state in `state`.

    `log` gets one JSON line a step. `describe(step)` names the documents of a step that was skipped. `evaluate` is
    called after every `evaluate_every` steps; what it measures goes into that step's line. Raises CorpusmillError
    after `config.max_skips` skipped steps in a row.
    """
    with deterministic(config.threads):
        loop = _Loop(model, objective, config, state, describe, title)
        begin = loop.resume()
        if config.compile:
            model.model.compile()
        started, tokens_before = time.perf_counter(), loop.so_far.tokens
        with StepLog(log, begin) as lines, loop_bar(progress, title, begin, config.steps) as bar:
            for step in range(begin, config.steps):
                line = loop.step(step)
                done = step + 1
                if evaluate and evaluate_every and done % evaluate_every == 0:
                    line |= _evaluated(model, evaluate)
                lines.write({"step": step, **line})
                bar(done, line["loss"], loop.so_far.tokens - tokens_before)
                if done % config.save_every == 0 or done == config.steps:
                    lines.sync()
                    loop.save(done)
        seconds = time.perf_counter() - started
    so_far = loop.so_far
    speed = (so_far.tokens - tokens_before) / seconds
    return FitResult(config.steps, so_far.count, so_far.tokens, so_far.skipped, so_far.losses[-50:], begin, seconds, speed)


def _evaluated(model: Llama, evaluate: Callable[[Llama], dict[str, float]]) -> dict[str, float]:
    model.eval()
    with torch.no_grad():
        measured = evaluate(model)
    model.train()
    return measured


class _Loop:
    def __init__(
        self,
        model: Llama,
        objective: Objective,
        config: LoopConfig,
        state: Path,
        describe: Callable[[int], list[str]] | None,
        title: str,
    ):
        self.model, self.objective, self.config, self.state = model, objective, config, state
        self.describe, self.title = describe, title
        self.optimizer = Optimizer(model, config.optimizer)
        self.params = [p for p in model.parameters() if p.requires_grad]
        self.so_far = _Progress()
        self.guards()

    def guards(self) -> None:
        self.loss_guard = SpikeGuard(self.config.spike, LOSS_FLOOR, self.so_far.losses)
        self.norm_guard = SpikeGuard(self.config.spike, NORM_FLOOR, self.so_far.norms)

    # ---- one step -----------------------------------------------------------------------------------

    def step(self, step: int) -> dict[str, Any]:
        """Takes or skips one step; returns its line for the log."""
        self.model.train()
        parts = self._backward(step)
        count = sum(part.count for part in parts)
        total = float(sum(part.total.detach().double() for part in parts))
        loss = total / max(count, 1)
        grads = [p.grad for p in self.params if p.grad is not None]
        norm = float(torch.stack(torch._foreach_norm(grads)).norm()) / max(count, 1) if grads else 0.0
        fraction = lr_fraction(step, self.config)
        line: dict[str, Any] = {"loss": loss, "lr": self.config.optimizer.lr * fraction, "grad_norm": norm, "count": count}
        for name in parts[0].metrics if parts else ():
            line[name] = sum(part.metrics[name] for part in parts) / max(count, 1)
        reason = self._judge(loss, norm) if count else None
        if reason:
            line |= self._skip(step, reason)
        else:
            self._update(grads, count, norm, fraction)
            self.so_far.skipped_in_row = 0
            self.so_far.count += count
        self.so_far.tokens += sum(part.tokens or part.count for part in parts)
        return line

    def _backward(self, step: int) -> list[StepLoss]:
        self.optimizer.zero_grad()
        parts = []
        with autocast(self.model.device, self.config.precision):
            given = self.objective(self.model, step)
            for part in [given] if isinstance(given, StepLoss) else given:
                if part.total.requires_grad:
                    part.total.backward()
                parts.append(part)
        return parts

    def _judge(self, loss: float, norm: float) -> str | None:
        reasons = self.loss_guard.judge(loss, "loss"), self.norm_guard.judge(norm, "gradient norm")
        self.so_far.losses, self.so_far.norms = list(self.loss_guard.values), list(self.norm_guard.values)
        return reasons[0] or reasons[1]

    def _update(self, grads: list[Tensor], count: int, norm: float, fraction: float) -> None:
        clip = self.config.clip
        scale = min(1.0, clip / (norm + 1e-6)) if clip else 1.0
        torch._foreach_mul_(grads, scale / max(count, 1))
        self.optimizer.step(fraction)

    def _skip(self, step: int, reason: str) -> dict[str, Any]:
        self.so_far.skipped += 1
        self.so_far.skipped_in_row += 1
        documents = self.describe(step) if self.describe else []
        if self.so_far.skipped_in_row >= self.config.max_skips:
            named = f" (its documents: {', '.join(documents[:5])})" if documents else ""
            raise CorpusmillError(
                f"{self.title}: {self.so_far.skipped_in_row} steps in a row had to be skipped; at step {step} the {reason}{named}. "
                "A lower learning rate may help."
            )
        return {"skipped": reason, "documents": documents}

    # ---- state --------------------------------------------------------------------------------------

    def save(self, done: int) -> None:
        record = {"config": config_digest(self.config), **vars(self.so_far)}
        save_state(self.state, done, model_tensors(self.model), self.optimizer.state_tensors(), record)

    def resume(self) -> int:
        """Takes over the latest state; returns how many steps are done."""
        found = load_state(self.state)
        if found is None:
            return 0
        done, weights, moments, record = found
        shapes = {name: t.shape for name, t in model_tensors(self.model).items()}
        if record.pop("config") != config_digest(self.config) or {name: t.shape for name, t in weights.items()} != shapes:
            raise InputError(f"{self.state}: holds the state of another model or another configuration; remove it to begin anew.")
        self.model.load_state_dict(weights, strict=not self.model.arch.tied)
        self.optimizer.load_state_tensors(moments)
        self.so_far = _Progress(**record)
        self.guards()
        return done
