"""A model on one process or many: how the loop uses it, and how it is laid out over the processes.

Modules that only several processes need are imported at their use, as their import takes a second.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from corpusmill.train.checkpoint import read_weights
from corpusmill.train.compute import autocast, chosen, compiles, passes, rounded
from corpusmill.train.data import IGNORED, Batch
from corpusmill.train.model import Llama, Objective, StepLoss, fill
from corpusmill.train.optim import Optimizer
from corpusmill.train.options import LoopConfig, OptimizerConfig
from corpusmill.train.parallel import ParallelDims, is_sharded, total

# ---- the interface to the loop -----------------------------------------------------------------------


class ParallelModel:
    """A model, or this rank's part of it, and how it computes. Ranks get the same bits of each sum.

    Without `dims` it is on one process. `forward` is what objectives call, `model` or its wrapper.
    """

    def __init__(self, model: Any, precision: str, dims: ParallelDims | None = None, forward: Any = None):
        self.model, self.forward, self.dims = model, forward or model, dims or ParallelDims.single(model.device)
        self.precision, self.tensor = chosen(self.dims, precision), self.dims.submesh("tensor")
        #: By Hugging Face name; DTensors where they are sharded; a pipeline's rank has only its own.
        self.parameters: dict[str, Tensor] = {name: p for name, p in model.named_parameters() if p.requires_grad}
        #: From the gradients that `backward` leaves to those of the sum over all ranks' losses: DDP and FSDP2 average.
        self.gradient_scale = float(self.dims.share.of)

    def backward(self, objective: Objective, step: int) -> list[StepLoss]:
        """Runs forward and backward of this rank's micro-batches of a step; gradients add up in `parameters`."""
        parts = []
        with passes(self.model, self.dims.device, self.precision):
            for batch, following in pairwise(chain(objective.batches(step, self.dims.share), [None])):
                last = following is None  # copies (DDP) average their gradients only then, shards (FSDP2) add up their part in each
                if hasattr(self.forward, "set_requires_all_reduce"):
                    self.forward.set_requires_all_reduce(last)
                alone = nullcontext() if last or not hasattr(self.forward, "no_sync") else self.forward.no_sync()
                with alone, sharded_loss(self.tensor):
                    with autocast(self.dims.device, self.precision):
                        part = objective.loss(self.forward, batch)
                    if part.total.requires_grad:
                        part.total.backward()
                part.total = part.total.detach()
                parts.append(part)
        settle(self.parameters)
        return parts

    def total(self, values: Tensor) -> Tensor:
        """Returns float64 `[n]` summed over all ranks, with each part of the data counted once."""
        return total(values, self.dims)

    @torch.no_grad()
    def nats(self, ids: Tensor, targets: Tensor, segments: Tensor | None) -> Tensor:
        """Returns negative log-likelihoods `[B, T]` without gradients, 0 where no target counts, on every rank that shares these rows."""
        length = ids.size(1)
        ids, targets, segments = even((ids, targets, segments), self.dims.config.tensor)
        with sharded_loss(self.tensor), rounded(self.model, self.precision), autocast(self.dims.device, self.precision):
            found = self.model(ids, segments, targets=targets)
        reshard(self.model)
        return in_places(found, targets)[:, :length]


def in_places(nats: Tensor, targets: Tensor) -> Tensor:
    """Returns `[B, T]`: the nats `[n]` of the targets that count in their places, and 0 elsewhere."""
    return nats.new_zeros(targets.shape).masked_scatter_(targets != IGNORED, nats)


def reshard(model: nn.Module) -> None:
    """Frees weights that a forward pass without a backward pass has gathered (FSDP2), and that would become stale."""
    module: Any
    for module in model.modules():
        if hasattr(module, "reshard"):
            module.reshard()


def sharded_loss(mesh: Any) -> AbstractContextManager[object]:
    """Returns a context for cross-entropy of logits that are sharded by vocabulary, and its backward pass; an empty one without a mesh."""
    if mesh is None:
        return nullcontext()
    from torch.distributed.tensor.parallel import loss_parallel

    return loss_parallel()


def even(batch: Batch, parts: int) -> Batch:
    """Pads rows until `parts` tensor ranks can divide the positions evenly. No token sees later ones, so padding changes nothing."""
    ids, targets, segments = batch
    if extra := -ids.size(1) % parts:
        ids, targets = F.pad(ids, (0, extra)), F.pad(targets, (0, extra), value=IGNORED)
        segments = None if segments is None else F.pad(segments, (0, extra), mode="replicate")
    return ids, targets, segments


def settle(parameters: Mapping[str, Any]) -> None:
    """Gives gradients the layout of their parameters. Tensor ranks hold partial sums of the gradients of norms; these are added up."""
    for p in parameters.values():
        if is_sharded(p) and p.grad is not None and p.grad.placements != p.placements:
            p.grad = p.grad.redistribute(placements=p.placements)


# ---- laying a model out ------------------------------------------------------------------------------


def prepare(model: Llama, dims: ParallelDims, config: LoopConfig, start: int | Path | None = None) -> ParallelModel:
    """Lays out the model, which is the same on every rank, over the processes of `dims`.

    With a `start`, the seed of initial weights or a model folder, the model is blank, and is filled after it is spread: no rank ever holds
    more than its shards and one whole weight.
    """
    parts, wanted, compiled = {0: model}, chosen(dims, config.precision), compiles(dims.device, config.compile)
    if dims.config.pipeline > 1:
        from corpusmill.train.parallel.pipeline import PipelineModel, cut

        parts = cut(model, dims, config)
        if dims.config.schedule == "zero-bubble":  # what `cut` refuses, `auto` does not mean
            compiled = False
    for part in parts.values():
        if mesh := dims.submesh("tensor"):
            from corpusmill.train.parallel.tensor import spread

            spread(part, mesh)
        part.switch(checkpointing=config.checkpointing, compiled=compiled)
    precision, forward = wanted, None
    if not dims.config.whole:
        from corpusmill.train.parallel.data import shard

        for part in parts.values():
            precision = shard(part, dims, wanted)  # the same for each part
    for part in parts.values():
        if isinstance(start, Path):
            read_weights(part, start, dims.device)
        elif start is not None:
            fill(part, start, dims.device)
    if dims.config.pipeline > 1:
        return PipelineModel(parts, dims, wanted == "bf16-params", precision)
    if dims.world > 1 and dims.config.whole:
        from corpusmill.train.parallel.data import copies

        forward = copies(model, dims, precision)
    return ParallelModel(model, precision, dims, forward)


def optimizer_of(parallel_model: ParallelModel, config: OptimizerConfig, bf16: bool = False) -> Optimizer:
    """Returns the optimiser of this rank's parameters. With ZeRO-1, and where copies share out Muon's work, ranks divide the updates. With
    `bf16`, Muon computes in it."""
    dims = parallel_model.dims
    divides = dims.config.whole and (dims.config.shard > 1 or (dims.world > 1 and config.kind == "muon"))
    return Optimizer(parallel_model.parameters, config, dims if divides else None, bf16)
