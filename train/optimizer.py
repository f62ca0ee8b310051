"""AdamW for everything, or Muon for the matrices inside the layers with AdamW for the rest; on shards as on whole parameters."""

from collections.abc import Mapping

import torch
from torch import Tensor

from corpusmill.train.muon import Muon, fast_bf16
from corpusmill.train.options import OptimizerConfig
from corpusmill.train.shards import gradient_of, like, local_of


class Optimizer:
    """One or two torch optimisers over named parameters, with their state by parameter name."""

    def __init__(self, parameters: Mapping[str, Tensor], config: OptimizerConfig):
        self.parameters = dict(parameters)
        hidden = {name: p for name, p in parameters.items() if p.dim() == 2 and ".layers." in name and config.kind == "muon"}
        self.shards = {name: local_of(p) for name, p in parameters.items() if name not in hidden}  # what AdamW has
        self.parts: list[tuple[torch.optim.Optimizer, float]] = []
        self.owner: dict[str, torch.optim.Optimizer] = {}
        if self.shards:  # a rank of a pipeline may have nothing but matrices
            decay, plain = ([p for name, p in self.shards.items() if (parameters[name].dim() >= 2) == wanted] for wanted in (True, False))
            groups = [{"params": decay, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
            adamw = torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)
            self._add(adamw, config.lr, self.shards)
        if hidden:
            auto = config.newton_schulz == "auto" and fast_bf16(next(iter(hidden.values())).device)
            muon = Muon(hidden.values(), config.muon_lr, config.momentum, config.weight_decay, auto or config.newton_schulz == "bf16")
            self._add(muon, config.muon_lr, hidden)

    def _add(self, part: torch.optim.Optimizer, peak: float, parameters: Mapping[str, Tensor]) -> None:
        self.parts.append((part, peak))
        self.owner |= dict.fromkeys(parameters, part)

    def step(self, lr_fraction: float) -> None:
        """One update at this fraction of the peak learning rates."""
        for name, shard in self.shards.items():
            p = self.parameters[name]
            if shard is not p:
                shard.grad = None if p.grad is None else gradient_of(p)
        for part, peak in self.parts:
            for group in part.param_groups:
                group["lr"] = peak * lr_fraction
            part.step()

    def zero_grad(self) -> None:
        for p in (*self.parameters.values(), *self.shards.values()):
            p.grad = None

    def state(self) -> dict[str, Tensor]:
        """Every moment and step counter as `parameter name/key`, spread like its parameter; those of a parameter that has not moved yet
        are made, so that a saved state can be copied into them."""
        return {f"{name}/{key}": like(value, p) for name, p in self.parameters.items() for key, value in self._state_of(name).items()}

    def _state_of(self, name: str) -> dict[str, Tensor]:
        part = self.owner[name]
        if isinstance(part, Muon):
            return {"momentum": part.buffer(self.parameters[name])}
        shard = self.shards[name]
        state: dict[str, Tensor] = part.state[shard]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=shard.device)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(shard), torch.zeros_like(shard)
        return state
