"""Holds the lease of a run and appends a row to a manifest every 0.3 s, while the lease is valid: `lease_holder.py RUN TTL [HOST]`.

With HOST it claims to be another machine of that name. It prints `held`, then `row N` for each row, and at last why it stopped.
After a line on its standard input it stops itself (SIGSTOP) between two rows.
"""

import os
import select
import signal
import sys

from corpusmill.pipeline import lease
from corpusmill.pipeline.errors import CorpusmillError
from corpusmill.pipeline.manifest import Manifest, TaskRow
from corpusmill.pipeline.storage import Storage

os.fsync = lambda _: None


def main(run: str, ttl: str, host: str = "") -> int:
    if host:
        lease.this_machine = lambda: host
        lease.platform.node = lambda: host
    storage = Storage(run)
    try:
        with lease.holding(storage, ttl=float(ttl)) as held:
            print("held", flush=True)
            manifest = Manifest(storage.child("ingest"))
            manifest.guard(held.check)
            for number in range(10**6):
                manifest.append(TaskRow(f"part-{number:05d}", "", [], "", "", 1, 1, 0, 1, []))
                print(f"row {number}", flush=True)
                if select.select([sys.stdin], [], [], 0.3)[0] and sys.stdin.readline():
                    os.kill(os.getpid(), signal.SIGSTOP)
    except (CorpusmillError, KeyboardInterrupt) as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
