"""Runs the filter stage of a copy of a run, once for each step that is killed (SIGKILL), and then to its end.

    python tests/helpers/killed_filter.py RUN COPIES CONFIG

RUN's stage ingest is finished; CONFIG is the section `filter` as JSON. For each row of the stage's manifest,
COPIES/<row>-before is a run that was killed after it had published the files of that task and before it wrote the row;
COPIES/<row>-after was killed right after the row (every second one); COPIES/first was never killed. Prints the number of rows.
"""

import os
import shutil
import sys
from pathlib import Path

from killing import in_child, killed_at

from corpusmill.filters.stage import FilterStage
from corpusmill.pipeline.engine import InlineEngine
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.progress import Progress


def perform(run: Path, config: str) -> None:
    stage = FilterStage(FilterStage.Config.model_validate_json(config))
    StageRun(stage, Storage(str(run)), {"ingest": None, "filter": stage.config}, [], InlineEngine(), Progress(False)).execute()


def interrupted(copy: Path, config: str, row: int, after: bool) -> None:
    killed_at(row, after)
    perform(copy, config)


def main(run: Path, copies: Path, config: str) -> None:
    os.fsync = lambda _: None  # the processes die, but the machine does not
    shutil.copytree(run, copies / "first")
    perform(copies / "first", config)  # so that the children find all libraries loaded
    for row in range(1_000):
        for after in (False, True) if row % 2 == 0 else (False,):
            copy = copies / f"{row:03d}-{'after' if after else 'before'}"
            shutil.copytree(run, copy)
            status = in_child(interrupted, copy, config, row, after)
            if status == 0:  # there is no such row
                shutil.rmtree(copy)
                print(row)
                return
            assert os.WIFSIGNALED(status), f"{copy} ended by itself ({status})"
            assert in_child(perform, copy, config) == 0, copy


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]), sys.argv[3])
