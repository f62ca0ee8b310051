"""Preference alignment on pairs of completions: the objective that the loop is given, and what is measured around it."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from corpusmill.pipeline.progress import Progress
from corpusmill.pipeline.shards import read_table
from corpusmill.pipeline.storage import Storage
from corpusmill.train.align import PAIRS_FILE, AlignConfig
from corpusmill.train.bits import Batch
from corpusmill.train.device import deterministic
from corpusmill.train.logprobs import NOBODY, Form, Sequences, by_sequence, collate
from corpusmill.train.loop import fit
from corpusmill.train.losses import LOSSES, METRICS, LossOptions, PairLogps, pair_metrics
from corpusmill.train.model import Llama
from corpusmill.train.objective import Share, StepLoss
from corpusmill.train.order import examples_of_step, steps_of
from corpusmill.train.packing import IGNORED
from corpusmill.train.parallel.computation import Computation, Local
from corpusmill.train.parallel.layout import Layout
from corpusmill.train.parallel.sums import total
from corpusmill.train.preference_data import PreparedPair, pairs_from_table, prepare_pair
from corpusmill.train.reference import Reference, reference_key
from corpusmill.train.template import load_chat
from corpusmill.train.token_loss import token_nats
from corpusmill.train.tuned import keep_beside, leave_model, start_from
from corpusmill.train.tuning import LOG

EVALUATION_BATCH = 16  # pairs; fixed, so that what is measured does not depend on the training batch


def train(
    layout: Layout, progress: Progress | None, config: dict[str, Any], run: str, parent: str, work: str, weights: str
) -> dict[str, Any]:  # fmt: skip
    """What every process does; the first one leaves the folder `work/model` and returns what `metrics.json` holds. `weights` identifies
    the reference model, whose log-probabilities are kept beside `work`."""
    pairs = read_table(Storage(run).child("align"), PAIRS_FILE)
    aligned = Alignment(AlignConfig.model_validate(config), f"{run}/{parent}/model", pairs, layout)
    with deterministic(aligned.loop.threads):
        aligned.measure_reference(Path(work).parent, weights)
    return aligned.train(Path(work), Path(run) / "align" / LOG, progress)


class Alignment:
    """A model, its pairs as tokens, and the configuration: the objective of the loop. The model as it is loaded is the reference.

    A batch is `(ids, labels, segments)`, see `Sequences`. The sequences of a micro-batch have the numbers `place * 2n + 2 * pair + side`
    of n pairs: sides of a pair follow each other, and a pair that a step holds twice, at the border of two epochs, counts twice.
    """

    metrics: Sequence[str] = ("preference_loss", *METRICS)

    def __init__(self, config: AlignConfig, folder: str, pairs: pa.Table, layout: Layout):
        self.config, self.folder, self.layout = config, folder, layout
        self.encoder = load_chat(Storage(folder))
        self.model = start_from(folder, layout, config, "align")
        prepared = [prepare_pair(pair, self.encoder, self.model.arch.context) for pair in pairs_from_table(pairs)]
        self.pairs = [p for p in prepared if not p.pair.held_out]
        self.held_out = [p for p in prepared if p.pair.held_out]
        self.preference_loss = LOSSES[config.loss]
        self.options = LossOptions(config.beta, config.label_smoothing)
        self.form = Form(layout.config.tensor, layout.config.pipeline > 1)
        steps = min(config.loop.steps, steps_of(config.epochs, config.batch, len(self.pairs)))
        self.loop = config.loop.model_copy(update={"steps": steps})
        self.measured: dict[str, float] = {}  # on held-out pairs, after the latest step that was looked at

    def train(self, work: Path, log: Path, progress: Progress | None = None) -> dict[str, Any]:
        """Trains, and leaves the model; returns what `metrics.json` holds."""
        if self.layout.is_main:
            keep_beside(self.model, self.encoder, self.folder, self.config.lora, work)
        with deterministic(self.loop.threads):
            before = self.measure_held_out(Local(self.model, self.loop.precision))
        result = fit(
            self.model, self, self.loop, layout=self.layout, state=work / "state", log=log, describe=self.describe,
            evaluate=self.evaluate if self.held_out else None, evaluate_every=self.config.evaluate_every,
            progress=progress, title="align",
        )  # fmt: skip
        if not self.measured:  # killed after the last step
            with deterministic(self.loop.threads):
                self.measured = self.measure_held_out(result.computation)
        leave_model(self.model, self.folder, result, self.layout, self.config, work)
        return {
            "pairs": len(self.pairs),
            "held_out_pairs": len(self.held_out),
            "loss": self.config.loss,
            "beta": self.config.beta,
            "steps": result.steps,
            "skipped_steps": result.skipped,
            "train_loss": result.loss,
            "held_out_before": before or None,
            "held_out_after": self.measured or None,
        }

    def evaluate(self, computation: Computation, done: int) -> dict[str, float]:
        """What goes into the log."""
        self.measured = self.measure_held_out(computation)
        return {f"held_out_{name}": value for name, value in self.measured.items()}

    # ---- the objective ------------------------------------------------------------------------------

    def batches(self, step: int, share: Share) -> Iterator[Batch]:
        numbers = self._pairs_of(step)
        for begin, end in share.pieces(self.config.batch, self.config.micro_batch):
            batch = self._collate(self.pairs, numbers[begin:end])
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
        logps = self._pair_logps(nats, labels, self.reference, len(self.pairs))
        losses = self.preference_loss(logps, self.options)
        measured = {"preference_loss": losses.detach(), **pair_metrics(logps, self.options)}
        if self.config.nll_weight:
            losses = losses - self.config.nll_weight * logps.chosen / logps.chosen_tokens
        tokens = (labels[..., 1] != NOBODY).sum()
        return StepLoss(losses.sum(), len(losses), {name: values.sum() for name, values in measured.items()}, tokens)

    def describe(self, step: int, share: Share, piece: int) -> list[str]:
        """The ids of the pairs in a micro-batch, for the log of skipped ones."""
        begin, end = share.pieces(self.config.batch, self.config.micro_batch)[piece]
        return [self.pairs[number].pair.id for number in self._pairs_of(step)[begin:end]]

    # ---- measuring ----------------------------------------------------------------------------------

    def measure_reference(self, cache: Path, weights: str) -> None:
        """The reference's log-probabilities of every pair, from the cache where they are there.

        They are taken on the micro-batches of the first epoch, so that the very first loss is that of no preference to the bit.
        """
        config, context = self.config, self.model.arch.context
        key = [weights, self.encoder.fingerprint, context, config.batch, config.micro_batch, config.seed, self.loop.precision]
        self.reference = self._reference(cache, reference_key("train", key, self.pairs), self.pairs, self._first_epoch())
        batches = [(numbers, len(numbers)) for numbers in _batches(len(self.held_out))][self.layout.share.index :: self.layout.share.of]
        self.held_out_reference = self._reference(cache, reference_key("held-out", key, self.held_out), self.held_out, batches)

    def _first_epoch(self) -> Iterator[tuple[list[int], int]]:
        """The pairs of this process's micro-batches of the first epoch, and how many of them: the last ones may be the next epoch's."""
        for step in range(steps_of(1, self.config.batch, len(self.pairs))):
            numbers, left = self._pairs_of(step), len(self.pairs) - step * self.config.batch
            for begin, end in self.layout.share.pieces(self.config.batch, self.config.micro_batch):
                yield numbers[begin:end], min(max(left - begin, 0), end - begin)

    @torch.no_grad()
    def _reference(self, cache: Path, key: str, pairs: Sequence[PreparedPair], batches: Iterable[tuple[list[int], int]]) -> Reference:
        found = Reference.load(cache, key)
        self.layout.barrier()  # all have looked before one writes
        if found is None:
            found = self._measured(pairs, batches)
            found.require_finite()
            if self.layout.is_main:
                found.save(cache, key)
        return found

    def _measured(self, pairs: Sequence[PreparedPair], batches: Iterable[tuple[list[int], int]]) -> Reference:
        """The model's log-probabilities now, of the first so many pairs of each batch."""
        sums, model = torch.zeros(len(pairs), 2, dtype=torch.float64), Local(self.model, self.loop.precision)
        for numbers, count in batches:
            batch = self._collate(pairs, numbers)
            logps = by_sequence(_counted_nats(model, batch), batch.labels).sums.double().cpu().view(-1, 2)
            sums[numbers[:count]] = logps[:count]
        if self.layout.index("pipeline"):  # its ranks have measured the same pairs
            sums.zero_()
        chosen, rejected = total(sums.flatten(), self.layout).view(-1, 2).float().T
        return Reference(chosen.contiguous(), rejected.contiguous())

    @torch.no_grad()
    def measure_held_out(self, computation: Computation) -> dict[str, float]:
        """Means over the held-out pairs, the same on every process; nothing without any.

        `accuracy` compares with the reference (0 before training); `preference_accuracy` is the share of pairs whose
        chosen completion has the higher log-probability a token.
        """
        sums: dict[str, float] = {}
        for numbers in _batches(len(self.held_out)):
            batch = self._collate(self.held_out, numbers)
            logps = self._pair_logps(_counted_nats(computation, batch), batch.labels, self.held_out_reference, len(self.held_out))
            values = {"loss": self.preference_loss(logps, self.options), **pair_metrics(logps, self.options)}
            values["preference_accuracy"] = logps.chosen / logps.chosen_tokens > logps.rejected / logps.rejected_tokens
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + float(value.double().sum())
        return {name: total / len(self.held_out) for name, total in sums.items()}

    # ---- pairs --------------------------------------------------------------------------------------

    def _pair_logps(self, nats: Tensor, labels: Tensor, reference: Reference, count: int) -> PairLogps:
        logps = by_sequence(nats, labels)
        (chosen, rejected), (chosen_tokens, rejected_tokens) = logps.sums.view(-1, 2).T, logps.counts.float().view(-1, 2).T
        return PairLogps(chosen, rejected, *reference.of(logps.numbers[::2] % (2 * count) // 2), chosen_tokens, rejected_tokens)

    def _collate(self, pairs: Sequence[PreparedPair], numbers: list[int]) -> Sequences:
        sides = [side for number in numbers for side in (pairs[number].chosen, pairs[number].rejected)]
        named = [place * 2 * len(pairs) + 2 * number + side for place, number in enumerate(numbers) for side in (0, 1)]
        return collate(sides, self.model.arch.context, self.layout.device, named, self.form)

    def _pairs_of(self, step: int) -> list[int]:
        numbers: list[int] = examples_of_step(step, self.config.batch, len(self.pairs), self.config.seed).tolist()
        return numbers


def _counted_nats(computation: Computation, batch: Sequences) -> Tensor:
    return computation.nats(batch.ids, batch.targets, batch.segments)[batch.targets != IGNORED]


def _batches(count: int) -> Iterator[list[int]]:
    for begin in range(0, count, EVALUATION_BATCH):
        yield list(range(begin, min(begin + EVALUATION_BATCH, count)))
