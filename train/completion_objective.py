"""What alignment on single completions minimises and measures: KTO."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from corpusmill.train.align import AlignConfig
from corpusmill.train.logprobs import NOBODY, LabelledRows, SequenceLogps, by_sequence, counted_nats, sum_logps
from corpusmill.train.losses import LossOptions
from corpusmill.train.losses.kto import METRICS, CompletionLogps, completion_metrics, kto, reference_point
from corpusmill.train.model import Llama
from corpusmill.train.numbered import Numbered
from corpusmill.train.objective import Share, StepLoss
from corpusmill.train.order import Order, in_turn
from corpusmill.train.parallel.computation import ParallelModel
from corpusmill.train.parallel.layout import ParallelDims
from corpusmill.train.parallel.sums import total
from corpusmill.train.preference_data import PreparedPair
from corpusmill.train.reference import Reference, References
from corpusmill.train.template import Encoded


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

    def _places(self, step: int, share: Share) -> list[range]:
        """The numbers of the mismatched completions in each micro-batch of a share."""
        return [range(step * self.config.batch + b, step * self.config.batch + e) for b, e in self.order.bounds(share)]

    # ---- the objective ------------------------------------------------------------------------------

    def batches(self, step: int, share: Share) -> Iterator[CompletionBatch]:
        n_desirable = int(self.learned.desirable[self.order.of_step(step)].sum())
        mismatched = [self.mismatched.collate(places) for places in self._places(step, share)]
        for piece, numbers in enumerate(self.order.pieces(step, share)):
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

    def describe(self, step: int, share: Share, piece: int) -> list[str]:
        """The ids of the completions in a micro-batch, for the log of skipped ones."""
        return [self.learned.ids[number] for number in self.order.pieces(step, share)[piece]]

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
