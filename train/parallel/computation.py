"""What the loop needs from a model on a layout, and the plain case of one process."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from corpusmill.train.bits import Batch
from corpusmill.train.model import Llama
from corpusmill.train.objective import Objective, Share, StepLoss
from corpusmill.train.packing import IGNORED
from corpusmill.train.parallel.data import synchronised
from corpusmill.train.parallel.layout import Layout
from corpusmill.train.parallel.sums import squared_norm, total
from corpusmill.train.parallel.tensor import sharded_loss
from corpusmill.train.precision import autocast, computing, rounded
from corpusmill.train.token_loss import token_nats

T = TypeVar("T")


class Computation(Protocol):
    """A model as it lies on a layout."""

    parameters: dict[str, Tensor]  # by Hugging Face name; DTensors where they are sharded; a pipeline's rank has its own only
    gradient_scale: float  # what turns the gradients that `backward` leaves into those of the sum over all ranks' losses

    @property
    def model(self) -> nn.Module:
        """The Llama, or this rank's part of it."""
        ...

    def backward(self, objective: Objective, step: int, scale: float) -> list[StepLoss]:
        """Forward and backward of this rank's micro-batches of a step, of losses times `scale`; gradients are added up in `parameters`."""
        ...

    def total(self, values: Tensor) -> Tensor:
        """float64 `[n]` summed over all ranks, each part of the data counted once; the same bits on every rank."""
        ...

    def squared_norm(self, grads: Mapping[str, Tensor]) -> Tensor:
        """The square of the norm of the whole model's gradient, as `backward` left it: one float64, on the device, so that the loop can
        fetch it together with the totals; the same bits on every rank."""
        ...

    def nats(self, ids: Tensor, targets: Tensor, segments: Tensor | None) -> Tensor:
        """`[B, T]` negative log-likelihoods without gradients, on every rank that shares these rows."""
        ...


class Local:
    """One process that has the whole model."""

    gradient_scale = 1.0

    def __init__(self, model: Llama, precision: str):
        self.llama, self.precision = model, precision
        self.parameters: dict[str, Tensor] = {name: p for name, p in model.named_parameters() if p.requires_grad}

    @property
    def model(self) -> Llama:
        return self.llama

    def backward(self, objective: Objective, step: int, scale: float) -> list[StepLoss]:
        parts = []
        with rounded(self.llama, self.precision):
            for batch in objective.batches(step, Share()):
                with autocast(self.llama.device, self.precision):
                    part = objective.loss(self.llama, batch)
                if part.total.requires_grad:
                    (part.total * scale if scale != 1.0 else part.total).backward()
                parts.append(part)
        return parts

    def total(self, values: Tensor) -> Tensor:
        return values

    def squared_norm(self, grads: Mapping[str, Tensor]) -> Tensor:
        if not grads:
            return torch.zeros((), dtype=torch.float64, device=self.llama.device)
        return torch.stack(torch._foreach_norm(list(grads.values()))).double().square().sum()

    @torch.no_grad()
    def nats(self, ids: Tensor, targets: Tensor, segments: Tensor | None) -> Tensor:
        with computing(self.llama, self.llama.device, self.precision):
            logits = self.llama(ids, segments)
        return token_nats(logits, targets)


class Spread:
    """A model whose copies or shards see different rows, and whose matrices may be spread over a tensor group (`prepare` did that).

    `forward` is `llama` or what wraps it.
    """

    def __init__(self, llama: Llama, forward: nn.Module, layout: Layout, precision: str):
        self.llama, self.forward, self.layout, self.precision = llama, forward, layout, precision
        self.parameters: dict[str, Tensor] = {name: p for name, p in llama.named_parameters() if p.requires_grad}
        self.gradient_scale = float(layout.share.of)  # DDP and FSDP2 average
        self.tensor = layout.submesh("tensor")

    @property
    def model(self) -> Llama:
        return self.llama

    def backward(self, objective: Objective, step: int, scale: float) -> list[StepLoss]:
        parts = []
        with rounded(self.llama, self.precision):
            for batch, last in with_last(objective.batches(step, self.layout.share)):
                with synchronised(self.forward, last), sharded_loss(self.tensor):
                    with autocast(self.layout.device, self.precision):
                        part = objective.loss(cast(Llama, self.forward), batch)
                    (part.total * scale if scale != 1.0 else part.total).backward()
                part.total = whole(part.total.detach())
                parts.append(part)
        settle(self.parameters)
        return parts

    def total(self, values: Tensor) -> Tensor:
        return total(values, self.layout)

    def squared_norm(self, grads: Mapping[str, Tensor]) -> Tensor:
        return squared_norm(grads.values(), self.layout)

    @torch.no_grad()
    def nats(self, ids: Tensor, targets: Tensor, segments: Tensor | None) -> Tensor:
        length = ids.size(1)
        ids, targets, segments = even((ids, targets, segments), self.layout.config.tensor)
        with sharded_loss(self.tensor), computing(self.llama, self.layout.device, self.precision):
            return whole(token_nats(self.llama(ids, segments), targets))[:, :length]


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
        if p.grad is not None and hasattr(p, "placements") and p.grad.placements != p.placements:
            p.grad = p.grad.redistribute(placements=p.placements)


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that may be sharded."""
    full: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return full
