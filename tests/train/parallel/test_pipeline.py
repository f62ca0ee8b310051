"""A model whose layers lie on two or four ranks, under every schedule, against one process in float64."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from layouts import CPU, STEPS, Task, Training, check_equal, fresh, train_all, train_alone
from objectives import Goal
from ranks import run_ranks

from corpusmill.pipeline.errors import InputError
from corpusmill.train.objective import Objective, StepLoss
from corpusmill.train.options import LoopConfig, ParallelConfig
from corpusmill.train.parallel.layout import Layout
from corpusmill.train.parallel.prepare import prepare

SCHEDULES = ("gpipe", "1f1b", "interleaved", "zero-bubble", "zero-bubble-v")
TWO: dict[str, dict[str, Any]] = {
    **{schedule: {"sizes": {"pipeline": 2, "schedule": schedule}} for schedule in SCHEDULES},
    "muon": {"sizes": {"pipeline": 2}, "optimizer": {"kind": "muon"}},
    "one document a row": {"sizes": {"pipeline": 2, "schedule": "interleaved"}, "segments": False},
    "micro-batches of two": {"sizes": {"pipeline": 2}, "micro_batch": 2},
}
FOUR: dict[str, dict[str, Any]] = {schedule: {"sizes": {"pipeline": 4, "schedule": schedule}} for schedule in ("gpipe", "1f1b")}


@pytest.fixture(scope="module")
def on_two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Training]]:
    again = {f"{schedule} again": TWO[schedule] for schedule in ("1f1b", "zero-bubble-v")}
    return run_ranks(train_all, 2, tmp_path_factory.mktemp("two"), TWO | again)


@pytest.fixture(scope="module")
def on_four(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Training]]:
    return run_ranks(train_all, 4, tmp_path_factory.mktemp("four"), FOUR)


@pytest.mark.parametrize("case", TWO)
def test_two_ranks_equal_one_process(case: str, on_two: list[dict[str, Training]], tmp_path: Path) -> None:
    one = train_alone(tmp_path, **TWO[case])
    assert len(one.log) == STEPS and max(line["grad_norm"] for line in one.log) > 0.1  # so clipping is at work
    check_equal([rank[case] for rank in on_two], one)


@pytest.mark.parametrize("case", FOUR)
def test_four_ranks_with_unequal_layers_equal_one_process(case: str, on_four: list[dict[str, Training]], tmp_path: Path) -> None:
    check_equal([rank[case] for rank in on_four], train_alone(tmp_path, **FOUR[case]))


@pytest.mark.parametrize("case", ["1f1b", "zero-bubble-v"])
def test_another_run_gives_the_same_bits(case: str, on_two: list[dict[str, Training]]) -> None:
    for rank in on_two:
        first, second = rank[case], rank[f"{case} again"]
        assert first.log == second.log and (first.loss, first.norm) == (second.loss, second.norm)
        assert all(torch.equal(tensor, second.weights[name]) for name, tensor in first.weights.items())


def refusals() -> list[str]:
    """What a pipeline of two says of steps that it can't take."""

    def refusal(schedule: str, objective: Objective) -> str:
        config = ParallelConfig.model_validate({"pipeline": 2, "schedule": schedule})
        computation = prepare(fresh(), Layout.distributed(config, CPU), LoopConfig())
        with pytest.raises(InputError) as caught:
            computation.backward(objective, 0, 1.0)
        return str(caught.value)

    pairs = Goal(lambda model, step: StepLoss(model(torch.zeros(1, 1).long()).sum(), 1))
    found = [refusal("1f1b", Task(8)), refusal("1f1b", Task(3)), refusal("1f1b", pairs)]
    dist.barrier()
    return found


def test_steps_that_a_pipeline_cannot_take_are_refused_in_a_sentence() -> None:
    for few, uneven, pairs in run_ranks(refusals, 2):
        assert few == (
            "micro_batch: a step has 1 micro-batches on each copy of the model, and the schedule '1f1b' on 2 ranks needs 2 or more."
        )
        assert uneven == "micro_batch: the micro-batches of a pipeline must have equally many rows, so it has to divide a rank's rows."
        assert pairs == "parallel.pipeline: only the loss of single tokens can be computed on the last stage; set it to 1."
