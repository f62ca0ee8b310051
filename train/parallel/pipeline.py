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
from corpusmill.train.model import Llama
from corpusmill.train.objective import Objective, StepLoss
from corpusmill.train.options import LoopConfig
from corpusmill.train.parallel.data import reshard
from corpusmill.train.parallel.layout import ParallelDims
from corpusmill.train.parallel.split import stages_of
from corpusmill.train.parallel.spread import even, settle, whole
from corpusmill.train.parallel.sums import squared_norm, total
from corpusmill.train.parallel.tensor import sharded_loss
from corpusmill.train.precision import autocast, rounded
from corpusmill.train.token_loss import token_nats

SCHEDULES: dict[str, Any] = {
    "gpipe": ScheduleGPipe,
    "1f1b": Schedule1F1B,
    "interleaved": ScheduleInterleaved1F1B,
    "zero-bubble": ScheduleInterleavedZeroBubble,
    "zero-bubble-v": ScheduleZBVZeroBubble,
}


class PipelineModel:
    """This rank's stages of a model (see `cut`), each spread over a tensor group or sharded if the layout says so.

    All ranks of a pipeline read the same batches: the first stage takes the ids, the last one the targets, every one the segments.
    """

    def __init__(self, parts: dict[int, Llama], dims: ParallelDims, config: LoopConfig, precision: str):
        assert dims.mesh is not None
        self.parts, self.dims, self.schedule = parts, dims, dims.config.schedule
        self.group, self.rank = dims.mesh["pipeline"].get_group(), dims.index("pipeline")
        self.owners = {stage: rank for rank, stages in enumerate(stages_of(dims.config)) for stage in stages}
        self.last = max(self.owners)
        for part in parts.values():
            _under_autocast(part, dims.device, precision)
        self.stages, self.precision = nn.ModuleList(parts.values()), precision
        self.bf16 = config.precision == "bf16-params"  # so are hidden states
        self.parameters: dict[str, Tensor] = {
            name: p for part in parts.values() for name, p in part.named_parameters() if p.requires_grad
        }  # fmt: skip
        self.gradient_scale = float(dims.share.of)  # FSDP2 averages
        self.tensor = dims.submesh("tensor")
        self._runners: dict[tuple[int, torch.Size], _Runner] = {}

    @property
    def model(self) -> nn.Module:
        return self.stages

    def backward(self, objective: Objective, step: int, scale: float) -> list[StepLoss]:
        """See ParallelModel; the losses are those of the last stage, and zeros on ranks without it."""
        if not hasattr(objective, "of_logits"):
            raise InputError("parallel.pipeline: only the loss of single tokens can be computed on the last stage; set it to 1.")
        ids, targets, segments = zip(*objective.batches(step, self.dims.share))
        if any(piece.shape != ids[0].shape for piece in ids):
            raise InputError("micro_batch: the micro-batches of a pipeline must have equally many rows, so it has to divide a rank's rows.")
        key = len(ids), ids[0].shape
        if key not in self._runners:
            self._runners = {key: _Runner(self, len(ids))}
        inputs = (torch.cat(ids),) if 0 in self.parts else ()
        named = {} if segments[0] is None else {"segments": torch.cat(segments)}
        with sharded_loss(self.tensor), rounded(self.stages, self.precision):
            found = self._runners[key].step(objective, scale, inputs, named, torch.cat(targets) if self.last in self.parts else None)
        settle(self.parameters)
        return found or [StepLoss(torch.zeros((), device=self.dims.device), 0, dict.fromkeys(objective.metrics, 0.0)) for _ in ids]

    def total(self, values: Tensor) -> Tensor:
        return total(values if self.last in self.parts else torch.zeros_like(values), self.dims)

    def squared_norm(self, grads: Mapping[str, Tensor]) -> Tensor:
        return squared_norm(grads.values(), self.dims)

    @torch.no_grad()
    def nats(self, ids: Tensor, targets: Tensor, segments: Tensor | None) -> Tensor:
        pieces, sent = min(len(ids), self.dims.config.pipeline), list[dist.Work]()
        batch = even((ids, targets, segments), self.dims.config.tensor)
        split: list[Any] = [(None,) * pieces if t is None else t.tensor_split(pieces) for t in batch]
        # in pieces, so that a stage takes up the next rows while later ones have those before
        with rounded(self.stages, self.precision):
            found = [self._nats(i, t, s, sent) for i, t, s in zip(*split)]
        for work in sent:
            work.wait()
        reshard(self.stages)
        wide = torch.float64 if next(self.stages.parameters()).dtype == torch.float64 else torch.float32
        nats = torch.cat(found) if self.last in self.parts else torch.empty(batch[0].shape, dtype=wide, device=ids.device)
        dist.broadcast(nats, group=self.group, group_src=self.owners[self.last])
        return nats[:, : ids.size(1)]

    def _nats(self, ids: Tensor, targets: Tensor, segments: Tensor | None, sent: list[dist.Work]) -> Tensor:
        """Takes some rows through this rank's stages; what the last of them finds."""
        hidden = ids
        for stage, part in self.parts.items():
            if stage and (giver := self.owners[stage - 1]) != self.rank:
                dtype = torch.bfloat16 if self.bf16 else next(part.parameters()).dtype
                hidden = torch.empty(*ids.shape, part.arch.width, dtype=dtype, device=ids.device)
                dist.recv(hidden, group=self.group, group_src=giver)
            hidden = part(hidden, segments)
            if stage < self.last and (taker := self.owners[stage + 1]) != self.rank:
                work = dist.isend(hidden.contiguous(), group=self.group, group_dst=taker)
                sent += [work] if work else []
        if self.last not in self.parts:
            return hidden
        with sharded_loss(self.tensor):
            return whole(token_nats(hidden, targets))


