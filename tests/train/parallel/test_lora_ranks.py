"""Adapters of a model that is copied, sharded, spread or cut, against one process in float64."""

from dataclasses import replace

import pytest
from parallel_runs import Case, check_equal, run

LAYOUTS = {
    "copies": {"replicate": 2},
    "ZeRO-3": {"shard": 2},
    "tensor": {"tensor": 2},
    "zero-bubble": {"pipeline": 2, "schedule": "zero-bubble"},
}
ONE = Case(loop={"optimizer": {"kind": "adamw"}}, lora={"rank": 3, "alpha": 6}, arch={"layers": 4}, micro=2, documents=True)


@pytest.mark.parametrize("layouts", [["copies", "ZeRO-3"], pytest.param(["tensor", "zero-bubble"], marks=pytest.mark.long)])
def test_loss_gradients_and_five_steps_equal_one_process(layouts: list[str]) -> None:
    (one,) = run(ONE)
    assert len(one["weights"]) == 4 * 7 * 2 and all(name.endswith((".lora_A", ".lora_B")) for name in one["weights"])
    for many in run(*(replace(ONE, parallel=LAYOUTS[name]) for name in layouts)):
        check_equal(many, one)
