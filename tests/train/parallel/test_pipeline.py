"""A model whose layers lie on two or four ranks, under every schedule, against one process in float64."""

from functools import cache
from typing import Any

import pytest
import torch
import torch.distributed as dist
from objectives import Goal
from parallel_runs import Case, Rows, check_equal, fresh, run
from ranks import run_ranks

from corpusmill.pipeline.errors import InputError
from corpusmill.train.objective import Objective, StepLoss
from corpusmill.train.options import LoopConfig, ParallelConfig
from corpusmill.train.parallel.layout import ParallelDims
from corpusmill.train.parallel.prepare import prepare

SCHEDULES = ("gpipe", "1f1b", "interleaved", "zero-bubble", "zero-bubble-v")


def case(parallel: dict[str, Any], **changes: Any) -> Case:
    loop = {"optimizer": {"kind": "adamw"}, "clip": 0.1, "threads": 1}
    return Case(**{"parallel": parallel, "arch": {"layers": 6}, "micro": 1, "documents": True, "loop": loop} | changes)


def in_fp32(precision: str) -> dict[str, Any]:
    """The same sums in the same order: to the last bit."""
    return {"dtype": torch.float32, "loop": {"optimizer": {"kind": "adamw"}, "clip": 0.1, "threads": 1, "precision": precision}}


TWO = {
    **{schedule: case({"pipeline": 2, "schedule": schedule}) for schedule in SCHEDULES},
    "muon": case({"pipeline": 2}, loop={"optimizer": {"kind": "muon"}}),
    "one document a row": case({"pipeline": 2, "schedule": "interleaved"}, documents=False),
    "micro-batches of two": case({"pipeline": 2}, micro=2),
    "bf16": case({"pipeline": 2, "schedule": "zero-bubble"}, **in_fp32("bf16")),
    "fp16": case({"pipeline": 2, "schedule": "interleaved"}, **in_fp32("fp16")),
    "bf16-params": case({"pipeline": 2}, **in_fp32("bf16-params")),
}
ALONE = {
    **{precision: case({}, **in_fp32(precision)) for precision in ("bf16", "fp16", "bf16-params")},
    "adamw": case({}),
    "muon": case({}, loop=TWO["muon"].loop),
    "one document a row": case({}, documents=False),
    "micro-batches of two": case({}, micro=2),
}
FOUR = {schedule: case({"pipeline": 4, "schedule": schedule}) for schedule in ("gpipe", "1f1b")}


@cache
def found(world: int) -> dict[str, dict[str, Any]]:
    """All cases on so many ranks, in the same processes; on one, those of `ALONE`."""
    cases = {1: ALONE, 2: TWO | {f"{name} again": TWO[name] for name in ("1f1b", "zero-bubble-v")}, 4: FOUR}[world]
    return dict(zip(cases, run(*cases.values())))


def alone(name: str) -> dict[str, Any]:
    return found(1)[name if name in ALONE else "adamw"]


@pytest.mark.parametrize("name", TWO)
def test_two_ranks_equal_one_process(name: str) -> None:
    one = alone(name)
    assert max(line["grad_norm"] for line in one["lines"]) > 0.1  # so that clipping is at work
    check_equal(found(2)[name], one)


@pytest.mark.parametrize("name", FOUR)
def test_four_ranks_with_unequal_layers_equal_one_process(name: str) -> None:
    check_equal(found(4)[name], alone(name))


@pytest.mark.parametrize("name", ["1f1b", "zero-bubble-v"])
def test_another_run_gives_the_same_bits(name: str) -> None:
    first, second = found(2)[name], found(2)[f"{name} again"]
    assert first["lines"] == second["lines"] and torch.equal(first["sums"], second["sums"])
    assert all(torch.equal(tensor, second["weights"][key]) for key, tensor in first["weights"].items())


def refusals() -> list[str]:
    """What a pipeline of two says of steps that it can't take."""

    def refusal(schedule: str, micro: int, objective: Objective | None = None, rows: int = 8) -> str:
        config = ParallelConfig.model_validate({"pipeline": 2, "schedule": schedule})
        step = case({}, micro=micro, rows=rows)
        model = fresh(step)
        parallel_model = prepare(model, ParallelDims.distributed(config, torch.device("cpu")), LoopConfig())
        with pytest.raises(InputError) as caught:
            parallel_model.backward(objective or Rows(step, model.arch), 0, 1.0)
        return str(caught.value)

    pairs = Goal(lambda model, step: StepLoss(model(torch.zeros(1, 1).long()).sum(), 1))
    said = [refusal("1f1b", 8), refusal("zero-bubble", 1, rows=7), refusal("1f1b", 3), refusal("1f1b", 1, pairs)]
    dist.barrier()
    return said


def test_steps_that_a_pipeline_cannot_take_are_refused_in_a_sentence() -> None:
    for few, odd, uneven, pairs in run_ranks(refusals, 2):
        begin = "micro_batch: a step has {} micro-batches on each copy of the model, and the schedule {} on 2 ranks needs {}."
        assert few == begin.format(1, "'1f1b'", "2 or more") and odd == begin.format(7, "'zero-bubble'", "a multiple of 2")
        assert uneven == "micro_batch: the micro-batches of a pipeline must have equally many rows, so it has to divide a rank's rows."
        assert pairs == "parallel.pipeline: only the loss of single tokens can be computed on the last stage; set it to 1."
