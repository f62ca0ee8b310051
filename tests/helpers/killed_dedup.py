"""Runs the dedup stage of a copy of a run, once for each step that is killed (SIGKILL), and then to its end.

    python tests/helpers/killed_dedup.py RUN INDEX COPIES CONFIG

RUN's earlier stages are finished; INDEX is a folder with earlier runs. Each run has a copy of it at COPIES/index, as CONFIG (JSON) says.
For each row of the stage's manifest, COPIES/<row>-before/{run,index} belong to a run that was killed after it had published the files of
that task and before it wrote the row; COPIES/<row>-after/ belongs to one that was killed right after the row. Prints the number of rows.
"""

import os
import shutil
import sys
from pathlib import Path

from killing import in_child, killed_at

from corpusmill.dedup import candidates, external_sort
from corpusmill.dedup.stage import DedupStage
from corpusmill.pipeline.engine import InlineEngine
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.progress import Progress


def perform(copy: Path, config: str) -> None:
    stage = DedupStage(DedupStage.Config.model_validate_json(config))
    StageRun(stage, Storage(str(copy / "run")), {"filter": None, "dedup": stage.config}, [], InlineEngine(), Progress(False)).execute()


def interrupted(copy: Path, config: str, row: int, after: bool) -> None:
    killed_at(row, after)
    perform(copy, config)


def main(run: Path, index: Path, copies: Path, config: str) -> None:
    os.fsync = lambda _: None  # the processes die, but the machine does not
    candidates.GROUP_WORDS = 3_000  # so that documents are split into several groups
    external_sort.FAN_IN, external_sort.FEW = 2, 1  # and the groups of three shards are merged
    shutil.copytree(run, copies / "first/run")
    shutil.copytree(index, copies / "index")
    perform(copies / "first", config)  # so that the children find all libraries loaded
    shutil.move(copies / "index", copies / "first/index")
    for row in range(1_000):
        for after in (False, True):
            copy = copies / f"{row:03d}-{'after' if after else 'before'}"
            shutil.copytree(run, copy / "run")
            shutil.copytree(index, copies / "index")
            status = in_child(interrupted, copy, config, row, after)
            if status == 0:  # there is no such row
                shutil.rmtree(copy)
                print(row)
                return
            assert os.WIFSIGNALED(status), f"{copy} ended by itself ({status})"
            assert in_child(perform, copy, config) == 0, copy
            shutil.move(copies / "index", copy / "index")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]), sys.argv[4])
