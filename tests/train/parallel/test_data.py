"""Compares copies and shards of a model that see different rows with one process in float64."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from parallel_runs import Case, Rows, alone, check_close, check_equal, fresh, run
from ranks import run_ranks

from corpusmill.train.data import Batch, DataShare
from corpusmill.train.loop import fit
from corpusmill.train.optim import owners
from corpusmill.train.options import ParallelConfig
from corpusmill.train.parallel.data import whole
from corpusmill.train.parallel.dims import ParallelDims, local_of
from corpusmill.train.parallel.model import optimizer_of, prepare

ADAMW, MUON = {"optimizer": {"kind": "adamw"}}, {"optimizer": {"kind": "muon"}}
TWO = {
    "copies, AdamW, micro-batches": Case({"replicate": 2}, loop=ADAMW, micro=2),
    "copies, Muon, documents, NaN on one rank": Case({"replicate": 2}, loop=MUON, documents=True, poison=1),
    "ZeRO-1, Muon, tied, micro-batches": Case({"shard": 2, "zero": 1}, loop=MUON, arch={"tied": True}, micro=3),
    "ZeRO-2, AdamW, micro-batches, documents": Case({"shard": 2, "zero": 2}, loop=ADAMW, micro=1, documents=True),
    "ZeRO-3, Muon, tied, documents, micro-batches": Case({"shard": 2}, loop=MUON, arch={"tied": True}, micro=2, documents=True),
    "ZeRO-3, AdamW, vocabulary that 2 does not divide, layers computed again, NaN on one rank": Case(
        {"shard": 2}, loop={**ADAMW, "checkpointing": True}, arch={"vocab_size": 51}, poison=1
    ),
}
THREE = {"rows that three ranks share": Case({"shard": 3}, loop=MUON, rows=9, micro=2, documents=True)}
FOUR = {
    "hybrid, AdamW, micro-batches": Case({"replicate": 2, "shard": 2}, loop=ADAMW, micro=1),
    "hybrid ZeRO-2, Muon": Case({"replicate": 2, "shard": 2, "zero": 2}, loop=MUON, arch={"qk_norm": True}),
}
CASES = TWO | THREE | FOUR


@cache
def together(world: int) -> dict[str, dict[str, Any]]:
    """Runs all cases of a number of processes in the same ones, which are warm then."""
    cases = {2: TWO, 3: THREE, 4: FOUR}[world]
    return dict(zip(cases, run(*cases.values())))


@cache
def on_one() -> dict[str, dict[str, Any]]:
    return dict(zip(CASES, alone(*CASES.values())))


@pytest.mark.parametrize("name", CASES)
def test_loss_gradients_and_steps_equal_one_process(name: str) -> None:
    case, one = CASES[name], on_one()[name]
    assert one["lines"][0]["grad_norm"] > 0.5  # so gradients are really clipped
    assert one["skipped"] == (case.poison >= 0)
    check_equal(together(ParallelConfig(**case.parallel).world)[name], one)


def test_other_processes_give_the_same_bits() -> None:
    names = ["ZeRO-3, Muon, tied, documents, micro-batches", "copies, AdamW, micro-batches"]
    for name, second in zip(names, run(*(CASES[name] for name in names))):
        first = together(2)[name]
        assert first["lines"] == second["lines"] and first["norm"] == second["norm"]
        assert all(torch.equal(tensor, second["weights"][key]) for key, tensor in first["weights"].items())


class Stopped(BaseException):
    """Ends a training as abruptly as a signal."""


def straight_and_stopped(case: Case, folder: Path) -> list[dict[str, torch.Tensor]]:
    """Returns the weights of a whole training, and of one that ends after its fourth step and resumes from the state after its third."""

    class UntilFour(Rows):
        def batches(self, step: int, share: DataShare) -> Iterator[Batch]:
            if step == 4:
                raise Stopped
            return super().batches(step, share)

    dims = ParallelDims.distributed(ParallelConfig(**case.parallel), torch.device("cpu"))
    found = []
    for kind, place, begin in ((Rows, "straight", 0), (UntilFour, "stopped", None), (Rows, "stopped", 3)):
        model = fresh(case)
        with suppress(Stopped):
            files = {"state": folder / place / "state", "log": folder / place / "log.jsonl"}
            result = fit(model, kind(case, model.arch), case.config, dims=dims, **files)
            assert result.resumed_from == begin
            found.append({name: whole(p.detach()) for name, p in result.parallel_model.parameters.items()})
    return found


@pytest.mark.parametrize("parallel", [{"replicate": 4}, pytest.param({"replicate": 2, "shard": 2}, marks=pytest.mark.long)])
def test_a_run_that_was_stopped_has_the_bits_of_one_that_was_not(parallel: dict[str, int], tmp_path: Path) -> None:
    """With four copies, the order of a sum depends on its place in DDP's buckets, which change after the first backward pass."""
    case = Case(parallel, loop={**ADAMW, "steps": 5, "save_every": 3, "async_save": False}, dtype=torch.float32, arch={"layers": 6})
    for straight, resumed in run_ranks(straight_and_stopped, 4, case, tmp_path):
        assert all(torch.equal(resumed[name], expected) for name, expected in straight.items())


