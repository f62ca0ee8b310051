"""LoRA (https://arxiv.org/abs/2106.09685): weights stay frozen, and a product of two narrow matrices is learned beside each."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from corpusmill.train.model import Llama, named_generator
from corpusmill.train.options import LoraConfig


class LoRALinear(nn.Linear):
    """x W' + scale (x A') B' for `x` `[..., in]`, with `weight` W `[out, in]` frozen, `lora_A` `[rank, in]` and `lora_B` `[out, rank]`.

    All three are parameters of the module itself, so that what spreads or shards an `nn.Linear` does it to this one, too.
    """

    def __init__(self, base: nn.Linear, rank: int, scale: float):
        super().__init__(base.in_features, base.out_features, bias=False, device="meta")
        self.weight, self.scale = base.weight, scale
        self.unmerged: tuple[Tensor, ...] = ()  # the frozen weight, while `weight` is the merged one; hidden from `parameters`
        self.lora_A = nn.Parameter(self.weight.new_empty(rank, base.in_features))
        self.lora_B = nn.Parameter(self.weight.new_zeros(base.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.weight)
        return y if self.unmerged else y + self.scale * F.linear(F.linear(x, self.lora_A), self.lora_B)

    @torch.no_grad()
    def merge(self) -> None:
        if not self.unmerged:
            self.unmerged = (self.weight,)
            self.weight = nn.Parameter(self.weight + self.scale * (self.lora_B @ self.lora_A), requires_grad=False)

    def unmerge(self) -> None:
        if self.unmerged:
            (self.weight,), self.unmerged = self.unmerged, ()


def adapt(model: Llama, config: LoraConfig, seed: int) -> None:
    """Puts an adapter beside each projection that `config` names, in place, and freezes all else. The model computes what it did before.

    A begins as in `peft`: uniform in ±1/sqrt(in), drawn by the seed and its name alone; B begins at zero.
    """
    linear = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    model.requires_grad_(False)
    for name, base in [(name, module) for name, module in linear if name.rpartition(".")[2] in config.targets]:
        parent, _, child = name.rpartition(".")
        module = LoRALinear(base, config.rank, config.alpha / config.rank)
        setattr(model.get_submodule(parent), child, module)
        bound = 1 / math.sqrt(module.in_features)
        generator = named_generator(f"{name}.lora_A", seed)
        module.lora_A.data.copy_(torch.empty(module.lora_A.shape).uniform_(-bound, bound, generator=generator))


def adapters(model: nn.Module) -> dict[str, LoRALinear]:
    """The adapted modules by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoRALinear)}


def merge(model: Llama) -> None:
    """Adds every adapter to its weight, W + scale B A in the weight's type, so that the model is as fast as one without adapters."""
    for module in adapters(model).values():
        module.merge()


def unmerge(model: Llama) -> None:
    """Puts the frozen weights back; they were kept, so they are the same to the bit."""
    for module in adapters(model).values():
        module.unmerge()


def merged_weights(model: Llama) -> dict[str, Tensor]:
    """The weights, by name, of the plain Llama that computes what the adapted one does, with adapters added to them."""
    merge(model)
    weights = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith((".lora_A", ".lora_B"))}
    unmerge(model)
    return weights
