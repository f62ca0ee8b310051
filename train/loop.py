"""The training loop of every stage: pre-training, instruction tuning, preference alignment; on one process or many.

A thread prepares the next batch. A guard skips steps whose loss or gradient is not finite, or far outside the recent range. All ranks see
the same totals, so they take, skip and stop together.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from corpusmill.pipeline.config import counting
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.watch.progress import Progress
from corpusmill.train.checkpoint import MODEL, StateFolder, States
from corpusmill.train.compute import deterministic
from corpusmill.train.data import DataShare
from corpusmill.train.losses import Objective, StepLoss, step_totals
from corpusmill.train.model import Llama
from corpusmill.train.optim import lr_fraction
from corpusmill.train.options import LoopConfig, PhasePlan, Schedule
from corpusmill.train.parallel.dims import ParallelDims, local_of, squared_norm
from corpusmill.train.parallel.model import ParallelModel, optimizer_of, prepare
from corpusmill.train.watch import Watch, flops_per_token

# ---- the next batch ----------------------------------------------------------------------------------


class Prefetcher:
    """Wraps an objective and always prepares its next batch, up to the end of step `steps - 1`.

    Batches depend only on the step, and one thread makes them in order, so they are the same as without prefetching. `waited`: seconds for
    which the training waited for batches.
    """

    def __init__(self, objective: Objective, steps: int):
        self.objective, self.steps, self.metrics, self.waited = objective, steps, objective.metrics, 0.0
        self._thread = ThreadPoolExecutor(1, "batches")
        self._next: tuple[int, DataShare] | None = None  # the step that the stream continues with; None: it must start anew
        self._stream: Iterator[Any] = iter(())
        self._future: Future[Any] = Future()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.objective, name)

    def __enter__(self) -> "Prefetcher":
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def loss(self, model: Llama, batch: Any) -> StepLoss:
        return self.objective.loss(model, batch)

    def batches(self, step: int, share: DataShare) -> Iterator[Any]:
        if self._next != (step, share):
            self._stream = self._batches(step, share)
            self._future = self._thread.submit(next, self._stream, None)
        self._next = None  # until the step is complete: after an interrupted step the stream starts anew
        while (batch := self._wait()) is not None:
            yield batch
        self._next = step + 1, share

    def _wait(self) -> Any:
        started = time.perf_counter()
        batch = self._future.result()
        self.waited += time.perf_counter() - started
        self._future = self._thread.submit(next, self._stream, None)
        return batch

    def _batches(self, first: int, share: DataShare) -> Iterator[Any]:
        """Yields the batches of all steps from `first` on, with a None after each step's."""
        for step in range(first, self.steps):
            yield from self.objective.batches(step, share)
            yield None


# ---- the guard ---------------------------------------------------------------------------------------
#
# Steps are skipped whose loss or gradient norm is not finite, or far outside the recent range.

#: The number of recent values, and the least number of them with which a value can count as a spike.
WINDOW, ENOUGH = 64, 20
#: The smallest deviations, as fractions of the median, so that after very even values a ripple is not a spike. Gradient norms may rise
#: tenfold in a healthy run, and clipping limits their effect.
LOSS_FLOOR, NORM_FLOOR = 0.1, 1.0


def refusal(value: float, name: str, recent: list[float], threshold: float, floor: float) -> str | None:
    """Returns why a step with this value must be skipped, or None. Appends a finite value to the `recent` ones, and keeps WINDOW of them.

    A spike lies more than `threshold` deviations (0: any number) above the median. The deviation comes from the median distance of
    consecutive values: no outlier moves it, and a loss that falls fast, as at the start, does not widen it. For independent normal noise
    it is the standard deviation.
    """
    if not math.isfinite(value):
        return f"{name} is {value}"
    reason = None
    if threshold and len(recent) >= ENOUGH:
        median = statistics.median(recent)
        deviation = 1.4826 / math.sqrt(2) * statistics.median(abs(b - a) for a, b in pairwise(recent))
        score = (value - median) / max(deviation, floor * abs(median), 1e-6)
        if score > threshold:
            reason = f"{name} {value:.4g} is a spike ({score:.1f} deviations above {median:.4g})"
    recent.append(value)
    del recent[:-WINDOW]
    return reason


