"""Stands in for one of Ray's agents, which a raylet insists on: says that it has no ports, and ends when the raylet does, of which Ray's
variable has the number. `own.py` has it called with the raylet's session folder, its node's id, and the names of the ports."""

import os
import sys
import time
from pathlib import Path

#: What an agent of Ray's writes in place of a port that it does not have.
NONE = "-1"
#: Seconds between two looks at the raylet.
LOOK = 1.0


def main() -> None:
    raylet = int(os.environ["RAY_RAYLET_PID"])
    session, node, *ports = sys.argv[1:]
    for port in ports:
        written = Path(session, f".{port}_{node}")
        written.write_text(NONE)
        written.rename(Path(session, f"{port}_{node}"))
    while os.getppid() == raylet:
        time.sleep(LOOK)


if __name__ == "__main__":
    main()
