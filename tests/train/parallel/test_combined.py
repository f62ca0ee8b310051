"""Pipelines whose stages are sharded, copied, or spread over tensor groups, against one process in float64."""

from functools import cache
from typing import Any

import pytest
from parallel_runs import Case, check_equal, run

LOOP = {"optimizer": {"kind": "adamw"}, "clip": 0.1, "threads": 1}
MUON = {**LOOP, "optimizer": {"kind": "muon"}}


def case(parallel: dict[str, Any], loop: dict[str, Any] = LOOP) -> Case:
    return Case(parallel={"pipeline": 2, **parallel} if parallel else {}, arch={"layers": 4}, micro=1, documents=True, loop=loop)


SHARD, TENSOR, COPIES = {"shard": 2}, {"tensor": 2}, {"replicate": 2}
FOUR = {
    "shards gpipe": case({**SHARD, "schedule": "gpipe"}),
    "shards 1f1b": case({**SHARD, "schedule": "1f1b"}),
    "shards interleaved": case({**SHARD, "schedule": "interleaved", "zero": 1}),
    "shards zero-bubble": case({**SHARD, "schedule": "zero-bubble"}, {**LOOP, "checkpointing": True}),
    "shards zero-bubble-v muon": case({**SHARD, "schedule": "zero-bubble-v"}, MUON),
    "tensor 1f1b": case({**TENSOR, "schedule": "1f1b"}),
    "tensor interleaved": case({**TENSOR, "schedule": "interleaved"}, {**LOOP, "checkpointing": True}),
    "tensor zero-bubble-v": case({**TENSOR, "schedule": "zero-bubble-v"}),
    "copies 1f1b": case({**COPIES, "schedule": "1f1b"}),
    "copies zero-bubble": case({**COPIES, "schedule": "zero-bubble"}),
}
EIGHT = {
    "shards tensor 1f1b muon": case({**SHARD, **TENSOR, "schedule": "1f1b"}, MUON),
    "shards tensor zero-bubble": case({**SHARD, **TENSOR, "schedule": "zero-bubble"}),
    "copies shards interleaved": case({**COPIES, **SHARD, "schedule": "interleaved"}),
    "copies tensor gpipe": case({**COPIES, **TENSOR, "schedule": "gpipe"}),
}


@cache
def found(processes: int) -> dict[str, dict[str, Any]]:
    """All cases on so many processes, which are started once; on one, the training of each optimiser."""
    cases = {1: {"adamw": case({}), "muon": case({}, MUON)}, 4: FOUR, 8: EIGHT}[processes]
    return dict(zip(cases, run(*cases.values())))


@pytest.mark.parametrize("name", [*FOUR, *EIGHT])
def test_every_combination_equals_one_process(name: str) -> None:
    check_equal(found(4 if name in FOUR else 8)[name], found(1)["muon" if "muon" in name else "adamw"])
