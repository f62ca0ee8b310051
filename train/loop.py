"""The training loop of every stage: pre-training, instruction tuning, preference alignment; on one process or many.

A thread prepares the next batch. A guard skips steps whose loss or gradient is not finite, or far outside the recent range. All ranks see
the same totals, so they take, skip and stop together.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from corpusmill.pipeline.config import counting
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.progress import Progress
from corpusmill.train.checkpoint import MODEL, CheckpointDir, States, saved_states
from corpusmill.train.compute import chosen, deterministic, slow_precision
from corpusmill.train.data import DataShare
from corpusmill.train.model import Llama, Objective, StepLoss, step_totals
from corpusmill.train.optim import lr_fraction
from corpusmill.train.options import LoopConfig, PhasePlan, Schedule
from corpusmill.train.parallel import ParallelDims, local_of, squared_norm
from corpusmill.train.parallel.model import ParallelModel, optimizer_of, prepare
from corpusmill.train.watch import Watch, flops_per_token

# ---- the next batch ----------------------------------------------------------------------------------


class Prefetcher(Objective, AbstractContextManager["Prefetcher"]):
    """An objective that always prepares the next batch of another one, up to the end of step `steps - 1`, as steps follow each other.

    Batches depend only on the step, and one thread makes them in order, so they are the same as without prefetching. `waited`: seconds for
    which the training waited for batches.
    """

    def __init__(self, objective: Objective, steps: int):
        self.objective, self.metrics, self.steps, self.waited = objective, objective.metrics, steps, 0.0
        self._thread = ThreadPoolExecutor(1, "batches")
        self._stream: Iterator[Any] | None = None

    def loss(self, model: Llama, batch: Any) -> StepLoss:
        return self.objective.loss(model, batch)

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def batches(self, step: int, share: DataShare) -> Iterator[Any]:
        if self._stream is None:
            ahead = range(step, self.steps)  # with a None after each step's batches
            self._stream = (batch for each in ahead for batch in chain(self.objective.batches(each, share), [None]))
            self._future = self._thread.submit(next, self._stream, None)
        while True:
            started = time.perf_counter()
            batch = self._future.result()
            self.waited += time.perf_counter() - started
            self._future = self._thread.submit(next, self._stream, None)
            if batch is None:
                return
            yield batch


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


@dataclass(kw_only=True)
class TrainState:
    """The state of a training besides weights and moments, as JSON values."""

    count: int = 0  # targets (pairs in alignment) trained on
    tokens: int = 0
    skipped: int = 0
    skipped_in_row: int = 0
    losses: list[float] = field(default_factory=list)  # the mean losses of the last steps
    norms: list[float] = field(default_factory=list)
    score: float | None = None  # of the latest evaluation


@dataclass(kw_only=True)
class FitResult(TrainState):
    """The totals of a whole training, with its resumed parts."""

    steps: int
    resumed_from: int
    precision: str  # never `auto`
    warnings: list[str]
    parallel_model: ParallelModel
    states: States

    @property
    def loss(self) -> float:
        """The mean loss of the last steps; NaN if there was none."""
        last = self.losses[-50:]
        return sum(last) / len(last) if last else float("nan")


@dataclass
class Gradient:
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


def with_precision(config: LoopConfig, dims: ParallelDims, states: Storage) -> LoopConfig:
    """Returns the options with what `auto` means as precision: that of the training's saved states, wherever it goes on; without any, what
    is fast on the first process's device. It is the same on all ranks."""
    found: list[Any] = [config.precision]
    if config.precision == "auto" and dims.is_main:
        found = [saved[-1].record["loop"]["precision"] if (saved := saved_states(states)) else chosen(dims, "auto")]
    if dims.world > 1:
        dist.broadcast_object_list(found, 0, group=dims.patient)
    return config.model_copy(update={"precision": found[0]})


