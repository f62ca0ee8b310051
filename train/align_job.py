"""What every process of the stage `align` does: the objectives on pairs and on single completions, and the training around them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from corpusmill.pipeline.shards import read_table
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.progress import Progress
from corpusmill.train.align import PAIRS_FILE, REFERENCE_FREE, AlignConfig
from corpusmill.train.align_data import PreparedPair, pairs_from_table, prepare_pair
from corpusmill.train.checkpoint_dir import LOG, CheckpointDir
from corpusmill.train.compute import chosen, deterministic
from corpusmill.train.data import IGNORED, Batch, DataShare, Order, in_turn, steps_of
from corpusmill.train.finetune import leave_model, start_from
from corpusmill.train.logprobs import (
    NOBODY,
    LabelledRows,
    Numbered,
    Reference,
    References,
    RowForm,
    SequenceLogps,
    by_sequence,
    counted_nats,
    other_model,
    sum_logps,
)
from corpusmill.train.loop import fit
from corpusmill.train.losses import (
    LOSSES,
    METRICS,
    CompletionLogps,
    LossOptions,
    PairLogps,
    StepLoss,
    completion_metrics,
    kto,
    pair_metrics,
    reference_point,
    token_nats,
)
from corpusmill.train.model import Llama
from corpusmill.train.parallel.dims import ParallelDims, total
from corpusmill.train.parallel.model import LocalModel, ParallelModel
from corpusmill.train.template import Encoded, chat_files, load_chat
from corpusmill.train.tuning import StartModel

# ---- pairs -------------------------------------------------------------------------------------------
#
# What alignment on pairs minimises and measures: DPO and its relatives, ORPO, SimPO.


class PairObjective:
    """A batch is `(ids, labels, segments)`, see `LabelledRows`. Pair n has the sequences 2n (chosen) and 2n + 1 (rejected)."""

    def __init__(
        self, config: AlignConfig, pairs: Sequence[PreparedPair], held_out: Sequence[PreparedPair],
        numbered: Callable[[Sequence[Encoded]], Numbered], dims: ParallelDims,
    ):  # fmt: skip
        self.config, self.pairs, self.held_out_count, self.dims = config, pairs, len(held_out), dims
        self.order = Order(len(pairs), config.batch, config.micro_batch, config.seed)
        self.sides, self.held_out = (
            numbered([side for pair in some for side in (pair.chosen, pair.rejected)]) for some in (pairs, held_out)
        )
        self.preference_loss = LOSSES[config.loss]
        self.options = LossOptions(config.beta, config.label_smoothing, config.gamma)
        self.needs_reference = config.loss not in REFERENCE_FREE
        self.reference: Reference | None = None
        self.held_out_reference: Reference | None = None
        self.metrics: Sequence[str] = ("preference_loss", *(name for name in METRICS if self.needs_reference or name != "kl"))

    def measure_reference(self, references: References, steps: int) -> None:
        """Takes the reference's log-probabilities on the micro-batches of the first epoch, so that on one process the very first
        log-ratios are 0 to the bit."""
        share = self.dims.share
        first = ((_sides(numbers), 2 * count) for numbers, count in self.order.first_epoch(share))
        self.reference = references.of("train", self.sides, first)
        batches = [(_sides(numbers), 2 * len(numbers)) for numbers in in_turn(self.held_out_count)][share.index :: share.of]
        self.held_out_reference = references.of("held-out", self.held_out, batches)

    # ---- the objective ------------------------------------------------------------------------------

    def batches(self, step: int, share: DataShare) -> Iterator[Batch]:
        for numbers in self.order.micro_batches(step, share):
            batch = self.sides.collate(_sides(numbers))
            yield batch.ids, batch.labels, batch.segments

    def loss(self, model: Llama, batch: Batch) -> StepLoss:
        """The sum of the pairs' losses; the log shows means a pair, and of the preferences alone as `preference_loss`."""
        ids, labels, segments = batch
        return self._of_nats(model(ids, segments, targets=labels[..., 0]), labels)

    def of_logits(self, logits: Tensor, labels: Tensor) -> StepLoss:
        """The same on the last stage of a pipeline."""
        targets = labels[..., 0]
        return self._of_nats(token_nats(logits, targets)[targets != IGNORED], labels)

    def _of_nats(self, nats: Tensor, labels: Tensor) -> StepLoss:
        logps = _pair_logps(nats, labels, self.sides, self.reference)
        losses = self.preference_loss(logps, self.options)
        measured = {"preference_loss": losses.detach(), **pair_metrics(logps, self.options)}
        if self.config.nll_weight:
            losses = losses - self.config.nll_weight * logps.mean_chosen
        tokens = (labels[..., 1] != NOBODY).sum()
        return StepLoss(losses.sum(), len(losses), {name: values.sum() for name, values in measured.items()}, tokens)

    def describe(self, step: int, share: DataShare, number: int) -> list[str]:
        """The ids of the pairs in a micro-batch, for the log of skipped ones."""
        return [self.pairs[pair].pair.id for pair in self.order.micro_batches(step, share)[number]]

    # ---- measuring ----------------------------------------------------------------------------------

    @torch.no_grad()
    def measure_held_out(self, parallel_model: ParallelModel) -> dict[str, float]:
        """Means over the held-out pairs, the same on every process; nothing without any.

        `accuracy` compares with the reference (0 before training); `preference_accuracy` is the share of pairs whose
        chosen completion has the higher log-probability a token.
        """
        sums: dict[str, float] = {}
        for numbers in in_turn(self.held_out_count):
            batch = self.held_out.collate(_sides(numbers))
            logps = _pair_logps(counted_nats(parallel_model, batch), batch.labels, self.held_out, self.held_out_reference)
            values = {"loss": self.preference_loss(logps, self.options), **pair_metrics(logps, self.options)}
            values["preference_accuracy"] = logps.mean_chosen > logps.mean_rejected
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + float(value.double().sum())
        return {name: total / self.held_out_count for name, total in sums.items()}


