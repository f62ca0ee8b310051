"""Stands in for one of Ray's agents, which a raylet insists on: says that it has no ports, and ends when the raylet does. `own.py` has it
called with the raylet's session folder, its node's id, and the names of the ports."""

import os
import sys
import time
from pathlib import Path

#: What a Ray that is installed without its dashboard says of its ports: there are none.
NONE = "-1"
#: Seconds between two looks at the raylet.
LOOK = 1.0


def main() -> None:
    raylet = os.getppid()
    session, node, *ports = sys.argv[1:]
    for port in ports:
        written = Path(session, f".{port}_{node}")
        written.write_text(NONE)
        written.rename(Path(session, f"{port}_{node}"))
    while os.getppid() == raylet:
        time.sleep(LOOK)


if __name__ == "__main__":
    main()