def fit(
    model: Llama,
    objective: Objective,
    config: LoopConfig,
    *,
    dims: ParallelDims | None = None,
    start: int | Path | None = None,
    first: Callable[[ParallelModel], None] | None = None,
    state: Path | CheckpointDir,
    log: Path,
    plan: PhasePlan | None = None,
    inputs_digest: str = "",
    others: Sequence[Storage] = (),
    describe: Describe | None = None,
    evaluate: Evaluate | None = None,
    evaluate_every: int = 0,
    score: str = "",
    progress: Progress | None = None,
    title: str = "train",
    length: int | None = None,
) -> FitResult:
    """Trains `model`, the same on every rank, up to step `config.steps`, from the latest state in `state`.

    With a `start`, the seed of initial weights or a model folder, the model is blank: each rank fills its part of it. `first` is given the
    start model as it is laid out, before a saved state is loaded. `log` gets one JSON line for each step. `describe` returns the documents
    of a micro-batch, for the log of skipped steps. `evaluate` is called after every `evaluate_every` steps (0: never) and after the last;
    its values go into that step's line, and `score` names the value that ranks states. On one process `model` itself is trained; else the
    result's `parallel_model` has the trained parts. Raises CorpusmillError after `config.max_skips` skipped steps in a row. `length` is
    that of a row, by default the model's context; only the logged speed uses it.

    `plan` has the phases of the training; by default there is one, the schedule of `config`. Without a state in `state`, the training
    starts from the latest state in the folders `others` that it would have reached itself: all steps so far had the same rates and tokens,
    and `inputs_digest`, a digest of everything else that the weights depend on, is the same. States where other plans can branch off are
    kept.
    """
    dims, plan = dims or ParallelDims.single(model.device), plan or PhasePlan.of(config)
    if config.keep_best and evaluate is None:
        raise InputError(f"{title}.loop.keep_best: no state can be the best one, as there is no validation data to measure it on.")
    states = States(state, dims, config.keep, config.keep_best, config.async_save, plan.branches())
    config = with_precision(config, dims, states.folder)
    warnings = [f"{title}.{slow}"] if dims.is_main and (slow := slow_precision(dims.device, config.precision)) else []
    if warnings and progress is not None:
        progress.console.print(f"corpusmill: {warnings[0]}", markup=False, highlight=False, soft_wrap=True)
    options = {name: value for name, value in counting(config).items() if name not in Schedule.model_fields}
    identity = {"loop": options, "model": model.arch.model_dump(mode="json"), "inputs_digest": inputs_digest}
    frozen = any(not p.requires_grad for p in model.parameters())
    adapter = sum(p.numel() for p in model.parameters() if p.requires_grad) if frozen else 0
    flops = flops_per_token(model.arch, length, adapter)
    train_state, begin, branched_from = TrainState(), 0, ""
    with deterministic(config.threads), states, Prefetcher(objective, config.steps) as ahead:
        parallel_model = prepare(model, dims, config, start)
        if first:
            first(parallel_model)
        optimizer = optimizer_of(parallel_model, config.optimizer, bf16=config.precision != "fp32")

        def wanted(done: int) -> dict[str, Any]:
            """Returns the entries by which the record of a state after `done` steps says what it depends on."""
            return {**identity, "plan": plan.until(done)}

        def tensors() -> dict[str, Tensor]:
            weights = {MODEL + name: p for name, p in parallel_model.parameters.items()}
            return weights | {f"optimizer/{name}": t for name, t in optimizer.state().items()}

        def save(done: int) -> None:
            states.save(done, tensors(), {**wanted(done), "train_state": vars(train_state)}, train_state.score)

        if saved := states.latest(wanted, others):
            states.load(saved, tensors())
            train_state, begin = TrainState(**saved.record["train_state"]), saved.step
            if saved.storage.root.rpartition("/")[0] != states.folder.root:
                training, _, name = saved.storage.root.split("/")[-3:]
                branched_from = f"{training}/{name}"
                if begin == config.steps:  # the other training stopped later: no step follows that would save a state of our own
                    save(begin)
        with Watch(log, begin, config, dims, flops, progress, title) as watch:
            for step in range(begin, config.steps):
                at, waited, done = time.perf_counter(), ahead.waited, step + 1
                number, within = plan.at(step)
                phase = plan.phases[number]
                if number and not within and phase.tokens != plan.phases[number - 1].tokens:
                    train_state.losses, train_state.norms = [], []  # other tokens have other losses, which are no spikes
                optimizer.zero_grad()
                found = gradient(parallel_model, ahead, step)
                fraction = phase.peak * lr_fraction(within, phase)
                line: dict[str, Any] = {
                    "step": step, "loss": found.loss, "lr": config.optimizer.lr * fraction, "grad_norm": found.norm, "count": found.count,
                    **found.metrics,
                }  # fmt: skip
                if len(plan.phases) > 1:
                    line |= {"phase": number + 1} | ({} if within else {"reads": phase.tokens or OWN})
                if not step:
                    line["precision"] = config.precision
                if branched_from and step == begin:
                    line["branched_from"] = branched_from
                if reason := _reason_to_skip(found, train_state, config.spike):
                    train_state.skipped += 1
                    train_state.skipped_in_row += 1
                    documents = _documents(parallel_model, found, step, describe) if describe else []
                    line |= {"skipped": reason, "documents": documents}
                    if train_state.skipped_in_row >= config.max_skips:
                        named = f" (its documents: {', '.join(documents[:5])})" if documents else ""
                        raise CorpusmillError(
                            f"{title}: {train_state.skipped_in_row} steps in a row had to be skipped; at step {step} the {reason}{named}. "
                            "A lower learning rate may help."
                        )
                else:
                    clipped = min(1.0, config.clip / (found.norm + 1e-6)) if config.clip else 1.0  # as torch.nn.utils.clip_grad_norm_
                    torch._foreach_mul_([local_of(grad) for grad in found.grads], found.factor * clipped)
                    optimizer.step(fraction)
                    train_state.skipped_in_row = 0
                    train_state.count += found.count
                train_state.tokens += found.tokens
                took = time.perf_counter() - at
                if evaluate and (done == config.steps or (evaluate_every and done % evaluate_every == 0)):
                    with torch.no_grad():
                        line |= evaluate(parallel_model, done)
                    train_state.score = line.get(score)
                watch.step(line, found.tokens, took, ahead.waited - waited)
                if done % config.save_every == 0 or done == config.steps or done in states.marked:
                    watch.sync()
                    save(done)
        states.finish()
    return FitResult(
        **vars(train_state), steps=config.steps, resumed_from=begin, precision=config.precision, warnings=warnings,
        parallel_model=parallel_model, states=states,
    )  # fmt: skip


