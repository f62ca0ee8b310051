"""Runs the dedup stage of a copy of a run again and again, killed (SIGKILL) at each step once, and then to its end.

    python tests/helpers/killed_dedup.py RUN INDEX COPIES CONFIG

RUN's upstream is finished, INDEX is a folder with earlier runs; the runs have a copy of it at COPIES/index, which CONFIG (JSON) names.
For each row that the stage's manifest will get, COPIES/<row>-before/{run,index} are of a run that was killed when the files of that task
were there and its row was not, COPIES/<row>-after/ of one that was killed right after it. Prints how many rows there are.
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
    os.fsync = lambda _: None  # these processes die, the machine does not
    candidates.GROUP_WORDS = 3_000  # so that documents are gathered in several groups
    external_sort.FAN_IN, external_sort.FEW = 2, 1  # and what was gathered of three shards is merged
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
