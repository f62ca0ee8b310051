"""Pipeline parallelism: how layers are divided into stages on several ranks, and training by torch's pipeline schedules."""

from functools import partial
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.pipelining import (
    PipelineStage,
    Schedule1F1B,
    ScheduleInterleaved1F1B,
    ScheduleInterleavedZeroBubble,
)

from corpusmill.pipeline.errors import InputError
from corpusmill.train.compute import autocast, passes, rounded
from corpusmill.train.model import Llama, Objective, StepLoss, target_nats
from corpusmill.train.options import Architecture, LoopConfig, ParallelConfig
from corpusmill.train.parallel import ParallelDims, total
from corpusmill.train.parallel.model import ParallelModel, even, in_places, reshard, settle, sharded_loss

# ---- layers to stages --------------------------------------------------------------------------------


def stages_of(config: ParallelConfig) -> list[list[int]]:
    """Returns the stages of each pipeline rank, in order: one with `1f1b`, else two, as stages go round the ranks twice."""
    ranks = config.pipeline
    return [[rank] if config.schedule == "1f1b" else [rank, ranks + rank] for rank in range(ranks)]


def split_layers(arch: Architecture, stages: int) -> list[range]:
    """Returns the consecutive layers of each stage, at least one, such that the costliest stage costs as little as possible.

    The cost of a layer and of the head is the number of their weights, as each is multiplied once a token. The embedding counts a third:
    its forward and backward are look-ups, but its gradient, moments and update cost as much as the head's.
    """
    if arch.layers < stages:
        raise InputError(f"parallel.pipeline: {stages} stages need as many layers, and the model has {arch.layers}.")
    layer = 2 * arch.width * arch.head_dim * (arch.heads + arch.kv_heads) + 3 * arch.width * arch.ffn
    head = arch.vocab_size * arch.width
    counts, costs = [1] * stages, [float(layer)] * stages
    costs[0] += head / 3
    costs[-1] += head
    for _ in range(arch.layers - stages):
        cheapest = costs.index(min(costs))
        counts[cheapest] += 1
        costs[cheapest] += layer
    ends = [sum(counts[: stage + 1]) for stage in range(stages)]
    return [range(end - count, end) for end, count in zip(ends, counts)]


def cut(model: Llama, dims: ParallelDims, config: LoopConfig) -> dict[int, Llama]:
    """Returns this rank's stages of `model` by their numbers, in order. Each is a Llama with some of the layers, and shares their weights.

    Raises InputError for options that a pipeline, or its schedule, does not support.
    """
    if dims.config.schedule == "zero-bubble" and config.compile is True:
        raise InputError("loop.compile: a zero-bubble schedule computes a backward pass in two halves, and a compiled layer has but one.")
    if dims.config.schedule == "zero-bubble" and config.precision == "bf16-params":  # they would be added up at the bf16 weights
        raise InputError("loop.precision: with bf16-params a zero-bubble schedule can't add up the gradients of its micro-batches in fp32.")
    if model.arch.tied:
        raise InputError("parallel.pipeline: a head that is tied to the embedding can't be on another stage; set model.tied to false.")
    stages = stages_of(dims.config)
    layers = split_layers(model.arch, len(stages) * len(stages[0]))
    return {stage: part(model, layers[stage]) for stage in stages[dims.index("pipeline")]}


def part(model: Llama, layers: range) -> Llama:
    """Returns `model` with only these layers; with the embedding if they are the first, with the final norm and head if the last."""
    last = layers.stop == model.arch.layers
    with torch.device("meta"):
        found: Any = Llama(model.arch)
    found.model.embed_tokens = model.model.embed_tokens if layers.start == 0 else None
    found.model.layers = nn.ModuleDict({str(number): model.model.layers[str(number)] for number in layers})
    found.model.norm = model.model.norm if last else None
    found.lm_head = model.lm_head if last else None
    return cast(Llama, found.train(model.training))


# ---- the model ---------------------------------------------------------------------------------------

SCHEDULES: dict[str, Any] = {
    "1f1b": Schedule1F1B, "interleaved": ScheduleInterleaved1F1B, "zero-bubble": ScheduleInterleavedZeroBubble,
}  # fmt: skip