def _under_autocast(part: Llama, device: torch.device, precision: str) -> None:
    """The forward pass alone: backward runs in the types that it left."""
    plain = part.forward

    def forward(ids: Tensor, segments: Tensor | None = None) -> Tensor:
        with autocast(device, precision):
            return plain(ids, segments)

    part.forward = forward  # type: ignore[method-assign, assignment]


class _Runner:
    """A schedule for so many micro-batches of one shape, which its buffers have."""

    def __init__(self, pipeline: PipelineModel, micro_batches: int):
        self.found: list[StepLoss] = []
        self.micro_batches = micro_batches
        stages: Any = [
            PipelineStage(part, stage, len(pipeline.owners), pipeline.dims.device, group=pipeline.group)
            for stage, part in pipeline.parts.items()
        ]
        ranks, kind = pipeline.dims.config.pipeline, SCHEDULES[pipeline.schedule]
        if micro_batches < ranks or (len(stages) > 1 and micro_batches % ranks):
            how = f"{ranks} or more" if len(stages) == 1 else f"a multiple of {ranks}"
            raise InputError(
                f"micro_batch: a step has {micro_batches} micro-batches on each copy of the model, and the schedule "
                f"{pipeline.schedule!r} on {ranks} ranks needs {how}."
            )
        self.schedule = kind(stages if len(stages) > 1 else stages[0], micro_batches, loss_fn=self._loss, scale_grads=False)

    def step(
        self, objective: Any, scale: float, ids: tuple[Tensor, ...], named: dict[str, Tensor], targets: Tensor | None
    ) -> list[StepLoss]:
        """One step; `ids`, `targets` and what is `named` have the rows of all micro-batches. Returns what the last stage found."""
        self.objective, self.scale, self.found = objective, scale, []
        self.schedule.step(*ids, target=targets, return_outputs=False, **named)
        for part in self.found:
            part.total = whole(part.total.detach())
        return self.found[-self.micro_batches :]  # before the first step torch tries one out, to learn shapes

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        part = self.objective.of_logits(logits, targets)
        self.found.append(part)
        return part.total * self.scale if self.scale != 1.0 else part.total