def _pair_logps(nats: Tensor, labels: Tensor, sides: Numbered, reference: Reference | None) -> PairLogps:
    logps = by_sequence(nats, labels)
    (chosen, rejected), (chosen_tokens, rejected_tokens) = (values.view(-1, 2).T for values in (logps.sums, logps.counts.float()))
    of_chosen, of_rejected = (None, None) if reference is None else reference.of(sides.numbers(logps)).view(-1, 2).T
    return PairLogps(chosen, rejected, of_chosen, of_rejected, chosen_tokens, rejected_tokens)


def _sides(pairs: Sequence[int]) -> list[int]:
    return [2 * pair + side for pair in pairs for side in (0, 1)]


# ---- single completions ------------------------------------------------------------------------------
#
# What alignment on single completions minimises and measures: KTO.


@dataclass(frozen=True)
class CompletionBatch:
    """A micro-batch; how many completions of its whole step are desirable; in a step's first one, what `kl` is measured on."""

    sequences: LabelledRows
    n_desirable: int
    mismatched: Sequence[LabelledRows]


class CompletionObjective:
    """Learns from completions, each desirable or not: a pair is one of each.

    Before the first micro-batch of a step the reference point is measured on the step's mismatched completions, those of all processes:
    each of its prompts with the completion of the one before it (the first with the last one's), as TRL has it.
    """

    needs_reference = True
    metrics: Sequence[str] = ("preference_loss", *METRICS)

    def __init__(
        self, config: AlignConfig, pairs: Sequence[PreparedPair], held_out: Sequence[PreparedPair],
        numbered: Callable[[Sequence[Encoded]], Numbered], dims: ParallelDims,
    ):  # fmt: skip
        self.config, self.numbered, self.dims = config, numbered, dims
        self.learned, self.held_out = _Completions(pairs, numbered), _Completions(held_out, numbered)
        self.order = Order(len(self.learned.ids), config.batch, config.micro_batch, config.seed)
        self.options = LossOptions(
            config.beta, desirable_weight=config.desirable_weight, undesirable_weight=config.undesirable_weight
        )  # fmt: skip

    def measure_reference(self, references: References, steps: int) -> None:
        """Takes the reference's log-probabilities of the completions on the micro-batches of the first epoch, and of the mismatched
        completions of each step on theirs, so that at first every log-ratio is 0."""
        share = self.dims.share
        self.mismatched = self.numbered(_Mismatched(self.learned.sequences.sequences, self.order, steps))
        places = (place for step in range(steps) for place in self._places(step, share))
        self.reference = references.of("train", self.learned.sequences, self.order.first_epoch(share))
        self.mismatched_reference = references.of("mismatched", self.mismatched, ((numbers, len(numbers)) for numbers in places))
        held_out = self.held_out.sequences.sequences
        self.held_out_mismatched = self.numbered([mismatch(held_out[n], held_out[n - 1]) for n in range(len(held_out))])
        batches = [(numbers, len(numbers)) for numbers in in_turn(len(held_out))][share.index :: share.of]
        self.held_out_references = [
            references.of(f"held-out {what}", sequences, batches)
            for what, sequences in (("completions", self.held_out.sequences), ("mismatched", self.held_out_mismatched))
        ]

    def _places(self, step: int, share: DataShare) -> list[range]:
        """The numbers of the mismatched completions in each micro-batch of a share."""
        return [range(step * self.config.batch + b, step * self.config.batch + e) for b, e in self.order.bounds(share)]

    # ---- the objective ------------------------------------------------------------------------------

    def batches(self, step: int, share: DataShare) -> Iterator[CompletionBatch]:
        n_desirable = int(self.learned.desirable[self.order.of_step(step)].sum())
        mismatched = [self.mismatched.collate(places) for places in self._places(step, share)]
        for piece, numbers in enumerate(self.order.micro_batches(step, share)):
            yield CompletionBatch(self.learned.sequences.collate(numbers), n_desirable, () if piece else mismatched)

    def loss(self, model: Llama, batch: CompletionBatch) -> StepLoss:
        """The sum of the completions' losses; the log shows means a completion, and of the preferences alone as `preference_loss`."""
        if batch.mismatched:
            self.kl = self._reference_point(model, batch.mismatched)
        logps = sum_logps(model, batch.sequences)
        completions = self.learned.logps(logps, self.reference, self.kl)
        losses = kto(completions, self.options)
        counts = batch.n_desirable, self.config.batch - batch.n_desirable
        measured = {"preference_loss": losses.detach(), **completion_metrics(completions, self.options, *counts)}
        if self.config.nll_weight:
            losses = losses - self.config.nll_weight * completions.desirable * logps.means
        tokens = (batch.sequences.labels[..., 1] != NOBODY).sum()
        return StepLoss(losses.sum(), len(losses), {name: values.sum() for name, values in measured.items()}, tokens)

    @torch.no_grad()
    def _reference_point(self, model: Llama, batches: Sequence[LabelledRows]) -> Tensor:
        ratios = []
        for batch in batches:
            logps = sum_logps(model, batch)
            ratios.append(logps.sums - self.mismatched_reference.of(self.mismatched.numbers(logps)))
        every = torch.cat(ratios)
        found, count = total(torch.stack([every.double().sum(), torch.full_like(every[0], len(every)).double()]), self.dims)
        return reference_point(found, count).to(every.dtype)

    def describe(self, step: int, share: DataShare, number: int) -> list[str]:
        """The ids of the completions in a micro-batch, for the log of skipped ones."""
        return [self.learned.ids[completion] for completion in self.order.micro_batches(step, share)[number]]

    # ---- measuring ----------------------------------------------------------------------------------

    @torch.no_grad()
    def measure_held_out(self, parallel_model: ParallelModel) -> dict[str, float]:
        """Means over the held-out completions, the same on every process; nothing without any.

        `preference_accuracy` is the share of the pairs of any desirable and any undesirable one of which the desirable has
        the higher log-probability a token.
        """
        count = len(self.held_out.ids)
        if not count:
            return {}
        reference, mismatched_reference = self.held_out_references
        mismatched = _all_logps(parallel_model, self.held_out_mismatched)
        kl = reference_point((mismatched.sums - mismatched_reference.sums.to(mismatched.sums.device)).sum(), count)
        logps = _all_logps(parallel_model, self.held_out.sequences)
        completions = self.held_out.logps(logps, reference, kl)
        n_desirable = int(completions.desirable.sum())
        values = completion_metrics(completions, self.options, n_desirable, count - n_desirable)
        values["loss"] = kto(completions, self.options)
        means = {name: float(value.double().mean()) for name, value in values.items()}
        good, bad = logps.means[completions.desirable], logps.means[~completions.desirable]
        below = torch.searchsorted(bad.sort().values, good)  # how many of the undesirable are lower than each
        return {**means, "preference_accuracy": float(below.double().mean()) / max(len(bad), 1) if len(good) else 0.0}


