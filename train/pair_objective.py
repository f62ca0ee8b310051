"""What alignment on pairs minimises and measures: DPO and its relatives, ORPO, SimPO."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from corpusmill.train.align import REFERENCE_FREE, AlignConfig
from corpusmill.train.bits import Batch
from corpusmill.train.logprobs import NOBODY, by_sequence, counted_nats
from corpusmill.train.losses import LOSSES, METRICS, LossOptions, PairLogps, pair_metrics
from corpusmill.train.model import Llama
from corpusmill.train.numbered import Numbered
from corpusmill.train.objective import Share, StepLoss
from corpusmill.train.order import Order, in_turn
from corpusmill.train.packing import IGNORED
from corpusmill.train.parallel.computation import ParallelModel
from corpusmill.train.parallel.layout import ParallelDims
from corpusmill.train.preference_data import PreparedPair
from corpusmill.train.reference import Reference, References
from corpusmill.train.template import Encoded
from corpusmill.train.token_loss import token_nats


class PairObjective:
    """A batch is `(ids, labels, segments)`, see `Sequences`; pair n has the sequences 2n and 2n + 1, its chosen and its rejected side."""

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

    def batches(self, step: int, share: Share) -> Iterator[Batch]:
        for numbers in self.order.pieces(step, share):
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

    def describe(self, step: int, share: Share, piece: int) -> list[str]:
        """The ids of the pairs in a micro-batch, for the log of skipped ones."""
        return [self.pairs[number].pair.id for number in self.order.pieces(step, share)[piece]]

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
