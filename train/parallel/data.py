"""Data parallelism: copies of a model (DDP) or shards of it (FSDP2) on different rows. A tensor group may also spread its matrices."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from corpusmill.train.compute import autocast, computing, passes
from corpusmill.train.data import IGNORED, Batch
from corpusmill.train.losses import Objective, StepLoss
from corpusmill.train.model import Llama
from corpusmill.train.parallel.dims import ParallelDims
from corpusmill.train.parallel.model import ParallelModel, placed
from corpusmill.train.parallel.tensor import sharded_loss

# ---- copies and shards -------------------------------------------------------------------------------


def copies(model: Llama, dims: ParallelDims, precision: str) -> DistributedDataParallel:
    """Wraps the model as one of equal copies on all processes. Gradients are averaged in buckets during the backward pass.

    DDP fixes its buckets in its first backward pass, and they decide the last bits of sums. So a first pass runs here, and its gradients
    are dropped: a run that resumes from a saved state begins with the same buckets as one that was never stopped.
    """
    cuda = [dims.device.index] if dims.device.index is not None else None
    ddp = DistributedDataParallel(model, device_ids=cuda, gradient_as_bucket_view=True)
    frozen = any(not p.requires_grad for p in model.parameters())  # those below an adapter may be bf16, and its own are not
    with torch.compiler.set_stance("force_eager"), computing(model, dims.device, precision if frozen else "fp32"):  # nothing is compiled
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


@contextmanager
def synchronised(model: nn.Module, last: bool) -> Iterator[None]:
    """Wraps forward and backward of one micro-batch: copies average their gradients only in the `last` one of a step, shards add up their
    part in each."""
    context: AbstractContextManager[object] = nullcontext()
    if isinstance(model, DistributedDataParallel):
        context = nullcontext() if last else model.no_sync()
    elif isinstance(model, FSDPModule):
        model.set_requires_all_reduce(last)
    with context:
        yield


def reshard(model: nn.Module) -> None:
    """Frees weights that a forward pass without a backward pass has gathered, and that would become stale."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


# ---- the model ---------------------------------------------------------------------------------------

T = TypeVar("T")


class SpreadModel(ParallelModel):
    """A model that `prepare` has laid out on several processes; `forward` is `llama` or its wrapper."""

    def __init__(self, llama: Llama, forward: nn.Module, dims: ParallelDims, precision: str):
        super().__init__(llama, dims, precision)
        self.llama, self.forward, self.tensor = llama, forward, dims.submesh("tensor")

    def backward(self, objective: Objective, step: int) -> list[StepLoss]:
        parts = []
        with passes(self.llama, self.dims.device, self.precision):
            for batch, last in with_last(objective.batches(step, self.dims.share)):
                with synchronised(self.forward, last), sharded_loss(self.tensor):
                    with autocast(self.dims.device, self.precision):
                        part = objective.loss(cast(Llama, self.forward), batch)
                    part.total.backward()
                part.total = part.total.detach()
                parts.append(part)
        settle(self.parameters)
        return parts

    @torch.no_grad()
    def nats(self, ids: Tensor, targets: Tensor, segments: Tensor | None) -> Tensor:
        length = ids.size(1)
        ids, targets, segments = even((ids, targets, segments), self.dims.config.tensor)
        with sharded_loss(self.tensor), computing(self.llama, self.dims.device, self.precision):
            nats = placed(self.llama(ids, segments, targets=targets), targets)
        reshard(self.llama)
        return nats[:, :length]


def with_last(items: Iterable[T]) -> Iterator[tuple[T, bool]]:
    """Yields each item, and whether it is the last."""
    iterator = iter(items)
    item = next(iterator)
    for following in iterator:
        yield item, False
        item = following
    yield item, True


def even(batch: Batch, parts: int) -> Batch:
    """Pads rows until `parts` tensor ranks can divide the positions evenly. No token sees later ones, so padding changes nothing."""
    ids, targets, segments = batch
    if extra := -ids.size(1) % parts:
        ids, targets = F.pad(ids, (0, extra)), F.pad(targets, (0, extra), value=IGNORED)
        segments = None if segments is None else F.pad(segments, (0, extra), mode="replicate")
    return ids, targets, segments


def settle(parameters: Mapping[str, Tensor]) -> None:
    """Gives gradients the layout of their parameters. Tensor ranks hold partial sums of the gradients of norms; these are added up."""
    for p in parameters.values():
        if isinstance(p, DTensor) and isinstance(p.grad, DTensor) and p.grad.placements != p.placements:
            p.grad = p.grad.redistribute(placements=p.placements)


def whole(tensor: Tensor) -> Tensor:
    """Returns the whole of a tensor that may be sharded."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
