"""Preference alignment on pairs of completions: the objective that the loop is given, and what is measured around it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import torch
from torch import Tensor

from corpusmill.pipeline.progress import Progress
from corpusmill.pipeline.storage import Storage
from corpusmill.train.checkpoint import load_model
from corpusmill.train.device import deterministic, pick_device
from corpusmill.train.logprobs import collate, sum_logps
from corpusmill.train.loop import fit
from corpusmill.train.losses import LOSSES, METRICS, LossOptions, PairLogps, pair_metrics
from corpusmill.train.model import Llama
from corpusmill.train.objective import Share, StepLoss
from corpusmill.train.order import examples_of_step, steps_of
from corpusmill.train.precision import computing
from corpusmill.train.preference_data import PreparedPair, pairs_from_table, prepare_pair
from corpusmill.train.reference import Reference, reference_key
from corpusmill.train.template import load_chat

if TYPE_CHECKING:
    from corpusmill.train.align import AlignConfig

EVALUATION_BATCH = 16  # pairs; fixed, so that what is measured does not depend on the training batch


class Alignment:
    """A model, its pairs as tokens, and the configuration: the objective of the loop. The model as it is loaded is the reference."""

    metrics: Sequence[str] = ("preference_loss", *METRICS)

    def __init__(self, config: "AlignConfig", folder: Storage, pairs: pa.Table):
        self.config = config
        self.encoder = load_chat(folder)
        self.model = load_model(folder.root, pick_device(config.device))
        prepared = [prepare_pair(pair, self.encoder, self.model.arch.context) for pair in pairs_from_table(pairs)]
        self.pairs = [p for p in prepared if not p.pair.held_out]
        self.held_out = [p for p in prepared if p.pair.held_out]
        self.preference_loss = LOSSES[config.loss]
        self.options = LossOptions(config.beta, config.label_smoothing)
        steps = min(config.loop.steps, steps_of(config.epochs, config.batch, len(self.pairs)))
        self.loop = config.loop.model_copy(update={"steps": steps})

    def train(self, work: Path, log: Path, cache: Path, weights: str, progress: Progress | None = None) -> dict[str, Any]:
        """Trains `model` in place; returns what `metrics.json` holds. `weights` identifies the reference model,
        `cache` is the folder for its log-probabilities."""
        with deterministic(self.loop.threads):
            self.measure_reference(cache, weights)
            before = self.measure_held_out(self.model)
        result = fit(
            self.model,
            self,
            self.loop,
            state=work / "state",
            log=log,
            describe=self.describe,
            evaluate=lambda computation, done: {f"held_out_{name}": value for name, value in self.measure_held_out(self.model).items()},
            evaluate_every=self.config.evaluate_every if self.held_out else 0,
            progress=progress,
            title="align",
        )
        with deterministic(self.loop.threads):
            after = self.measure_held_out(self.model)
        return {
            "pairs": len(self.pairs),
            "held_out_pairs": len(self.held_out),
            "loss": self.config.loss,
            "beta": self.config.beta,
            "steps": result.steps,
            "skipped_steps": result.skipped,
            "train_loss": result.loss,
            "held_out_before": before or None,
            "held_out_after": after or None,
        }

    def batches(self, step: int, share: Share) -> Iterator[list[int]]:
        """The numbers of the pairs."""
        begin, end = share.bounds(self.config.batch)
        yield self._pairs_of(step)[begin:end]

    def loss(self, model: Llama, batch: list[int]) -> StepLoss:
        """The sum of the pairs' losses; the log shows means a pair, and of the preferences alone as `preference_loss`."""
        logps, tokens = self._logps(model, [self.pairs[number] for number in batch], self.reference, batch)
        losses = self.preference_loss(logps, self.options)
        measured = {"preference_loss": losses.detach(), **pair_metrics(logps, self.options)}
        metrics = {name: float(values.sum()) for name, values in measured.items()}
        if self.config.nll_weight:
            losses = losses - self.config.nll_weight * logps.chosen / logps.chosen_tokens
        return StepLoss(losses.sum(), len(batch), metrics, tokens)

    def describe(self, step: int, share: Share, piece: int) -> list[str]:
        """The ids of the pairs in a share of a step, for the log of skipped ones."""
        begin, end = share.bounds(self.config.batch)
        return [self.pairs[number].pair.id for number in self._pairs_of(step)[begin:end]]

    def measure_reference(self, cache: Path, weights: str) -> None:
        """The reference's log-probabilities of every pair, from the cache where they are there.

        They are taken on the batches of the first epoch, so that the very first loss is that of no preference to the bit.
        """
        key = [weights, self.encoder.fingerprint, self.model.arch.context, self.config.batch, self.config.seed, self.loop.precision]
        steps = range(steps_of(1, self.config.batch, len(self.pairs)))
        self.reference = Reference.cached(
            cache, reference_key("train", key, self.pairs), len(self.pairs), self._measured(self.pairs, map(self._pairs_of, steps))
        )
        self.held_out_reference = Reference.cached(
            cache,
            reference_key("held-out", key, self.held_out),
            len(self.held_out),
            self._measured(self.held_out, _batches(len(self.held_out))),
        )

    @torch.no_grad()
    def measure_held_out(self, model: Llama) -> dict[str, float]:
        """Means over the held-out pairs; nothing without any.

        `accuracy` compares with the reference (0 before training); `preference_accuracy` is the share of pairs whose
        chosen completion has the higher log-probability a token.
        """
        sums: dict[str, float] = {}
        for numbers in _batches(len(self.held_out)):
            with computing(model, model.device, self.loop.precision):
                logps, _ = self._logps(model, [self.held_out[number] for number in numbers], self.held_out_reference, numbers)
            values = {"loss": self.preference_loss(logps, self.options), **pair_metrics(logps, self.options)}
            values["preference_accuracy"] = logps.chosen / logps.chosen_tokens > logps.rejected / logps.rejected_tokens
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + float(value.double().sum())
        return {name: total / len(self.held_out) for name, total in sums.items()}

    @torch.no_grad()
    def _measured(self, pairs: Sequence[PreparedPair], batches: Iterator[list[int]]) -> Iterator[tuple[list[int], Tensor, Tensor]]:
        """The model's log-probabilities now, batch by batch: numbers of pairs, chosen, rejected."""
        for numbers in batches:
            with computing(self.model, self.model.device, self.loop.precision):
                both = sum_logps(self.model, self._collate([pairs[number] for number in numbers]))
            chosen, rejected = both.chunk(2)
            yield numbers, chosen, rejected

    def _logps(self, model: Llama, pairs: Sequence[PreparedPair], reference: "Reference", numbers: list[int]) -> tuple[PairLogps, int]:
        batch = self._collate(pairs)
        chosen, rejected = sum_logps(model, batch).chunk(2)
        counts = batch.counts.float().chunk(2)
        return PairLogps(chosen, rejected, *reference.of(numbers, model.device), *counts), batch.n_tokens

    def _collate(self, pairs: Sequence[PreparedPair]) -> Any:
        return collate([*(pair.chosen for pair in pairs), *(pair.rejected for pair in pairs)], self.model.arch.context, self.model.device)

    def _pairs_of(self, step: int) -> list[int]:
        numbers: list[int] = examples_of_step(step, self.config.batch, len(self.pairs), self.config.seed).tolist()
        return numbers


def _batches(count: int) -> Iterator[list[int]]:
    for begin in range(0, count, EVALUATION_BATCH):
        yield list(range(begin, min(begin + EVALUATION_BATCH, count)))
