"""Compares matrices, sequence and vocabulary spread over a tensor group, alone and with shards and copies, with one process in float64."""

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from parallel_runs import Case, alone, check_close, check_equal, fresh, run
from ranks import run_ranks

from corpusmill.train.options import ParallelConfig
from corpusmill.train.parallel.dims import ParallelDims, local_of
from corpusmill.train.parallel.model import prepare

ADAMW, MUON = {"optimizer": {"kind": "adamw"}}, {"optimizer": {"kind": "muon"}}
FULL = {"qk_norm": True, "tied": True}
TWO = {
    "AdamW, vocabulary that 2 does not divide, documents": Case({"tensor": 2}, loop=ADAMW, arch={"vocab_size": 51}, documents=True),
    "Muon, QK-norm, tied, documents, z-loss, micro-batches": Case({"tensor": 2}, loop=MUON, arch=FULL, documents=True, z_loss=0.1, micro=4),
    "layers computed again, NaN": Case({"tensor": 2}, loop={**ADAMW, "checkpointing": True}, poison=1),
}
FOUR = {
    "a head for each of four": Case({"tensor": 4}, loop=MUON, arch={"kv_heads": 4}),
    "shards, AdamW": Case({"shard": 2, "tensor": 2}, loop=ADAMW, arch={"vocab_size": 51}),
    "shards, Muon, QK-norm, tied, documents, micro-batches": Case({"shard": 2, "tensor": 2}, loop=MUON, arch=FULL, documents=True, micro=2),
    "ZeRO-2": Case({"shard": 2, "zero": 2, "tensor": 2}, loop=ADAMW, micro=2),
    "copies, AdamW, micro-batches": Case({"replicate": 2, "tensor": 2}, loop=ADAMW, micro=2, documents=True),
    "copies, Muon, NaN on one": Case({"replicate": 2, "tensor": 2}, loop=MUON, arch={"qk_norm": True}, poison=1),
}
CASES = TWO | FOUR


@cache
def together(world: int) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Runs all cases of a number of processes in the same ones, which are warm then, and each on one process."""
    cases = {2: TWO, 4: FOUR}[world]
    return dict(zip(cases, zip(run(*cases.values()), alone(*cases.values()))))


@pytest.mark.parametrize("name", [*TWO, *(pytest.param(name, marks=pytest.mark.long) for name in FOUR)])
def test_loss_gradients_and_steps_equal_one_process(name: str) -> None:
    case = CASES[name]
    many, one = together(ParallelConfig(**case.parallel).world)[name]
    assert one["skipped"] == (case.poison >= 0)
    check_equal(many, one)


@pytest.mark.long
def test_another_run_gives_the_same_bits() -> None:
    name = "shards, Muon, QK-norm, tied, documents, micro-batches"
    (first, _), (second,) = together(4)[name], run(CASES[name])
    assert first["lines"] == second["lines"] and first["norm"] == second["norm"]
    assert all(torch.equal(tensor, second["weights"][key]) for key, tensor in first["weights"].items())


def test_lower_precision_stays_as_close_as_its_rounding() -> None:
    case = Case({"tensor": 2}, loop={**ADAMW, "precision": "bf16-params"}, dtype=torch.float32)
    check_close(run(case)[0], run(replace(case, parallel={}))[0], 0.05)


def odd_length(case: Case) -> torch.Tensor:
    dims = ParallelDims.distributed(ParallelConfig(**case.parallel), torch.device("cpu"))
    ids = torch.arange(22).reshape(2, 11)
    parallel_model = prepare(fresh(case), dims, case.config)
    nats = parallel_model.nats(ids, ids + 1, torch.tensor([[0] * 4 + [1] * 7, [2] * 11]))
    return nats if dims.rank == 0 else torch.tensor([local_of(p).numel() for p in parallel_model.parameters.values()])


def test_evaluation_takes_rows_that_the_ranks_do_not_divide_and_weights_are_halved() -> None:
    whole = [p.numel() for p in fresh(Case()).parameters() if p.dim() == 2]
    nats, sizes = run_ranks(odd_length, 2, Case({"tensor": 2}))
    (expected,) = run_ranks(odd_length, 1, Case())
    torch.testing.assert_close(nats, expected, rtol=1e-10, atol=1e-12)
    assert sorted(sizes.tolist())[-len(whole) :] == sorted(size // 2 for size in whole)