class _Completions:
    """Ids, tokens and kinds of the completions that pairs have."""

    def __init__(self, pairs: Sequence[PreparedPair], numbered: Callable[[Sequence[Encoded]], Numbered]):
        sides = [(p.pair.id, side, good) for p in pairs for side, good in ((p.chosen, True), (p.rejected, False)) if len(side.ids)]
        self.ids = [name for name, _, _ in sides]
        self.sequences = numbered([tokens for _, tokens, _ in sides])
        self.desirable = torch.tensor([good for _, _, good in sides], dtype=torch.bool)

    def logps(self, logps: SequenceLogps, reference: Reference, kl: Tensor) -> CompletionLogps:
        numbers = self.sequences.numbers(logps)
        desirable = self.desirable[numbers.cpu()].to(numbers.device)
        return CompletionLogps(logps.sums, reference.of(numbers), logps.counts.float(), desirable, kl)


class _Mismatched(Sequence[Encoded]):
    """The mismatched completions of all steps, one step's after the other's; each is made when it is asked for."""

    def __init__(self, tokens: Sequence[Encoded], order: Order, steps: int):
        self.tokens, self.order, self.steps = tokens, order, steps
        self.of_step = lru_cache(1)(order.of_step)

    def __len__(self) -> int:
        return self.steps * self.order.batch

    def __getitem__(self, number: int) -> Encoded:  # type: ignore[override]
        step, place = divmod(number, self.order.batch)
        if not 0 <= step < self.steps:
            raise IndexError(number)
        numbers = self.of_step(step)
        return mismatch(self.tokens[numbers[place]], self.tokens[numbers[place - 1]])