class PipelineModel(ParallelModel):
    """This rank's stages of a model (see `cut`), each perhaps spread over a tensor group or sharded.

    All ranks of a pipeline read the same batches: the first stage uses the ids, all stages the segments. The objective takes the last
    stage's hidden states for those of a whole model.
    """

    def __init__(self, parts: dict[int, Llama], dims: ParallelDims, bf16: bool, precision: str):
        assert dims.mesh is not None
        super().__init__(nn.ModuleList(parts.values()), precision, dims)
        self.parameters = {name: p for part in parts.values() for name, p in part.named_parameters() if p.requires_grad}
        self.parts = parts
        self.group, self.rank = dims.mesh["pipeline"].get_group(), dims.index("pipeline")
        self.owners = {stage: rank for rank, stages in enumerate(stages_of(dims.config)) for stage in stages}
        self.last = max(self.owners)
        for part in parts.values():
            _return_hidden(part, dims.device, precision)
        self.bf16 = bf16  # whether weights, and so hidden states, are bf16
        self.objective: Any = None
        self.batches: list[Any] = []  # the micro-batches of a step
        self.schedules: dict[tuple[int, torch.Size], Any] = {}  # the latest one: its buffers are made for so many rows of this length

    def backward(self, objective: Objective, step: int) -> list[StepLoss]:
        """Runs forward and backward (see ParallelModel). Returns the last stage's losses; zeros on ranks without that stage."""
        self.objective, self.batches, self.found = objective, list(objective.batches(step, self.dims.share)), list[StepLoss]()
        ids, _, segments = zip(*(batch[:3] for batch in self.batches))
        if any(piece.shape != ids[0].shape for piece in ids):
            raise InputError("micro_batch: the micro-batches of a pipeline must have equally many rows, so it has to divide a rank's rows.")
        if (key := (len(ids), ids[0].shape)) not in self.schedules:
            self.schedules = {key: self._new_schedule(len(ids))}
        inputs = (torch.cat(ids),) if 0 in self.parts else ()
        documents = any(some is not None for some in segments)  # all micro-batches of a schedule need the same arguments
        given = [torch.zeros_like(each) if some is None else some.long() for each, some in zip(ids, segments)]
        named = {"segments": torch.cat(given)} if documents else {}
        with sharded_loss(self.tensor), passes(self.model, self.dims.device, self.precision):
            self.schedules[key].step(*inputs, target=torch.arange(len(ids)), return_outputs=False, **named)
        settle(self.parameters)
        for part in self.found:
            part.total = part.total.detach()
        nothing = [StepLoss(torch.zeros((), device=self.dims.device), 0, dict.fromkeys(objective.metrics, 0.0)) for _ in ids]
        return self.found[-len(ids) :] or nothing  # before the first step torch runs a trial, to learn shapes

    def _new_schedule(self, micro_batches: int) -> Any:
        stages = [PipelineStage(part, stage, len(self.owners), self.dims.device, group=self.group) for stage, part in self.parts.items()]
        ranks, schedule = self.dims.config.pipeline, self.dims.config.schedule
        if micro_batches < ranks or (len(stages) > 1 and micro_batches % ranks):
            how = f"{ranks} or more" if len(stages) == 1 else f"a multiple of {ranks}"
            raise InputError(
                f"micro_batch: a step has {micro_batches} micro-batches on each copy of the model, and the schedule "
                f"{schedule!r} on {ranks} ranks needs {how}."
            )

        def loss(hidden: Tensor, number: Tensor) -> Tensor:
            with autocast(self.dims.device, self.precision):
                self.found.append(self.objective.loss(partial(self._read, hidden), self.batches[int(number)]))
            return self.found[-1].total

        return SCHEDULES[schedule](stages if len(stages) > 1 else stages[0], micro_batches, loss_fn=loss, scale_grads=False)

    def _read(
        self, hidden: Tensor, ids: Tensor, segments: Tensor | None, targets: Tensor, places: Tensor | None = None, summed: bool = False
    ) -> Tensor:
        """Returns what `Llama.forward` does on one process, from the last stage's hidden states."""
        part = self.parts[self.last]
        return target_nats(part.lm_head, hidden, targets, places, summed, part.compiled)

    def total(self, values: Tensor) -> Tensor:
        return total(values if self.last in self.parts else torch.zeros_like(values), self.dims)

    @torch.no_grad()
    def nats(self, ids: Tensor, targets: Tensor, segments: Tensor | None) -> Tensor:
        pieces = min(len(ids), self.dims.config.pipeline)
        batch = even((ids, targets, segments), self.dims.config.tensor)
        split: list[Any] = [(None,) * pieces if t is None else t.tensor_split(pieces) for t in batch]
        # in several pieces, so that a stage works on the next rows while later stages work on those before
        with rounded(self.model, self.precision):
            found = [self._nats(*piece) for piece in zip(*split)]
        reshard(self.model)
        wide = torch.float64 if next(self.model.parameters()).dtype == torch.float64 else torch.float32
        nats = torch.cat(found) if self.last in self.parts else torch.empty(batch[0].shape, dtype=wide, device=ids.device)
        dist.broadcast(nats, group=self.group, group_src=self.owners[self.last])
        return nats[:, : ids.size(1)]

    def _nats(self, ids: Tensor, targets: Tensor, segments: Tensor | None) -> Tensor:
        """Passes some rows through this rank's stages. Returns the nats where the last stage is here, else hidden states."""
        hidden = ids
        for stage, part in self.parts.items():
            if stage and (giver := self.owners[stage - 1]) != self.rank:
                dtype = torch.bfloat16 if self.bf16 else next(part.parameters()).dtype
                hidden = torch.empty(*ids.shape, part.arch.width, dtype=dtype, device=ids.device)
                dist.recv(hidden, group=self.group, group_src=giver)
            hidden = part(hidden, segments)
            if stage < self.last and (taker := self.owners[stage + 1]) != self.rank:
                dist.send(hidden.contiguous(), group=self.group, group_dst=taker)
        if self.last not in self.parts:
            return hidden
        with sharded_loss(self.tensor), autocast(self.dims.device, self.precision):
            return in_places(self._read(hidden, ids, segments, targets), targets)


def _return_hidden(part: Llama, device: torch.device, precision: str) -> None:
    """Makes a stage return hidden states, under autocast in its forward pass alone; the backward pass uses the types that forward chose."""

    def forward(ids: Tensor, segments: Tensor | None = None) -> Tensor:
        with autocast(device, precision):
            hidden: Tensor = part.model(ids, segments)
        return hidden

    part.forward = forward  # type: ignore[method-assign, assignment]
