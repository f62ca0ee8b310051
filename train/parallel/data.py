"""Data parallelism: ranks that see different rows, with whole copies of the model (DDP) or with shards of it (FSDP2)."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from corpusmill.train.model import Llama
from corpusmill.train.parallel.layout import ParallelDims


def copies(model: Llama, dims: ParallelDims) -> DistributedDataParallel:
    """The model as one of equal copies on all processes, whose gradients are averaged in buckets while the backward pass goes on.

    DDP settles its buckets in its first backward pass, and sums depend on them in their last bits. So that is done here and its
    gradients are thrown away: a run that goes on from a saved state begins with the same buckets as one that was never stopped.
    """
    cuda = [dims.device.index] if dims.device.index is not None else None
    ddp = DistributedDataParallel(model, device_ids=cuda, gradient_as_bucket_view=True)
    with torch.compiler.set_stance("force_eager"):  # nothing is compiled for these two tokens
        ddp(torch.zeros(1, 2, dtype=torch.int64, device=dims.device)).sum().backward()
    ddp.zero_grad(set_to_none=True)
    return ddp


def shard(model: Llama, dims: ParallelDims, precision: str) -> str:
    """Shards the model, or a pipeline's part of it, in place: layer by layer over the ranks of `shard`, the same in each of `replicate`.

    Weights are gathered for a layer's forward pass and again for its backward pass; with a `zero` below 3, or in a pipeline's many
    micro-batches, they stay whole between the two. Gradients are averaged over all ranks that see different rows. Works on a model
    that tensor parallelism has spread, and with a shard of 1, which is then DDP on DTensors.

    Returns the precision that is still to be seen to: none where weights are gathered in bf16 (`bf16-params`).
    """
    mesh = dims.submesh("replicate", "shard")
    if mesh is None:
        return precision
    policy = MixedPrecisionPolicy()
    if precision == "bf16-params":
        policy, precision = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32), "fp32"
    keep = dims.config.zero < 3 or dims.config.pipeline > 1
    options: dict[str, Any] = {"mesh": mesh, "mp_policy": policy, "reshard_after_forward": not keep}
    for layer in model.model.layers.values():
        fully_shard(layer, **options)
    fully_shard(model, **options)
    return precision


@contextmanager
def synchronised(model: nn.Module, last: bool) -> Iterator[None]:
    """A forward and backward of one of a step's micro-batches: copies average their gradients in the `last` one only, while shards
    add up their part of each."""
    context: AbstractContextManager[object] = nullcontext()
    if isinstance(model, DistributedDataParallel):
        context = nullcontext() if last else model.no_sync()
    elif isinstance(model, FSDPModule):
        model.set_requires_all_reduce(last)
    with context:
        yield


def reshard(model: nn.Module) -> None:
    """Lets go of weights that a forward pass without a backward pass has gathered: they would stay as they are then."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