def mismatch(example: Encoded, other: Encoded) -> Encoded:
    """The prompt of an example with the completion of another. The prompt loses its begin where that is longer than either."""
    begin, other_begin = (int(np.argmax(tokens.mask)) for tokens in (example, other))
    ids = np.concatenate([example.ids[:begin], other.ids[other_begin:]])
    mask = np.concatenate([example.mask[:begin], other.mask[other_begin:]])
    longest = max(len(example.ids), len(other.ids))
    return Encoded(ids[-longest:], mask[-longest:])


def _all_logps(parallel_model: ParallelModel, sequences: Numbered) -> SequenceLogps:
    found = []
    for numbers in in_turn(len(sequences)):
        batch = sequences.collate(numbers)
        logps = by_sequence(counted_nats(parallel_model, batch), batch.labels)
        found.append((sequences.numbers(logps), logps.sums, logps.counts))
    return SequenceLogps(*(torch.cat(parts) for parts in zip(*found, strict=True)))


# ---- the training ------------------------------------------------------------------------------------
#
# On each process: the model, what it learns from, the loop around the objective, and what is left behind.


def train(
    dims: ParallelDims, progress: Progress | None, config: dict[str, Any], run: str, folder: str, name: str, work: str, weights: str
) -> dict[str, Any]:  # fmt: skip
    """What every process does; the first one leaves the folder `work/model` and returns what `metrics.json` holds. `weights` identifies
    the reference model, whose log-probabilities are kept in the folder above `work`."""
    pairs = read_table(Storage(run).child("align"), PAIRS_FILE)
    aligned = AlignmentJob(AlignConfig.model_validate(config), StartModel(name, folder), pairs, dims)
    place = CheckpointDir(work, f"{run}/align/{LOG}")
    with deterministic(aligned.loop.threads):
        aligned.measure_reference(work.rpartition("/")[0], weights)
    return aligned.train(place, progress)


