"""Lets many processes ask for the lease of one run at the same moment, repeatedly: `lease_race.py RUN PROCESSES ROUNDS`.

Prints for each round the number of processes that got it. Each round has a run of its own, `RUN/0`, `RUN/1`, ...
"""

import importlib
import os
import sys
import time

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.lease import Lease
from corpusmill.pipeline.storage import Storage

LOST, BROKEN, PATIENCE = 2, 3, 60.0


def contend(run: str, start: int, end: int) -> int:
    """Runs one process: it waits for the start, asks for the lease, and if it gets it, keeps it until the end."""
    lease = Lease(Storage(run), ttl=30.0)
    lease.file.read()  # connected
    os.read(start, 1)
    try:
        lease.acquire()
    except InputError as error:
        return LOST if "right now" in str(error) else BROKEN
    os.read(end, 1)
    return 0


def one_round(run: str, processes: int) -> list[int]:
    start, end = os.pipe(), os.pipe()
    children = []
    for _ in range(processes):
        child = os.fork()
        if not child:
            os.close(start[1]), os.close(end[1])
            os._exit(contend(run, start[0], end[0]))
        children.append(child)
    time.sleep(0.3)
    os.close(start[1])
    codes, until = [], time.monotonic() + PATIENCE
    while len(codes) < processes - 1 and time.monotonic() < until:
        child, status = os.waitpid(-1, os.WNOHANG)
        codes += [os.waitstatus_to_exitcode(status)] if child else []
        time.sleep(0 if child else 0.01)
    os.close(end[1])
    return codes + [os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(processes - len(codes))]


if __name__ == "__main__":
    target, count, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    importlib.import_module("datatrove.io")
    if target.startswith("s3://"):
        importlib.import_module("boto3")
    for number in range(rounds):
        found = one_round(f"{target}/{number}", count)
        print(found.count(0), found.count(LOST), flush=True)