# ---- the loop ----------------------------------------------------------------------------------------

#: What a phase reads that names no tokens, in the log.
OWN = "the run's own tokens"


@dataclass
class FitResult:
    """The totals of a whole training, with its resumed parts; `seconds` and `tokens_per_second` are those of this process."""

    steps: int
    count: int  # targets (pairs in alignment) trained on
    tokens: int
    skipped: int
    losses: list[float]  # the mean losses of the last steps
    resumed_from: int
    seconds: float
    tokens_per_second: float
    parallel_model: ParallelModel
    states: States

    @property
    def loss(self) -> float:
        """The mean loss of the last steps; NaN if there was none."""
        return sum(self.losses) / len(self.losses) if self.losses else float("nan")


@dataclass
class _Progress:
    """The state of a resumed run besides weights and moments, as JSON values."""

    count: int = 0
    tokens: int = 0
    skipped: int = 0
    skipped_in_row: int = 0
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    score: float | None = None  # of the latest evaluation


@dataclass
class _Gradient:
    """The result of a step's backward pass. `grads` times `factor` is the gradient of the mean loss; `norm` is that gradient's norm."""

    parts: list[StepLoss]  # this rank's micro-batches
    grads: list[Tensor]
    factor: float
    norm: float
    loss: float
    count: int
    tokens: int
    metrics: dict[str, float]


#: Returns the documents of one micro-batch: step, share, number of the micro-batch.
Describe = Callable[[int, DataShare, int], list[str]]
#: Evaluates after a number of steps. Its values go into the log by name; `samples` go into a separate file.
Evaluate = Callable[[ParallelModel, int], dict[str, Any]]


def fit(
    model: Llama,
    objective: Objective,
    config: LoopConfig,
    *,
    dims: ParallelDims | None = None,
    seed: int | None = None,
    state: Path | StateFolder,
    log: Path,
    plan: PhasePlan | None = None,
    inputs_digest: str = "",
    others: Sequence[StateFolder] = (),
    describe: Describe | None = None,
    evaluate: Evaluate | None = None,
    evaluate_every: int = 0,
    score: str = "",
    progress: Progress | None = None,
    title: str = "train",
    length: int | None = None,
) -> FitResult:
    """Trains `model`, the same on every rank, up to step `config.steps`, from the latest state in `state`.

    With a `seed` the model is blank: it gets storage and initial weights when it is laid out over the ranks. `log` gets one JSON line for
    each step. `describe` returns the documents of a micro-batch, for the log of skipped steps. `evaluate` is called after every
    `evaluate_every` steps (0: never) and after the last; its values go into that step's line, and `score` names the value that ranks
    states. On one process `model` itself is trained; else the result's `parallel_model` has the trained parts. Raises CorpusmillError after
    `config.max_skips` skipped steps in a row. `length` is that of a row, by default the model's context; only the logged speed uses it.

    `plan` has the phases of the training; by default there is one, the schedule of `config`. Without a state in `state`, the training
    starts from the latest state in the folders `others` that it would have reached itself: all steps so far had the same rates and tokens,
    and `inputs_digest`, a digest of everything else that the weights depend on, is the same. States where other plans can branch off are
    kept.
    """
    dims = dims or ParallelDims.single(model.device)
    if config.keep_best and evaluate is None:
        raise InputError(f"{title}.loop.keep_best: no state can be the best one, as there is no validation data to measure it on.")
    plan = plan or PhasePlan.of(config)
    states = States(state, dims, config.keep, config.keep_best, config.async_save, plan.branches())
    options = {name: value for name, value in counting(config).items() if name not in Schedule.model_fields}
    identity = {"loop": options, "model": model.arch.model_dump(mode="json"), "inputs_digest": inputs_digest}
    frozen = any(not p.requires_grad for p in model.parameters())
    adapter = sum(p.numel() for p in model.parameters() if p.requires_grad) if frozen else 0
    flops = flops_per_token(model.arch, length, adapter)
    with deterministic(config.threads), states, Prefetcher(objective, config.steps) as ahead:
        loop = _Loop(prepare(model, dims, config, seed), ahead, config, states, plan, identity, describe, title)
        begin, so_far = loop.resume(others), loop.so_far
        started, tokens_before = time.perf_counter(), so_far.tokens
        with Watch(log, begin, config, dims, flops, progress, title) as watch:
            for step in range(begin, config.steps):
                at, tokens, waited = time.perf_counter(), so_far.tokens, ahead.waited
                line = loop.step(step)
                took, done = time.perf_counter() - at, step + 1
                if evaluate and (done == config.steps or (evaluate_every and done % evaluate_every == 0)):
                    with torch.no_grad():
                        line |= evaluate(loop.parallel_model, done)
                    so_far.score = line.get(score)
                watch.step({"step": step, **line}, so_far.tokens - tokens, took, ahead.waited - waited)
                if done % config.save_every == 0 or done == config.steps or done in states.marked:
                    watch.sync()
                    loop.save(done)
        states.finish()
        seconds = time.perf_counter() - started
    speed = (so_far.tokens - tokens_before) / seconds
    return FitResult(
        config.steps, so_far.count, so_far.tokens, so_far.skipped, so_far.losses[-50:], begin, seconds, speed, loop.parallel_model, states
    )  # fmt: skip


