"""Compares the optimiser on shards, including uneven ones and unsharded parameters, with whole parameters in float64."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from parallel_runs import SHAPE
from ranks import run_ranks
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

from corpusmill.pipeline.errors import CorpusmillError
from corpusmill.train.checkpoint import States
from corpusmill.train.data import DataShare
from corpusmill.train.loop import fit
from corpusmill.train.losses import StepLoss, TokenObjective
from corpusmill.train.model import Llama, initialise
from corpusmill.train.optim import Optimizer
from corpusmill.train.options import Architecture, LoopConfig, OptimizerConfig, ParallelConfig
from corpusmill.train.parallel.dims import ParallelDims, local_of

# ---- optimizer ranks ---------------------------------------------------------------------------------

#: By name: the shape, and the placement on a mesh of 2 (None: a plain tensor).
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
@pytest.mark.rounding
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


@pytest.mark.rounding
def test_a_gradient_that_ranks_have_parts_of_is_summed_first() -> None:
    for moment in run_ranks(summed, 2):
        assert torch.equal(moment, torch.ones(4, dtype=torch.float64))


# ---- safety ranks ------------------------------------------------------------------------------------

# A step that one rank alone finds dangerous is skipped by all, and leaves every weight and moment unchanged.

#: Steps before the poisoned ones, enough for the guards to judge by.
HEALTHY = 22
LAYOUTS: dict[str, dict[str, Any]] = {"copies": {"replicate": 2}, "shards": {"shard": 2}}


class Poisoned(TokenObjective):
    """Random rows; from step HEALTHY on, those of the last share are bad, for `steps` steps."""

    def __init__(self, poison: str, steps: int):
        self.poison, self.steps = poison, steps

    def batches(self, step: int, share: DataShare) -> Iterator[Any]:
        ids = torch.randint(SHAPE["vocab_size"], (4, 17), generator=torch.Generator().manual_seed(step))
        begin, end = share.bounds(4)
        bad = HEALTHY <= step < HEALTHY + self.steps and share.index == share.of - 1
        targets = ids[begin:end, 1:].clone()
        if self.poison == "masked" and step >= HEALTHY:
            targets[:] = -100
        yield (ids[begin:end, :-1], targets, None), bad

    def loss(self, model: Llama, batch: Any) -> StepLoss:
        tokens, bad = batch
        part = super().loss(model, tokens)
        if bad and self.poison == "nan":
            return StepLoss(part.total * float("nan"), part.count)
        if bad and self.poison == "spike":
            return StepLoss(part.total * 50, part.count)
        if bad and self.poison == "explodes":
            return StepLoss(part.total.detach() + 1e5 * (part.total - part.total.detach()), part.count)
        return part


def named(step: int, share: DataShare, piece: int) -> list[str]:
    return [f"{step}/{share.index} of {share.of}/{piece}"]


def train(folder: str, parallel: dict[str, Any], kind: str, poison: str, bad: int, max_skips: int = 10) -> dict[str, Any]:
    """Takes HEALTHY steps and `bad` poisoned ones. Returns this rank's weights and moments before and after the poisoned ones, and the
    number of targets trained on.
    """
    dims = ParallelDims.distributed(ParallelConfig.model_validate(parallel), torch.device("cpu"))
    model = Llama(Architecture.model_validate(SHAPE))
    initialise(model, 1)
    config = LoopConfig.model_validate(
        {"steps": HEALTHY + bad, "save_every": HEALTHY, "schedule": "constant", "optimizer": {"kind": kind}, "max_skips": max_skips}
    )
    saved: list[dict[str, Any]] = []

    def keep(self: States, step: int, tensors: dict[str, torch.Tensor], record: Any, score: Any = None) -> None:
        copies = {name: local_of(t).detach().clone() for name, t in tensors.items()}
        saved.append({"tensors": copies, "count": record["so_far"]["count"], "skipped": record["so_far"]["skipped"]})

    States.save = keep  # type: ignore[method-assign, assignment]
    files = {"state": Path(folder) / "state", "log": Path(folder) / "log.jsonl"}
    fit(model, Poisoned(poison, bad), config, dims=dims, describe=named, **files)
    before, after = saved
    return {"before": before, "after": after}


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("dims", "kind", "poison", "reason"),
    [
        ("shards", "adamw", "nan", "loss is nan"),
        ("copies", "muon", "spike", "loss .* is a spike"),
        ("shards", "adamw", "explodes", "gradient norm .* is a spike"),
    ],
)
def test_a_bad_step_on_one_rank_is_skipped_by_both(tmp_path: Path, dims: str, kind: str, poison: str, reason: str) -> None:
    ranks = run_ranks(train, 2, str(tmp_path), LAYOUTS[dims], kind, poison, 2)
    for rank in ranks:
        old, new = rank["before"], rank["after"]
        assert new["skipped"] == 2 and old["skipped"] == 0 and new["count"] == old["count"] > 0
        assert all(torch.equal(t, new["tensors"][name]) for name, t in old["tensors"].items())
        assert all(t.isfinite().all() for t in new["tensors"].values())
    if dims == "copies":
        assert all(torch.equal(t, ranks[1]["after"]["tensors"][name]) for name, t in ranks[0]["after"]["tensors"].items())
    skipped = [line for line in lines(tmp_path) if "skipped" in line]
    assert [line["step"] for line in skipped] == [HEALTHY, HEALTHY + 1] and all(re.search(reason, line["skipped"]) for line in skipped)
    blamed = ["1 of 2/0"] if poison == "nan" else ["0 of 2/0", "1 of 2/0"]
    assert skipped[0]["documents"] == [f"{HEALTHY}/{place}" for place in blamed]


def test_a_step_without_targets_on_any_rank_has_no_gradient(tmp_path: Path) -> None:
    for rank in run_ranks(train, 2, str(tmp_path), {"shard": 2}, "adamw", "masked", 2):
        assert rank["after"]["skipped"] == 0 and all(t.isfinite().all() for t in rank["after"]["tensors"].values())
    assert [(line["loss"], line["grad_norm"], line["count"]) for line in lines(tmp_path)[HEALTHY:]] == [(0.0, 0.0, 0)] * 2


def test_all_ranks_stop_together_after_too_many_skips(tmp_path: Path) -> None:
    with pytest.raises(CorpusmillError, match=rf"3 steps in a row had to be skipped; at step {HEALTHY + 2} the loss is nan"):
        run_ranks(train, 2, str(tmp_path), {"replicate": 2}, "adamw", "nan", 9, 3)
