"""torch's fused AdamW without `torch.optim.Optimizer` around it, which imports the compiler (1.5 seconds) before the first step."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from corpusmill.train.options import OptimizerConfig


class AdamW:
    """Decoupled weight decay (https://arxiv.org/abs/1711.05101) for `decayed`, none for `others`."""

    def __init__(self, decayed: Sequence[Tensor], others: Sequence[Tensor], config: OptimizerConfig):
        self.groups, self.config = ((list(decayed), config.weight_decay), (list(others), 0.0)), config
        self.moments: dict[Tensor, dict[str, Tensor]] = {}

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """One update of all that has a gradient."""
        for params, decay in self.groups:
            moving = [p for p in params if p.grad is not None]
            states = [self.state_of(p) for p in moving]
            averages, squares, steps = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq", "step"))
            if moving:
                adamw(
                    moving, [p.grad for p in moving if p.grad is not None], averages, squares, [], steps, fused=True, amsgrad=False,
                    beta1=self.config.betas[0], beta2=self.config.betas[1], lr=lr, weight_decay=decay, eps=self.config.eps, maximize=False,
                )  # fmt: skip

    def state_of(self, p: Tensor) -> dict[str, Tensor]:
        """Its moments and its count of steps."""
        if p not in self.moments:
            names = ("exp_avg", "exp_avg_sq")
            count = torch.zeros((), dtype=torch.float32, device=p.device)
            self.moments[p] = {"step": count, **{name: torch.zeros_like(p) for name in names}}
        return self.moments[p]