def changed_after_a_look(*cases: Case) -> list[torch.Tensor]:
    """Returns the nats of models that were measured once, and then got other weights."""
    found = []
    for case in cases:
        dims = ParallelDims.distributed(ParallelConfig(**case.parallel), torch.device("cpu"))
        parallel_model = prepare(fresh(case), dims, case.config)
        rows = Rows(case, fresh(case).arch).rows(0)
        parallel_model.nats(*rows)
        for p in parallel_model.parameters.values():
            local_of(p.detach()).mul_(0.5)
        found.append(parallel_model.nats(*rows))
    return found


def test_a_look_at_new_weights_sees_them() -> None:
    ((expected,),) = run_ranks(changed_after_a_look, 1, Case())
    for each in run_ranks(changed_after_a_look, 2, Case({"shard": 2, "zero": 2}), Case({"shard": 2})):
        for nats in each:
            torch.testing.assert_close(nats, expected, rtol=1e-10, atol=0)


ROUNDED = [
    Case({"shard": 2}, loop={**ADAMW, "precision": "bf16-params"}, dtype=torch.float32, micro=2),
    Case({"replicate": 2}, loop={**MUON, "precision": "bf16"}, dtype=torch.float32, micro=2),
]


def test_lower_precisions_stay_as_close_as_their_rounding() -> None:
    for many, one in zip(run(*ROUNDED), run(*(replace(case, parallel={}) for case in ROUNDED))):
        check_close(many, one, 0.03)


def held(*cases: Case) -> list[dict[str, int]]:
    """Returns how many numbers a rank has of weights, gradients and moments, by case."""
    found = []
    for case in cases:
        dims = ParallelDims.distributed(ParallelConfig(**case.parallel), torch.device("cpu"))
        model = fresh(case)
        parallel_model = prepare(model, dims, case.config)
        optimizer = optimizer_of(parallel_model, dims, case.config.optimizer)
        parallel_model.backward(Rows(case, model.arch), 0)
        weights = [local_of(p).numel() for p in parallel_model.parameters.values()]
        grads = [local_of(p.grad).numel() for p in parallel_model.parameters.values() if p.grad is not None]
        moments = [local_of(t).numel() for name, t in optimizer.state().items() if name.endswith("exp_avg")]
        found.append({"weights": sum(weights), "grads": sum(grads), "moments": sum(moments)})
    return found


def test_ranks_have_a_share_of_what_is_shared() -> None:
    every = sum(p.numel() for p in fresh(Case()).parameters())
    ranks = run_ranks(held, 2, *(Case({"shard": 2, "zero": zero}, loop=ADAMW) for zero in (1, 2, 3)))
    for shared, parts in zip((["moments"], ["weights", "grads", "moments"], ["weights", "grads", "moments"]), zip(*ranks)):
        for kind in ("weights", "grads", "moments"):
            assert sum(part[kind] for part in parts) == (every if kind in shared else 2 * every)
            if kind in shared:
                assert max(part[kind] for part in parts) < 0.55 * every


def test_owners_are_balanced_and_the_same_everywhere() -> None:
    sizes = {"a": 7, "b": 7, "c": 5, "d": 4, "e": 1}
    parameters = {name: torch.empty(size) for name, size in sizes.items()}
    expected = {"a": 0, "b": 1, "c": 0, "d": 1, "e": 1}
    assert owners(parameters, 2) == owners(dict(reversed(parameters.items())), 2) == expected
    assert set(owners(parameters, 1).values()) == {0}
