"""A model whose copies or shards see different rows, and whose matrices may be spread over a tensor group."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from corpusmill.train.bits import Batch
from corpusmill.train.model import Llama
from corpusmill.train.objective import Objective, StepLoss
from corpusmill.train.packing import IGNORED
from corpusmill.train.parallel.computation import placed
from corpusmill.train.parallel.data import reshard, synchronised
from corpusmill.train.parallel.layout import ParallelDims
from corpusmill.train.parallel.sums import squared_norm, total
from corpusmill.train.parallel.tensor import sharded_loss
from corpusmill.train.precision import autocast, computing, rounded

T = TypeVar("T")


class SpreadModel:
    """The computation of a model that `prepare` has laid out; `forward` is `llama` or what wraps it."""

    def __init__(self, llama: Llama, forward: nn.Module, dims: ParallelDims, precision: str):
        self.llama, self.forward, self.dims, self.precision = llama, forward, dims, precision
        self.parameters: dict[str, Tensor] = {name: p for name, p in llama.named_parameters() if p.requires_grad}
        self.gradient_scale = float(dims.share.of)  # DDP and FSDP2 average
        self.tensor = dims.submesh("tensor")

    @property
    def model(self) -> Llama:
        return self.llama

    def backward(self, objective: Objective, step: int, scale: float) -> list[StepLoss]:
        parts = []
        with rounded(self.llama, self.precision):
            for batch, last in with_last(objective.batches(step, self.dims.share)):
                with synchronised(self.forward, last), sharded_loss(self.tensor):
                    with autocast(self.dims.device, self.precision):
                        part = objective.loss(cast(Llama, self.forward), batch)
                    (part.total * scale if scale != 1.0 else part.total).backward()
                part.total = part.total.detach()
                parts.append(part)
        settle(self.parameters)
        return parts

    def total(self, values: Tensor) -> Tensor:
        return total(values, self.dims)

    def squared_norm(self, grads: Mapping[str, Tensor]) -> Tensor:
        return squared_norm(grads.values(), self.dims)

    @torch.no_grad()
    def nats(self, ids: Tensor, targets: Tensor, segments: Tensor | None) -> Tensor:
        length = ids.size(1)
        ids, targets, segments = even((ids, targets, segments), self.dims.config.tensor)
        with sharded_loss(self.tensor), computing(self.llama, self.dims.device, self.precision):
            nats = placed(self.llama(ids, segments, targets=targets), targets)
        reshard(self.llama)
        return nats[:, :length]


def with_last(items: Iterable[T]) -> Iterator[tuple[T, bool]]:
    """Each item, and whether it is the last."""
    iterator = iter(items)
    item = next(iterator)
    for following in iterator:
        yield item, False
        item = following
    yield item, True


def even(batch: Batch, parts: int) -> Batch:
    """Rows that are padded until `parts` tensor ranks can share out their positions evenly; nothing looks forward."""
    ids, targets, segments = batch
    if extra := -ids.size(1) % parts:
        ids, targets = F.pad(ids, (0, extra)), F.pad(targets, (0, extra), value=IGNORED)
        segments = None if segments is None else F.pad(segments, (0, extra), mode="replicate")
    return ids, targets, segments


def settle(parameters: Mapping[str, Tensor]) -> None:
    """Lays gradients out as their parameters: that of a norm between sharded positions is still to be summed over the tensor group."""
    for p in parameters.values():
        if isinstance(p, DTensor) and isinstance(p.grad, DTensor) and p.grad.placements != p.placements:
            p.grad = p.grad.redistribute(placements=p.placements)


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that may be sharded."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
