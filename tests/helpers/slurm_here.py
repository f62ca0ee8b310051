"""Replaces Slurm on this machine: writes `srun` and `scontrol` that a job script finds first in its PATH.

    slurm_here.py FOLDER         writes both into FOLDER

A step starts here and now, whichever node it names; the expansion of a node list is the list itself. As with Slurm, signals reach the
step's process, and when that ends, the other processes of the step are killed. Each call is noted in FOLDER/calls.
"""

import sys
from pathlib import Path

SRUN = """#!{python}
import os, signal, subprocess, sys
sys.path.insert(0, "{helpers}")
from marked import end, marked

with open("{folder}/calls", "a") as calls:
    print("srun", *sys.argv[1:], file=calls)
command = sys.argv[1:]
while command[0].startswith("--"):
    del command[0]
step = str(os.getpid())
process = subprocess.Popen(command, env=os.environ | {{"SLURM_STEP": step}})
signal.signal(signal.SIGTERM, lambda number, frame: process.send_signal(number))
code = process.wait()
end(lambda: marked("SLURM_STEP", step), signal.SIGKILL, 20)
sys.exit(code)
"""
SCONTROL = """#!/bin/bash
echo "scontrol $*" >> "{folder}/calls"
if [ "$1 $2" = "show hostnames" ]; then tr ',' '\\n' <<< "$3"; fi
"""


def install(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, script in (("srun", SRUN), ("scontrol", SCONTROL)):
        (folder / name).write_text(script.format(folder=folder, python=sys.executable, helpers=Path(__file__).parent))
        (folder / name).chmod(0o755)


if __name__ == "__main__":
    install(Path(sys.argv[1]))
