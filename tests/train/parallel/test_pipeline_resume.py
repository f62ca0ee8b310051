"""Pipelines that are killed and go on: bit by bit on the same layout, within rounding on another."""

from pathlib import Path
from typing import Any

import pytest
from ranks import run_ranks
from resuming import train

ZERO_BUBBLE = {"pipeline": 2, "schedule": "zero-bubble"}


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("parallel", [{"pipeline": 2}, {"pipeline": 2, "shard": 2}], ids=str)
def test_a_killed_pipeline_goes_on_to_the_same_bytes(tmp_path: Path, parallel: dict[str, Any]) -> None:
    world = parallel["pipeline"] * parallel.get("shard", 1)
    run_ranks(train, world, str(tmp_path / "whole"), parallel, {})
    with pytest.raises(RuntimeError, match="rank 1 ended with -9"):
        run_ranks(train, world, str(tmp_path / "killed"), parallel, {}, 6, 1)
    again = run_ranks(train, world, str(tmp_path / "killed"), parallel, {})
    assert [result["begin"] for result in again] == [4] * world
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


def test_a_pipeline_goes_on_where_one_process_stopped_and_the_other_way_round(tmp_path: Path) -> None:
    alone = train(str(tmp_path / "alone"), {}, {})
    run_ranks(train, 2, str(tmp_path / "parted"), ZERO_BUBBLE, {"steps": 4, "schedule": "constant"})
