"""Runs a stage of copies of a run, each killed (SIGKILL) at another row of the stage's manifest, and then to its end.

    python tests/helpers/killed_stage.py RUN COPIES CONFIG [INDEX]

RUN's earlier stage is finished; CONFIG is the stage's section as JSON: of `dedup` where there is an INDEX, a folder with earlier runs, else
of `filter`. COPIES/<row>-before was killed after it had published the files of the task of that row and before it wrote the row;
COPIES/<row>-after (every second one) right after the row; COPIES/first never. With INDEX such a folder holds `run` and its own `index`,
which lies at COPIES/index, as CONFIG says, while the stage runs. Prints the number of rows.
"""

import os
import shutil
import sys
from pathlib import Path

from killing import in_child, killed_at
from stage_runs import perform

from corpusmill.dedup import candidates, external_sort
from corpusmill.dedup.stage import DedupStage
from corpusmill.filters.stage import FilterStage
from corpusmill.pipeline.stage import Stage
from corpusmill.pipeline.storage import Storage


def carry_out(run: Path, config: str, indexed: bool) -> None:
    kind: type[Stage] = DedupStage if indexed else FilterStage
    perform(Storage(str(run)), kind(kind.Config.model_validate_json(config)), earlier=["filter" if indexed else "ingest"])


def interrupted(row: int, after: bool, *arguments: object) -> None:
    killed_at(row, after)
    carry_out(*arguments)  # type: ignore[arg-type]


def main(run: Path, copies: Path, config: str, index: Path | None) -> None:
    os.fsync = lambda _: None  # the processes die, but the machine does not
    candidates.GROUP_WORDS = 3_000  # so that documents are split into several groups
    external_sort.FAN_IN, external_sort.FEW = 2, 1  # and the groups of three shards are merged
    names = ["first", *(f"{row:03d}-{kind}" for row in range(1_000) for kind in ("before", "after")[: 2 - row % 2])]
    for name in names:
        copy = copies / name / "run" if index else copies / name
        shutil.copytree(run, copy)
        if index:
            shutil.copytree(index, copies / "index")
        arguments = copy, config, bool(index)
        if name == "first":
            carry_out(*arguments)  # so that the children find all libraries loaded
        else:
            status = in_child(interrupted, int(name[:3]), name.endswith("after"), *arguments)
            if status == 0:  # there is no such row
                shutil.rmtree(copies / name)
                print(int(name[:3]))
                return
            assert os.WIFSIGNALED(status), f"{copy} ended by itself ({status})"
            assert in_child(carry_out, *arguments) == 0, copy
        if index:
            shutil.move(copies / "index", copies / name / "index")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4]) if sys.argv[4:] else None)
