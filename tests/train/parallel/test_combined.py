"""Pipelines whose stages are sharded, copied and spread over tensor groups, against one process in float64."""

from functools import cache
from typing import Any

import pytest
from parallel_runs import Case, run
from same_training import assert_same_training

LOOP = {"optimizer": {"kind": "adamw"}, "clip": 0.1, "threads": 1}


def case(**parallel: Any) -> Case:
    return Case(parallel=parallel, arch={"layers": 4}, micro=1, documents=True, loop=LOOP)


FOUR = {
    **{
        f"shard {schedule}": case(pipeline=2, shard=2, schedule=schedule)
        for schedule in ("gpipe", "1f1b", "interleaved", "zero-bubble", "zero-bubble-v")
    },
    **{f"tensor {schedule}": case(pipeline=2, tensor=2, schedule=schedule) for schedule in ("1f1b", "zero-bubble-v")},
    **{f"replicate {schedule}": case(pipeline=2, replicate=2, schedule=schedule) for schedule in ("1f1b", "zero-bubble")},
}
EIGHT = {
    "shard tensor": case(pipeline=2, shard=2, tensor=2, schedule="interleaved"),
    "replicate shard": case(pipeline=2, replicate=2, shard=2, schedule="1f1b"),
}


@cache
def found(world: int) -> dict[str, dict[str, Any]]:
    cases = {1: {"alone": case()}, 4: FOUR, 8: EIGHT}[world]
    return dict(zip(cases, run(*cases.values())))


@pytest.mark.parametrize("name", FOUR)
def test_four(name: str) -> None:
    assert_same_training(found(4)[name], found(1)["alone"])


@pytest.mark.parametrize("name", EIGHT)
def test_eight(name: str) -> None:
    assert_same_training(found(8)[name], found(1)["alone"])
