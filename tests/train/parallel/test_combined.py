"""Compares pipelines whose stages are sharded, copied, or spread over tensor groups with one process in float64."""

from functools import cache
from typing import Any

import pytest
from parallel_runs import Case, alone, check_equal, run

LOOP = {"optimizer": {"kind": "adamw"}, "clip": 0.1, "threads": 1}
MUON = {**LOOP, "optimizer": {"kind": "muon"}}


def case(parallel: dict[str, Any], loop: dict[str, Any] = LOOP, arch: dict[str, Any] | None = None, **rest: Any) -> Case:
    micro = 2 if "tensor" in parallel and "shard" not in parallel else 1  # four micro-batches in place of eight
    return Case(parallel={"pipeline": 2, **parallel}, arch={"layers": 4, **(arch or {})}, micro=micro, documents=True, loop=loop, **rest)


ONE_A_STAGE = {"layers": 2}  # in layers this small, tensor groups cost a hundred times the arithmetic
SHARD, TENSOR, COPIES = {"shard": 2}, {"tensor": 2}, {"replicate": 2}
FOUR = {
    "shards 1f1b": case({**SHARD, "schedule": "1f1b"}),
    "shards interleaved": case({**SHARD, "schedule": "interleaved", "zero": 1}),
    "shards zero-bubble": case({**SHARD, "schedule": "zero-bubble"}, {**LOOP, "checkpointing": True}),
    "shards zero-bubble muon": case({**SHARD, "schedule": "zero-bubble"}, MUON),
    "tensor 1f1b": case({**TENSOR, "schedule": "1f1b"}, arch=ONE_A_STAGE),
    "tensor interleaved": case({**TENSOR, "schedule": "interleaved"}, {**LOOP, "checkpointing": True}),
    "tensor zero-bubble, norms of queries and keys": case({**TENSOR, "schedule": "zero-bubble"}, arch={"qk_norm": True}),
    "copies 1f1b, NaN in one micro-batch": case({**COPIES, "schedule": "1f1b"}, poison=2),
    "copies zero-bubble": case({**COPIES, "schedule": "zero-bubble"}),
}
EIGHT = {
    "shards tensor 1f1b muon": case({**SHARD, **TENSOR, "schedule": "1f1b"}, MUON, ONE_A_STAGE),
    "shards tensor zero-bubble, z-loss": case({**SHARD, **TENSOR, "schedule": "zero-bubble"}, z_loss=0.1),
    "copies shards interleaved": case({**COPIES, **SHARD, "schedule": "interleaved"}),
    "copies tensor 1f1b": case({**COPIES, **TENSOR, "schedule": "1f1b"}, arch=ONE_A_STAGE),
}


CASES = FOUR | EIGHT


@cache
def found(processes: int) -> dict[str, dict[str, Any]]:
    """Runs all cases on a number of processes, which are started once."""
    cases = FOUR if processes == 4 else EIGHT
    return dict(zip(cases, run(*cases.values())))


@cache
def on_one() -> dict[str, dict[str, Any]]:
    return dict(zip(CASES, alone(*CASES.values())))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.long
def test_every_combination_equals_one_process(name: str) -> None:
    one = on_one()[name]
    assert one["lines"][0]["grad_norm"] > 0.1  # so gradients are really clipped
    assert one["skipped"] == (CASES[name].poison >= 0)
    check_equal(found(4 if name in FOUR else 8)[name], one)
