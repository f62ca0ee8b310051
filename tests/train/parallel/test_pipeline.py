"""A model whose layers lie on two or four ranks, under every schedule, against one process in float64."""

from pathlib import Path
from typing import Any

import pytest
import torch
from layouts import ARCH, STEPS, Training, check_equal, train
from ranks import run_ranks

SCHEDULES = ("gpipe", "1f1b", "interleaved", "zero-bubble", "zero-bubble-v")
#: Trainings on two ranks, all in the same processes: the schedule and what else is set.
CASES: dict[str, dict[str, Any]] = {
    **{schedule: {"schedule": schedule} for schedule in SCHEDULES},
    "again": {"schedule": "zero-bubble"},
    "muon": {"schedule": "1f1b", "optimizer": {"kind": "muon"}},
    "one document a row": {"schedule": "interleaved", "segments": False},
    "micro-batches of two": {"schedule": "1f1b", "micro_batch": 2},
}


def train_all(folder: Path, pipeline: int, cases: dict[str, dict[str, Any]]) -> dict[str, Training]:
    import torch.distributed as dist

    found = {}
    for name, options in cases.items():
        sizes = {"pipeline": pipeline, "schedule": options["schedule"]}
        rest = {key: value for key, value in options.items() if key != "schedule"}
        found[name] = train(folder / name / str(dist.get_rank()), sizes, **rest)
    return found


@pytest.fixture(scope="module")
def on_two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Training]]:
    return run_ranks(train_all, 2, tmp_path_factory.mktemp("two"), 2, CASES)


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_equal_one_process(case: str, on_two: list[dict[str, Training]], tmp_path: Path) -> None:
    options = {key: value for key, value in CASES[case].items() if key != "schedule"}
    one = train(tmp_path, {}, **options)
    assert len(one.log) == STEPS and max(line["grad_norm"] for line in one.log) > 0.1  # so clipping is at work
    check_equal([rank[case] for rank in on_two], one)
