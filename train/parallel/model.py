"""The interface between the loop and a model on one process or many, its implementation for one process, and the layout of a model.

Modules that only several processes need are imported at their use, as their import takes a second.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from corpusmill.train.compute import autocast, chosen, compiles, computing, passes
from corpusmill.train.data import IGNORED
from corpusmill.train.losses import Objective, StepLoss
from corpusmill.train.model import Llama, fill
from corpusmill.train.optim import Optimizer
from corpusmill.train.options import LoopConfig, OptimizerConfig
from corpusmill.train.parallel.dims import ParallelDims, squared_norm, total

# ---- the interface to the loop -----------------------------------------------------------------------


class ParallelModel:
    """A model, or this rank's part of it, and how it computes. Ranks get the same bits of each sum."""

    def __init__(self, model: nn.Module, dims: ParallelDims, precision: str):
        self.model, self.dims, self.precision = model, dims, precision
        #: By Hugging Face name; DTensors where they are sharded; a pipeline's rank has only its own.
        self.parameters: dict[str, Tensor] = {name: p for name, p in model.named_parameters() if p.requires_grad}
        #: From the gradients that `backward` leaves to those of the sum over all ranks' losses: DDP and FSDP2 average.
        self.gradient_scale = float(dims.share.of)

    def backward(self, objective: Objective, step: int) -> list[StepLoss]:
        """Runs forward and backward of this rank's micro-batches of a step; gradients add up in `parameters`."""
        raise NotImplementedError

    def total(self, values: Tensor) -> Tensor:
        """Returns float64 `[n]` summed over all ranks, with each part of the data counted once."""
        return total(values, self.dims)

    def squared_norm(self, grads: Mapping[str, Tensor]) -> Tensor:
        """Returns the squared norm of the whole model's gradient, as `backward` left it: one float64 on the device, so that the loop can
        fetch it together with the totals."""
        return squared_norm(grads.values(), self.dims)

    def nats(self, ids: Tensor, targets: Tensor, segments: Tensor | None) -> Tensor:
        """Returns negative log-likelihoods `[B, T]` without gradients, on every rank that shares these rows."""
        raise NotImplementedError


class LocalModel(ParallelModel):
    """A model on one process, which has all of it."""

    def __init__(self, model: Llama, precision: str):
        super().__init__(model, ParallelDims.single(model.device), chosen(model.device, precision))
        self.llama = model

    def backward(self, objective: Objective, step: int) -> list[StepLoss]:
        parts = []
        with passes(self.llama, self.dims.device, self.precision):
            for batch in objective.batches(step, self.dims.share):
                with autocast(self.dims.device, self.precision):
                    part = objective.loss(self.llama, batch)
                if part.total.requires_grad:
                    part.total.backward()
                parts.append(part)
        return parts

    @torch.no_grad()
    def nats(self, ids: Tensor, targets: Tensor, segments: Tensor | None) -> Tensor:
        with computing(self.llama, self.dims.device, self.precision):
            return placed(self.llama(ids, segments, targets=targets), targets)


def placed(nats: Tensor, targets: Tensor) -> Tensor:
    """Returns `[B, T]`: the nats of the targets that count at their places, and 0 elsewhere."""
    return nats.new_zeros(targets.shape).masked_scatter_(targets != IGNORED, nats)


# ---- laying a model out ------------------------------------------------------------------------------


def prepare(model: Llama, dims: ParallelDims, config: LoopConfig, seed: int | None = None) -> ParallelModel:
    """Lays out the model, which is the same on every rank, over the processes of `dims`.

    With a `seed` the model is blank, and is filled after it is spread: no rank ever holds more than its shards and one whole weight.
    """
    if dims.world > 1:
        return _spread(model, dims, config, seed)
    if seed is not None:
        fill(model, seed, dims.device)
    model.switch(checkpointing=config.checkpointing, compiled=compiles(dims.device, config.compile))
    return LocalModel(model, config.precision)


def _spread(model: Llama, dims: ParallelDims, config: LoopConfig, seed: int | None) -> ParallelModel:
    from corpusmill.train.parallel import data, tensor
    from corpusmill.train.parallel.data import SpreadModel
    from corpusmill.train.parallel.pipeline import cut

    parts = cut(model, dims, config) if dims.config.pipeline > 1 else {0: model}
    wanted, compiled = chosen(dims.device, config.precision), compiles(dims.device, config.compile)
    if dims.config.pipeline > 1 and dims.config.schedule == "zero-bubble":  # what `cut` refuses, `auto` does not mean
        wanted, compiled = wanted.removesuffix("-params"), False
    for part in parts.values():
        if mesh := dims.submesh("tensor"):
            tensor.spread(part, mesh)
        part.switch(checkpointing=config.checkpointing, compiled=compiled)
    precision = wanted
    for part in () if dims.config.whole else parts.values():
        precision = data.shard(part, dims, wanted)  # the same for each part
    if seed is not None:
        for part in parts.values():
            fill(part, seed, dims.device)
    if dims.config.pipeline > 1:
        from corpusmill.train.parallel.pipeline import PipelineModel  # its import takes a second

        return PipelineModel(parts, dims, wanted == "bf16-params", precision)
    return SpreadModel(model, data.copies(model, dims, precision) if dims.config.whole else model, dims, precision)


def optimizer_of(parallel_model: ParallelModel, dims: ParallelDims, config: OptimizerConfig) -> Any:
    """Returns the optimiser of this rank's parameters; or of those that it owns, with ZeRO-1, and where copies share out Muon's work."""
    if dims.config.whole and (dims.config.shard > 1 or (dims.world > 1 and config.kind == "muon")):
        from corpusmill.train.optim import SharedOptimizer

        return SharedOptimizer(parallel_model.parameters, config, dims)
    return Optimizer(parallel_model.parameters, config)
