"""Stands for Slurm on this machine: `srun` and `scontrol` that a job script finds first in its PATH.

    slurm_here.py FOLDER         writes both into FOLDER

A step is started here and now, whichever node it names; what nodes a list means is the list itself. Signals reach a step as with Slurm,
because `srun` becomes it. Each call is noted in FOLDER/calls.
"""

import sys
from pathlib import Path

SRUN = """#!/bin/bash
echo "srun $*" >> "{folder}/calls"
while [[ "${{1:-}}" == --* ]]; do shift; done
exec "$@"
"""
SCONTROL = """#!/bin/bash
echo "scontrol $*" >> "{folder}/calls"
if [ "$1 $2" = "show hostnames" ]; then tr ',' '\\n' <<< "$3"; fi
"""


def install(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, script in (("srun", SRUN), ("scontrol", SCONTROL)):
        (folder / name).write_text(script.format(folder=folder))
        (folder / name).chmod(0o755)


if __name__ == "__main__":
    install(Path(sys.argv[1]))
