"""What the loop needs from a model on a layout, and the plain case of one process."""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from corpusmill.train.model import Llama
from corpusmill.train.objective import Objective, Share, StepLoss
from corpusmill.train.packing import IGNORED
from corpusmill.train.precision import autocast, computing, rounded


class ParallelModel(Protocol):
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


class LocalModel:
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
            return placed(self.llama(ids, segments, targets=targets), targets)


def placed(nats: Tensor, targets: Tensor) -> Tensor:
    """`[B, T]` with the nats of the targets that count at their places, and 0 elsewhere."""
    return nats.new_zeros(targets.shape).masked_scatter_(targets != IGNORED, nats)