class _Loop:
    def __init__(
        self,
        parallel_model: ParallelModel,
        objective: Objective,
        config: LoopConfig,
        states: States,
        plan: PhasePlan,
        identity: dict[str, Any],
        describe: Describe | None,
        title: str,
    ):
        self.parallel_model, self.objective, self.config, self.states = parallel_model, objective, config, states
        self.plan, self.identity, self.describe, self.title = plan, identity, describe, title
        self.optimizer = optimizer_of(parallel_model, config.optimizer)
        self.device = next(iter(parallel_model.parameters.values())).device
        self.so_far = _Progress()
        self.branched_from = ""  # the state of another training that this one starts from; "" once it is logged

    # ---- one step -----------------------------------------------------------------------------------

    def step(self, step: int) -> dict[str, Any]:
        """Takes or skips one step. Returns its line for the log."""
        number, within = self.plan.at(step)
        phase = self.plan.phases[number]
        if number and not within and phase.tokens != self.plan.phases[number - 1].tokens:
            self.so_far.losses, self.so_far.norms = [], []  # other tokens have other losses, which are no spikes
        done = self._gradient(step)
        fraction = phase.peak * lr_fraction(within, phase)
        line: dict[str, Any] = {"loss": done.loss, "lr": self.config.optimizer.lr * fraction, "grad_norm": done.norm, "count": done.count}
        line |= done.metrics
        if len(self.plan.phases) > 1:
            line |= {"phase": number + 1} | ({} if within else {"reads": phase.tokens or OWN})
        if self.branched_from:
            line["branched_from"], self.branched_from = self.branched_from, ""
        reason = self._judge(done)
        if reason:
            line |= self._skip(step, reason, done.parts)
        else:
            self._update(done, fraction)
            self.so_far.skipped_in_row = 0
            self.so_far.count += done.count
        self.so_far.tokens += done.tokens
        return line

    def _gradient(self, step: int) -> "_Gradient":
        """Sums loss and gradient over all micro-batches of all ranks. Divides the loss by the count; `_update` divides the gradient."""
        self.optimizer.zero_grad()
        parts = self.parallel_model.backward(self.objective, step)
        grads = {name: p.grad for name, p in self.parallel_model.parameters.items() if p.grad is not None}
        totals = self.parallel_model.total(step_totals(parts, self.objective.metrics, self.device))
        square = squared_norm(grads.values(), self.states.dims)
        total, count, tokens, *metrics, squared = torch.cat([totals, square.view(1)]).tolist()  # the one wait for the device in a step
        valid = max(int(count), 1)
        factor = self.parallel_model.gradient_scale / valid
        means = {name: value / valid for name, value in zip(self.objective.metrics, metrics, strict=True)}
        return _Gradient(parts, list(grads.values()), factor, math.sqrt(squared) * factor, total / valid, int(count), int(tokens), means)

    def _judge(self, done: "_Gradient") -> str | None:
        if not done.count:  # without targets nothing was learned, and the guards must not remember the loss of 0
            return None if math.isfinite(done.loss + done.norm) else f"loss is {done.loss} and the gradient norm {done.norm}"
        of_loss = refusal(done.loss, "loss", self.so_far.losses, self.config.spike, LOSS_FLOOR)
        of_norm = refusal(done.norm, "gradient norm", self.so_far.norms, self.config.spike, NORM_FLOOR)
        return of_loss or of_norm

    def _update(self, done: "_Gradient", fraction: float) -> None:
        clip = self.config.clip
        clipped = min(1.0, clip / (done.norm + 1e-6)) if clip else 1.0  # as torch.nn.utils.clip_grad_norm_
        torch._foreach_mul_([local_of(grad) for grad in done.grads], done.factor * clipped)
        self.optimizer.step(fraction)

    def _documents(self, step: int, parts: list[StepLoss]) -> list[str]:
        """Returns the documents of micro-batches whose loss is not finite, on any rank; if there are none, all documents of the step."""
        if self.describe is None:
            return []
        share = self.states.dims.share
        losses = torch.zeros(share.of, len(parts), dtype=torch.float64, device=self.device)
        losses[share.index] = torch.stack([part.total.detach().double() for part in parts])
        places = torch.isfinite(self.parallel_model.total(losses.flatten())).logical_not().nonzero().flatten().tolist()
        micro_batches = [divmod(place, len(parts)) for place in places or range(losses.numel())]
        return list(
            dict.fromkeys(name for index, number in micro_batches for name in self.describe(step, DataShare(index, share.of), number))
        )

    def _skip(self, step: int, reason: str, parts: list[StepLoss]) -> dict[str, Any]:
        self.so_far.skipped += 1
        self.so_far.skipped_in_row += 1
        documents = self._documents(step, parts)
        if self.so_far.skipped_in_row >= self.config.max_skips:
            named = f" (its documents: {', '.join(documents[:5])})" if documents else ""
            raise CorpusmillError(
                f"{self.title}: {self.so_far.skipped_in_row} steps in a row had to be skipped; at step {step} the {reason}{named}. "
                "A lower learning rate may help."
            )
        return {"skipped": reason, "documents": documents}

    # ---- state --------------------------------------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        """Returns the tensors of a saved state, by name."""
        weights = {MODEL + name: p for name, p in self.parallel_model.parameters.items()}
        return weights | {f"optimizer/{name}": t for name, t in self.optimizer.state().items()}

    def save(self, done: int) -> None:
        self.states.save(done, self.tensors(), {**self._wanted(done), "so_far": vars(self.so_far)}, self.so_far.score)

    def resume(self, others: Sequence[StateFolder]) -> int:
        """Takes over the latest state. Returns the number of steps done."""
        saved = self.states.latest(self._wanted, others)
        if saved is None:
            return 0
        self.states.load(saved, self.tensors())
        self.states.prune(saved.step)
        self.so_far = _Progress(**saved.record["so_far"])
        if saved.path.parent != self.states.folder.folder:
            training, _, step = saved.storage.root.split("/")[-3:]
            self.branched_from = f"{training}/{step}"
            if saved.step == self.config.steps:  # the other training stopped later: no step follows that would save a state of our own
                self.save(saved.step)
        return saved.step

    def _wanted(self, step: int) -> dict[str, Any]:
        """Returns the entries by which the record of a state after `step` steps says what it depends on."""
        return {**self.identity, "plan": self.plan.until(step)}