class AlignmentJob:
    """A model, its pairs or completions as tokens in an objective, and the configuration."""

    def __init__(self, config: AlignConfig, start: StartModel, pairs: pa.Table, dims: ParallelDims):
        self.config, self.start, self.dims = config, start, dims
        self.encoder = load_chat(start.storage)
        self.model = start_from(start.folder, dims, config, "align")
        context = self.model.arch.context
        prepared = [prepare_pair(pair, self.encoder, context) for pair in pairs_from_table(pairs)]
        learned, held_out = ([p for p in prepared if p.pair.held_out == aside] for aside in (False, True))
        self.form = RowForm(dims.config.tensor, dims.config.pipeline > 1)
        numbered = partial(Numbered, context=context, device=dims.device, form=self.form)
        objective = CompletionObjective if config.loss == "kto" else PairObjective
        self.objective = objective(config, learned, held_out, numbered, dims)
        self.counts = {"pairs": len(learned), "held_out_pairs": len(held_out)}
        steps = min(config.loop.steps, steps_of(config.epochs, config.batch, self.objective.order.examples))
        self.loop = config.loop.model_copy(update={"steps": steps})
        self.measured: dict[str, float] = {}  # on held-out pairs, after the latest step that was looked at

    def measure_reference(self, cache: str, weights: str) -> None:
        """The reference's log-probabilities, from the folder `cache` (a path or URL) if it has them. Unless the recipe names a reference
        model, the model before training is the reference."""
        if not self.objective.needs_reference:
            return
        config, context = self.config, self.model.arch.context
        device, precision = self.dims.device, self.loop.precision
        computed = [device.type, chosen(device, precision), self.dims.share.of, *astuple(self.form)]
        key = [weights, self.encoder.fingerprint, context, config.batch, config.micro_batch, config.seed, *computed]
        model = self.model if config.reference is None else other_model(config.reference, self.encoder, context, device)
        references = References(cache, key, LocalModel(model, precision), self.dims)
        self.objective.measure_reference(references, self.loop.steps)

    def train(self, place: CheckpointDir, progress: Progress | None = None) -> dict[str, Any]:
        """Trains, and leaves the model; returns what `metrics.json` holds."""
        if self.dims.is_main:
            place.begin(chat_files(self.encoder, self.model.arch.context))
        with deterministic(self.loop.threads):
            before = self.objective.measure_held_out(LocalModel(self.model, self.loop.precision))
        result = fit(
            self.model, self.objective, self.loop, dims=self.dims, state=place.states, log=place.log_file,
            describe=self.objective.describe, evaluate=self.evaluate if before else None, evaluate_every=self.config.evaluate_every,
            progress=progress, title="align",
        )  # fmt: skip
        if not self.measured:  # killed after the last step
            with deterministic(self.loop.threads):
                self.measured = self.objective.measure_held_out(result.parallel_model)
        leave_model(self.model, self.start, result, self.dims, self.config, place)
        return {
            **self.counts,
            "loss": self.config.loss,
            "beta": self.config.beta,
            "steps": result.steps,
            "skipped_steps": result.skipped,
            "train_loss": result.loss,
            "held_out_before": before or None,
            "held_out_after": self.measured or None,
        }

    def evaluate(self, parallel_model: ParallelModel, done: int) -> dict[str, float]:
        """What goes into the log."""
        self.measured = self.objective.measure_held_out(parallel_model)
        return {f"held_out_{name}": value for name, value in self.measured.items()}
