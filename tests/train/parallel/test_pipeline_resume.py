"""Pipelines that are killed and go on: bit by bit on the same layout, within rounding on another."""

from pathlib import Path
from typing import Any

import pytest
from ranks import run_ranks
from resuming import files, rows_of, rows_seen, train

pytestmark = pytest.mark.rounding

AT_ONCE = {"async_save": False}  # a process that is killed in step 6 has surely saved the state after step 3


@pytest.mark.parametrize("parallel", [{"pipeline": 2}, {"pipeline": 2, "shard": 2}], ids=str)
def test_a_killed_pipeline_goes_on_to_the_same_bytes(tmp_path: Path, parallel: dict[str, Any]) -> None:
    world = parallel["pipeline"] * parallel.get("shard", 1)
    run_ranks(train, world, str(tmp_path / "whole"), parallel, AT_ONCE)
    with pytest.raises(RuntimeError, match="rank 1 ended with -9"):
        run_ranks(train, world, str(tmp_path / "killed"), parallel, AT_ONCE, 6, 1)
    again = run_ranks(train, world, str(tmp_path / "killed"), parallel, AT_ONCE)
    assert [result["begin"] for result in again] == [4] * world
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


def test_a_pipeline_goes_on_where_one_process_was_killed_and_one_process_where_a_pipeline_was(tmp_path: Path) -> None:
    alone = train(str(tmp_path / "alone"), {}, AT_ONCE)
    with pytest.raises(RuntimeError, match="rank 0 ended with -9"):
        run_ranks(train, 1, str(tmp_path / "parted"), {}, AT_ONCE, 6)
    with pytest.raises(RuntimeError, match="rank 0 ended with -9"):
        run_ranks(train, 4, str(tmp_path / "parted"), {"pipeline": 2, "shard": 2, "schedule": "gpipe"}, AT_ONCE, 10)
    again = train(str(tmp_path / "parted"), {}, AT_ONCE)
    assert again["begin"] == 8
    for folder, steps, shares in (("alone", range(12), 1), ("parted", range(4, 8), 2), ("parted", range(8, 12), 1)):
        assert all(rows_seen(tmp_path / folder, step, shares) == rows_of(step).tolist() for step in steps)
    assert again["losses"] == pytest.approx(alone["losses"], rel=1e-6)