def gradient(parallel_model: ParallelModel, objective: Objective, step: int) -> Gradient:
    """Sums loss and gradient over all micro-batches of all ranks. The loss is divided by the count; the gradient is not yet."""
    parts = parallel_model.backward(objective, step)
    grads = [p.grad for p in parallel_model.parameters.values() if p.grad is not None]
    totals = parallel_model.total(step_totals(parts, objective.metrics, parallel_model.dims.device))
    square = squared_norm(grads, parallel_model.dims)
    total, count, tokens, *sums, squared = torch.cat([totals, square.view(1)]).tolist()  # the one wait for the device in a step
    valid = max(int(count), 1)
    factor = parallel_model.gradient_scale / valid
    metrics = {name: value / valid for name, value in zip(objective.metrics, sums, strict=True)}
    return Gradient(parts, grads, factor, math.sqrt(squared) * factor, total / valid, int(count), int(tokens), metrics)


def _reason_to_skip(found: Gradient, train_state: TrainState, spike: float) -> str | None:
    if not found.count:  # without targets nothing was learned, and the guards must not remember the loss of 0
        return None if math.isfinite(found.loss + found.norm) else f"loss is {found.loss} and the gradient norm {found.norm}"
    of_loss = refusal(found.loss, "loss", train_state.losses, spike, LOSS_FLOOR)
    of_norm = refusal(found.norm, "gradient norm", train_state.norms, spike, NORM_FLOOR)
    return of_loss or of_norm


def _documents(parallel_model: ParallelModel, found: Gradient, step: int, describe: Describe) -> list[str]:
    """Returns the documents of micro-batches whose loss is not finite, on any rank; if there are none, all documents of the step."""
    share, each = parallel_model.dims.share, len(found.parts)
    losses = torch.zeros(share.of, each, dtype=torch.float64, device=parallel_model.dims.device)
    losses[share.index] = torch.stack([part.total.detach().double() for part in found.parts])
    places = torch.isfinite(parallel_model.total(losses.flatten())).logical_not().nonzero().flatten().tolist()
    names = (describe(step, DataShare(place // each, share.of), place % each) for place in places or range(losses.numel()))
    return list(dict.fromkeys(name for some in names for name in some))
