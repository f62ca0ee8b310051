"""Data parallelism: copies of a model (DDP) or shards of it (FSDP2) on different rows. A tensor group may also spread its matrices."""

from typing import Any

import torch
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from corpusmill.train.compute import autocast, rounded
from corpusmill.train.model import Llama
from corpusmill.train.parallel import ParallelDims


def copies(model: Llama, dims: ParallelDims, precision: str) -> DistributedDataParallel:
    """Wraps the model as one of equal copies on all processes. Gradients are averaged in buckets during the backward pass.

    DDP fixes its buckets in its first backward pass, and they decide the last bits of sums. So a first pass runs here, and its gradients
    are dropped: a run that resumes from a saved state begins with the same buckets as one that was never stopped.
    """
    cuda = [dims.device.index] if dims.device.index is not None else None
    ddp = DistributedDataParallel(model, device_ids=cuda, gradient_as_bucket_view=True)
    frozen = any(not p.requires_grad for p in model.parameters())  # those below an adapter may be bf16, and its own are not
    used = precision if frozen else "fp32"
    with torch.compiler.set_stance("force_eager"), rounded(model, used), autocast(dims.device, used):  # nothing is compiled
        ddp(torch.zeros(1, 2, dtype=torch.int64, device=dims.device)).sum().backward()
    ddp.zero_grad(set_to_none=True)
    return ddp


def shard(model: Llama, dims: ParallelDims, precision: str) -> str:
    """Shards the model, or a pipeline stage, in place: layer by layer over the ranks of `shard`, the same in each group of `replicate`.

    Weights are gathered for a layer's forward pass and again for its backward pass. With `zero` below 3, or in a pipeline with its many
    micro-batches, they stay whole in between. Gradients are averaged over all ranks that see different rows. It also works on a model that
    tensor parallelism has spread, and with a shard of 1, which is then DDP on DTensors.

    Returns the precision that the caller must provide: fp32 if weights are gathered in bf16 (`bf16-params`).
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
