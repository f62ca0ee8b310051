"""Instruction tuning on packed examples: the objective that the loop is given, and what is measured around it."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import torch

from corpusmill.pipeline.shards import read_table
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.progress import Progress
from corpusmill.train.bits import Batch
from corpusmill.train.device import deterministic
from corpusmill.train.loop import fit
from corpusmill.train.model import Llama
from corpusmill.train.objective import Share, StepLoss, TokenObjective
from corpusmill.train.order import Order, in_turn, steps_of
from corpusmill.train.packing import IGNORED, Packed, pack
from corpusmill.train.parallel.computation import LocalModel, ParallelModel
from corpusmill.train.parallel.layout import ParallelDims
from corpusmill.train.sft import EXAMPLES_FILE, SftConfig
from corpusmill.train.sft_data import Example, prepare
from corpusmill.train.template import load_chat
from corpusmill.train.tuned import keep_beside, leave_model, start_from
from corpusmill.train.tuning import StartModel
from corpusmill.train.workplace import LOG, CheckpointDir


def train(
    dims: ParallelDims, progress: Progress | None, config: dict[str, Any], run: str, folder: str, name: str, work: str
) -> dict[str, Any]:
    """What every process does; the first one leaves the folder `work/model` and returns what `metrics.json` holds."""
    examples = read_table(Storage(run).child("sft"), EXAMPLES_FILE)
    tuned = Tuning(SftConfig.model_validate(config), StartModel(name, folder), examples, dims)
    return tuned.train(CheckpointDir(work, f"{run}/sft/{LOG}"), progress)


class Tuning(TokenObjective):
    """A model, its examples as packed rows, and the configuration: the objective of the loop."""

    def __init__(self, config: SftConfig, start: StartModel, examples: pa.Table, dims: ParallelDims):
        self.config, self.start, self.dims = config, start, dims
        self.encoder = load_chat(start.storage)
        self.model = start_from(start.folder, dims, config, "sft")
        given = [Example(**row) for row in examples.to_pylist()]
        self.rows, self.examples = self._pack([example for example in given if not example.held_out])
        self.held_out, self.held_out_examples = self._pack([example for example in given if example.held_out])
        self.order = Order(self.rows.n_rows, config.batch, config.micro_batch, config.seed)
        steps = min(config.loop.steps, steps_of(config.epochs, config.batch, self.rows.n_rows))
        self.loop = config.loop.model_copy(update={"steps": steps})
        self.measured: dict[str, float] = {}  # on held-out examples, after the latest step that was looked at

    def _pack(self, examples: list[Example]) -> tuple[Packed, list[Example]]:
        context = self.model.arch.context
        prepared = [prepare(example, self.encoder, context) for example in examples]
        kept = [(p.example, p.tokens) for p in prepared if p.tokens is not None]
        return pack([tokens for _, tokens in kept], context), [example for example, _ in kept]

    def train(self, place: CheckpointDir, progress: Progress | None = None) -> dict[str, Any]:
        """Trains, and leaves the model; returns what `metrics.json` holds."""
        if self.dims.is_main:
            keep_beside(self.model, self.encoder, place)
        with deterministic(self.loop.threads):
            before = self.held_out_loss(LocalModel(self.model, self.loop.precision))
        result = fit(
            self.model, self, self.loop, dims=self.dims, state=place.states, log=place.log_file, describe=self.describe,
            evaluate=self.evaluate if self.held_out_examples else None, evaluate_every=self.config.evaluate_every,
            progress=progress, title="sft",
        )  # fmt: skip
        if not self.measured:  # killed after the last step
            with deterministic(self.loop.threads):
                self.evaluate(result.parallel_model, result.steps)
        leave_model(self.model, self.start, result, self.dims, self.config, place)
        measured = bool(self.held_out_examples)
        return {
            "examples": len(self.examples),
            "held_out_examples": len(self.held_out_examples),
            "rows": self.rows.n_rows,
            "row_fill": self.rows.fill,
            "steps": result.steps,
            "skipped_steps": result.skipped,
            "target_tokens": result.count,
            "train_loss": result.loss,
            "held_out_loss_before": before if measured else None,
            "held_out_loss_after": self.measured["held_out_loss"] if measured else None,
        }

    def evaluate(self, parallel_model: ParallelModel, done: int) -> dict[str, float]:
        """What goes into the log."""
        self.measured = {"held_out_loss": self.held_out_loss(parallel_model)}
        return self.measured

    def batches(self, step: int, share: Share) -> Iterator[Batch]:
        for rows in self.order.pieces(step, share):
            yield self._tensors(self.rows, rows)

    def loss(self, model: Llama, batch: Batch) -> StepLoss:
        """The nats of the batch's targets: assistants' contents and end tokens."""
        ids, targets, segments = batch
        nats = model(ids, segments, targets=targets)
        return StepLoss(nats.sum(), nats.numel(), tokens=ids.numel())

    def describe(self, step: int, share: Share, piece: int) -> list[str]:
        """The ids of the examples in a micro-batch, for the log of skipped ones."""
        return [self.examples[number].id for row in self.order.pieces(step, share)[piece] for number in self.rows.members[row]]

    @torch.no_grad()
    def held_out_loss(self, parallel_model: ParallelModel) -> float:
        """Nats a target over the held-out examples, the same on every process; NaN without any."""
        total, count = 0.0, 0
        for rows in in_turn(self.held_out.n_rows):
            ids, targets, segments = self._tensors(self.held_out, rows)
            total += float(parallel_model.nats(ids, targets, segments).double().sum())
            count += int((targets != IGNORED).sum())
        return total / count if count else float("nan")

    def _tensors(self, packed: Packed, rows: list[int]) -> Batch:
        ids, targets, segments = (torch.from_numpy(a[rows]).to(self.dims.device) for a in (packed.ids, packed.targets, packed.segments))
        return ids, targets, segments
