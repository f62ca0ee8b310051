"""The optimiser on shards, among them uneven ones and parameters that are not sharded, against the whole ones in float64."""

from typing import Any

import pytest
import torch
from ranks import run_ranks
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

from corpusmill.train.optimizer import Optimizer
from corpusmill.train.options import OptimizerConfig

pytestmark = pytest.mark.rounding

#: By name: the shape, and how it lies on a mesh of 2 (None: it is a plain tensor).
SPREAD: dict[str, tuple[tuple[int, ...], Any]] = {
    "model.embed_tokens.weight": ((11, 6), Shard(0)),  # 6 and 5 rows
    "model.layers.0.q_proj.weight": ((6, 6), Shard(0)),
    "model.layers.1.q_proj.weight": ((6, 6), Shard(0)),
    "model.layers.2.q_proj.weight": ((6, 6), Shard(0)),  # three matrices for two ranks
    "model.layers.0.o_proj.weight": ((6, 6), Shard(1)),
    "model.layers.0.up_proj.weight": ((9, 6), Shard(0)),
    "model.layers.1.up_proj.weight": ((9, 6), None),
    "model.layers.0.norm.weight": ((6,), Replicate()),
    "model.layers.1.norm.weight": ((1,), Shard(0)),  # nothing on the second rank
    "model.norm.weight": ((6,), None),
}


def values(name: str, step: int) -> Tensor:
    generator = torch.Generator().manual_seed(1000 * step + sorted(SPREAD).index(name))
    return torch.randn(SPREAD[name][0], generator=generator, dtype=torch.float64)


def stepped(parameters: dict[str, Tensor], config: OptimizerConfig, mesh: Any = None) -> Optimizer:
    optimizer = Optimizer(parameters, config)
    for step in range(1, 6):
        for name, p in parameters.items():
            grad, how = values(name, step), SPREAD[name][1]
            p.grad = grad if mesh is None or how is None else distribute_tensor(grad, mesh, [how])
        optimizer.step(1.0 / step)
        optimizer.zero_grad()
    return optimizer


def on_two(config: OptimizerConfig) -> dict[str, Tensor]:
    mesh = init_device_mesh("cpu", (2,))
    parameters = {}
    for name, (_, how) in SPREAD.items():
        whole = values(name, 0)
        parameters[name] = torch.nn.Parameter(whole if how is None else distribute_tensor(whole, mesh, [how]))
    optimizer = stepped(parameters, config, mesh)
    state = {f"state/{name}": t for name, t in optimizer.state().items()}
    return {name: t.full_tensor() if hasattr(t, "full_tensor") else t for name, t in {**parameters, **state}.items()}


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_shards_are_updated_like_the_whole(kind: Any) -> None:
    config = OptimizerConfig(kind=kind, newton_schulz="fp32")
    parameters: dict[str, Tensor] = {name: torch.nn.Parameter(values(name, 0)) for name in SPREAD}
    wanted = dict(parameters) | {f"state/{name}": t for name, t in stepped(parameters, config).state().items()}
    for found in run_ranks(on_two, 2, config):
        assert found.keys() == wanted.keys()
        for name, t in found.items():
            torch.testing.assert_close(t.detach(), wanted[name].detach(), rtol=1e-12, atol=1e-12, msg=name)


def summed() -> Tensor:
    mesh = init_device_mesh("cpu", (2,))
    p = torch.nn.Parameter(distribute_tensor(torch.ones(4, dtype=torch.float64), mesh, [Replicate()]))
    half: Any = distribute_tensor(torch.full((4,), 0.5, dtype=torch.float64), mesh, [Replicate()])
    p.grad = DTensor.from_local(half.to_local(), mesh, [Partial()])
    optimizer = Optimizer({"model.norm.weight": p}, OptimizerConfig(kind="adamw", betas=(0.0, 0.0)))
    optimizer.step(1.0)
    return next(t for name, t in optimizer.state().items() if name.endswith("exp_avg")).full_tensor()  # type: ignore[attr-defined]


def test_a_gradient_that_ranks_have_parts_of_is_summed_first() -> None:
    for moment in run_ranks(summed, 2):
        assert torch.equal(moment, torch.ones(4, dtype=torch.float64))
