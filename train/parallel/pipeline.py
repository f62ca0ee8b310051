"""A model whose layers lie on several ranks: torch's pipeline schedules behind what the loop asks for."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.pipelining import (
    PipelineStage,
    Schedule1F1B,
    ScheduleGPipe,
    ScheduleInterleaved1F1B,
    ScheduleInterleavedZeroBubble,
    ScheduleZBVZeroBubble,
)

from corpusmill.pipeline.errors import InputError
from corpusmill.train.device import autocast
from corpusmill.train.model import Llama
from corpusmill.train.objective import Objective, StepLoss, TokenObjective
from corpusmill.train.options import LoopConfig
from corpusmill.train.parallel.layout import Layout
from corpusmill.train.parallel.split import cut, split_layers, stages_of
from corpusmill.train.token_loss import token_nats

SCHEDULES: dict[str, Any] = {
    "gpipe": ScheduleGPipe,
    "1f1b": Schedule1F1B,
    "interleaved": ScheduleInterleaved1F1B,
    "zero-bubble": ScheduleInterleavedZeroBubble,
    "zero-bubble-v": ScheduleZBVZeroBubble,
}


class Pipeline:
    """This rank's stages of a model, each a Llama with some of its layers.

    All ranks of a pipeline read the same batches: the first stage takes the ids, the last one the targets, every one the segments.
    """

    def __init__(self, model: Llama, layout: Layout, config: LoopConfig):
        self.layout, self.schedule = layout, layout.config.schedule
        self.group = layout.mesh["pipeline"].get_group()
        self.rank, placed = dist.get_rank(self.group), stages_of(layout.config)
        self.owners = {stage: rank for rank, stages in enumerate(placed) for stage in stages}
        self.width = model.arch.width
        layers = split_layers(model.arch, len(self.owners))
        self.parts = {stage: cut(model, layers[stage]) for stage in placed[self.rank]}
        for part in self.parts.values():
            _under_autocast(part, config.precision)
        self.stages = nn.ModuleList(self.parts.values())
        self.has_last = len(self.owners) - 1 in self.parts
        self.parameters = {name: p for part in self.parts.values() for name, p in part.named_parameters() if p.requires_grad}
        self.gradient_scale = 1.0
        self._runners: dict[tuple[int, torch.Size], _Runner] = {}

    @property
    def model(self) -> nn.Module:
        return self.stages

    def backward(self, objective: Objective, step: int, scale: float) -> list[StepLoss]:
        """See Computation; the losses are those of the last stage, and zeros on ranks without it."""
        if not isinstance(objective, TokenObjective):
            raise InputError("parallel.pipeline: only the loss of single tokens can be computed on the last stage; set it to 1.")
        ids, targets, segments = zip(*objective.batches(step, self.layout.share))
        if any(piece.shape != ids[0].shape for piece in ids):
            raise InputError("micro_batch: the micro-batches of a pipeline must have equally many rows, so it has to divide a rank's rows.")
        key = len(ids), ids[0].shape
        if key not in self._runners:
            self._runners = {key: _Runner(self, len(ids))}
        inputs = (torch.cat(ids),) if 0 in self.parts else ()
        named = {} if segments[0] is None else {"segments": torch.cat(segments)}
        parts = self._runners[key].step(objective, scale, inputs, named, torch.cat(targets) if self.has_last else None)
        return parts or [StepLoss(torch.zeros(()), 0, dict.fromkeys(objective.metrics, 0.0))]

    def total(self, values: Tensor) -> Tensor:
        values = values if self.has_last else torch.zeros_like(values)
        dist.all_reduce(values, group=self.group)
        return values

    def squared_norm(self, grads: Mapping[str, Tensor]) -> float:
        square = torch.stack(torch._foreach_norm(list(grads.values()))).double().square().sum()
        dist.all_reduce(square, group=self.group)
        return float(square)

    @torch.no_grad()
    def nats(self, ids: Tensor, targets: Tensor, segments: Tensor | None) -> Tensor:
        pieces = min(len(ids), self.layout.config.pipeline)
        split = [(None,) * pieces if t is None else t.tensor_split(pieces) for t in (ids, targets, segments)]
        found, sent = [], []
        for piece in zip(*split):  # so that a stage takes up the next rows while later ones have those before
            found.append(self._nats(*piece, sent))
        nats = (
            torch.cat([f for f in found if f is not None])
            if self.has_last
            else torch.empty(ids.shape, dtype=torch.float64, device=ids.device)
        )
        for work in sent:
            work.wait()
        dist.broadcast(nats, group=self.group, group_src=self.owners[len(self.owners) - 1])
        return nats

    def _nats(self, ids: Tensor, targets: Tensor, segments: Tensor | None, sent: list[dist.Work]) -> Tensor | None:
        """Takes some rows through this rank's stages; what the last one finds, or None."""
        hidden = ids
        for stage, part in self.parts.items():
            if stage and (giver := self.owners[stage - 1]) != self.rank:
                hidden = torch.empty(*ids.shape, self.width, dtype=next(part.parameters()).dtype, device=ids.device)
                dist.recv(hidden, group=self.group, group_src=giver)
            hidden = part(hidden, segments)
            if (taker := self.owners.get(stage + 1, self.rank)) != self.rank:
                work = dist.isend(hidden.contiguous(), group=self.group, group_dst=taker)
                sent.append(work)
        return token_nats(hidden, targets).double() if self.has_last else None


def _under_autocast(part: Llama, precision: str) -> None:
    """The forward pass alone: backward runs in the types that it left."""
    plain, device = part.forward, part.device

    def forward(ids: Tensor, segments: Tensor | None = None) -> Tensor:
        with autocast(device, precision):
            return plain(ids, segments)

    part.forward = forward  # type: ignore[method-assign, assignment]


class _Runner:
    """A schedule for so many micro-batches of one shape, which its buffers have."""

    def __init__(self, pipeline: Pipeline, micro_batches: int):
        self.found: list[StepLoss] = []
        self.micro_batches = micro_batches
        stages: Any = [
            PipelineStage(part, stage, len(pipeline.owners), pipeline.layout.device, group=pipeline.group)
            for stage, part in pipeline.parts.items()
        ]
        ranks, kind = pipeline.layout.config.pipeline, SCHEDULES[pipeline.schedule]
        if micro_batches < ranks or (len(stages) > 1 and micro_batches % ranks):
            how = f"{ranks} or more" if len(stages) == 1 else f"a multiple of {ranks}"
            raise InputError(
                f"micro_batch: a step has {micro_batches} micro-batches on each copy of the model, and the schedule "
                f"{pipeline.schedule!r} on {ranks} ranks needs {how}."
            )
        self.schedule = kind(stages if len(stages) > 1 else stages[0], micro_batches, loss_fn=self._loss, scale_grads=False)

    def step(
        self, objective: TokenObjective, scale: float, ids: tuple[Tensor, ...], named: dict[str, Tensor], targets: Tensor | None
    ) -> list[StepLoss]:
        """One step; `ids`, `targets` and what is `named` have the rows of all micro-batches. Returns what the last stage found."""
        self.objective, self.scale = objective, scale
        self.found = []
        self.schedule.step(*ids, target=targets, return_outputs=False, **named)
        return self.found[-self.micro_batches :]  # before the first step torch tries one out, to learn shapes

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        part = self.objective.of_logits(logits, targets)
        self.found.append(part)
        return part.total * self.scale
