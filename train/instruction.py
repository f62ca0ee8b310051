"""Instruction tuning on packed examples: the objective that the loop is given, and what is measured around it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import torch

from corpusmill.pipeline.progress import Progress
from corpusmill.pipeline.special_tokens import PAD_ID
from corpusmill.pipeline.storage import Storage
from corpusmill.train.bits import Batch
from corpusmill.train.checkpoint import load_model
from corpusmill.train.device import deterministic, pick_device
from corpusmill.train.logprobs import target_nats
from corpusmill.train.loop import fit
from corpusmill.train.model import Llama
from corpusmill.train.objective import Share, StepLoss
from corpusmill.train.order import examples_of_step, steps_of
from corpusmill.train.packing import Packed, pack
from corpusmill.train.sft_data import Example, prepare
from corpusmill.train.template import load_chat

if TYPE_CHECKING:
    from corpusmill.train.sft import SftConfig

EVALUATION_BATCH = 16  # rows; fixed, so that what is measured does not depend on the training batch


class Tuning:
    """A model, its examples as packed rows, and the configuration: the objective of the loop."""

    metrics: Sequence[str] = ()

    def __init__(self, config: "SftConfig", folder: Storage, examples: pa.Table):
        self.config = config
        self.encoder = load_chat(folder)
        self.model = load_model(folder.root, pick_device(config.device))
        self.rows, self.examples = self._pack([e for e in _examples(examples) if not e.held_out])
        self.held_out, self.held_out_examples = self._pack([e for e in _examples(examples) if e.held_out])
        steps = min(config.loop.steps, steps_of(config.epochs, config.batch, self.rows.n_rows))
        self.loop = config.loop.model_copy(update={"steps": steps})

    def _pack(self, examples: list[Example]) -> tuple[Packed, list[Example]]:
        context = self.model.arch.context
        prepared = [prepare(example, self.encoder, context) for example in examples]
        kept = [(p.example, p.tokens) for p in prepared if p.tokens is not None]
        return pack([tokens for _, tokens in kept], context), [example for example, _ in kept]

    def train(self, work: Path, log: Path, progress: Progress | None = None) -> dict[str, Any]:
        """Trains `model` in place; returns what `metrics.json` holds."""
        with deterministic(self.loop.threads):
            before = self.held_out_loss(self.model)
        result = fit(
            self.model,
            self,
            self.loop,
            state=work / "state",
            log=log,
            describe=self.describe,
            evaluate=lambda computation, done: {"held_out_loss": self.held_out_loss(self.model)},
            evaluate_every=self.config.evaluate_every if self.held_out_examples else 0,
            progress=progress,
            title="sft",
        )
        with deterministic(self.loop.threads):
            after = self.held_out_loss(self.model)
        measured = bool(self.held_out_examples)
        return {
            "examples": len(self.examples),
            "held_out_examples": len(self.held_out_examples),
            "rows": self.rows.n_rows,
            "row_fill": float((self.rows.ids != PAD_ID).mean()),
            "steps": result.steps,
            "skipped_steps": result.skipped,
            "target_tokens": result.count,
            "train_loss": result.loss,
            "held_out_loss_before": before if measured else None,
            "held_out_loss_after": after if measured else None,
        }

    def batches(self, step: int, share: Share) -> Iterator[Batch]:
        begin, end = share.bounds(self.config.batch)
        yield _tensors(self.rows, self._rows_of(step)[begin:end], self.model.device)

    def loss(self, model: Llama, batch: Batch) -> StepLoss:
        """The nats of the batch's targets: assistants' contents and end tokens."""
        nats = target_nats(model, *batch)
        return StepLoss(nats.sum(), nats.numel(), tokens=batch[0].numel())

    def describe(self, step: int, share: Share, piece: int) -> list[str]:
        """The ids of the examples in a share of a step, for the log of skipped ones."""
        begin, end = share.bounds(self.config.batch)
        return [self.examples[number].id for row in self._rows_of(step)[begin:end] for number in self.rows.members[row]]

    @torch.no_grad()
    def held_out_loss(self, model: Llama) -> float:
        """Nats a target over the held-out examples; NaN without any."""
        total, count = 0.0, 0
        for begin in range(0, self.held_out.n_rows, EVALUATION_BATCH):
            rows = list(range(begin, min(begin + EVALUATION_BATCH, self.held_out.n_rows)))
            nats = target_nats(model, *_tensors(self.held_out, rows, model.device))
            total, count = total + float(nats.double().sum()), count + nats.numel()
        return total / count if count else float("nan")

    def _rows_of(self, step: int) -> list[int]:
        rows: list[int] = examples_of_step(step, self.config.batch, self.rows.n_rows, self.config.seed).tolist()
        return rows


def _examples(table: pa.Table) -> list[Example]:
    return [Example(**row) for row in table.to_pylist()]


def _tensors(packed: Packed, rows: list[int], device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    ids, targets, segments = (torch.from_numpy(array[rows]).to(device) for array in (packed.ids, packed.targets, packed.segments))
    return ids, targets, segments
