"""AdamW for everything, or Muon for the matrices inside the layers with AdamW for the rest; on shards as on whole parameters."""

from collections.abc import Mapping

from torch import Tensor

from corpusmill.train.adamw import AdamW
from corpusmill.train.muon import Muon, fast_bf16
from corpusmill.train.options import OptimizerConfig
from corpusmill.train.shards import gradient_of, like, local_of


class Optimizer:
    """One or two optimisers over named parameters, with their state by parameter name."""

    def __init__(self, parameters: Mapping[str, Tensor], config: OptimizerConfig):
        self.parameters = dict(parameters)
        hidden = {name: p for name, p in parameters.items() if p.dim() == 2 and ".layers." in name and config.kind == "muon"}
        self.shards = {name: local_of(p) for name, p in parameters.items() if name not in hidden}  # what AdamW has
        self.parts: list[tuple[AdamW | Muon, float]] = []
        if self.shards:  # a rank of a pipeline may have nothing but matrices
            decay, plain = ([p for name, p in self.shards.items() if (parameters[name].dim() >= 2) == wanted] for wanted in (True, False))
            self.parts.append((AdamW(decay, plain, config), config.lr))
        if hidden:
            auto = config.newton_schulz == "auto" and fast_bf16(next(iter(hidden.values())).device)
            muon = Muon(hidden.values(), config.momentum, config.weight_decay, auto or config.newton_schulz == "bf16")
            self.parts.append((muon, config.muon_lr))

    def step(self, lr_fraction: float) -> None:
        """One update at this fraction of the peak learning rates."""
        for name, shard in self.shards.items():
            p = self.parameters[name]
            if shard is not p:
                shard.grad = None if p.grad is None else gradient_of(p)
        for part, peak in self.parts:
            part.step(peak * lr_fraction)

    def zero_grad(self) -> None:
        for p in (*self.parameters.values(), *self.shards.values()):
            p.grad = None

    def state(self) -> dict[str, Tensor]:
        """Every moment and step counter as `parameter name/key`, spread like its parameter; those of a parameter that has not moved yet
        are made, so that a saved state can be copied into them."""
        return {f"{name}/{key}": like(value, p) for name, p in self.parameters.items() for key, value in self._state_of(name).items()}

    def _state_of(self, name: str) -> dict[str, Tensor]:
        adamw = name in self.shards  # the first part, where there is one; matrices belong to the last
        return self.parts[0 if adamw else -1][0].state_of(self.shards[name] if adamw else self.parameters[name])
