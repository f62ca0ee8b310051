"""Under `torchrun ... -m corpusmill ...` every process runs the command: the first as always, the others wait until it needs them.

Each training is published at torchrun's store, where the others look for the next one, or for the end.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from corpusmill.pipeline.errors import CorpusmillError
from corpusmill.pipeline.watch.progress import Progress

if TYPE_CHECKING:
    from torch.distributed import Store

    from corpusmill.train.rank import GroupJob

#: Seconds between two looks at the store; those after which the others' errors are heard; those that the first process has to end then.
STORE_LOOK, HEAR, END = 0.2, 1.0, 60.0
_led = 0


def under_torchrun() -> bool:
    """Whether torchrun has started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ and "RANK" in os.environ


def torchrun_world() -> int:
    """How many processes it has started."""
    return int(os.environ["WORLD_SIZE"])


def run_command(main: Callable[[], None]) -> None:
    """Runs the command in the first process, takes part in its trainings in the others; all end with the same exit status."""
    if int(os.environ["RANK"]) > 0:
        sys.exit(_follow_torchrun(_torchrun_store()))
    code: Any = 1
    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code
        raise
    finally:
        _torchrun_store().set("end", json.dumps(code if isinstance(code, int) else int(bool(code))))


def lead_torchrun(task: "GroupJob", progress: Progress | None) -> dict[str, Any]:
    """The first process's part in a training: calls the others and works with them. Raises what one of them raised first."""
    global _led
    from torch.distributed import PrefixStore

    from corpusmill.train.rank import leave_group, process_group, take_part
    from corpusmill.train.restart import raise_first

    name, store = f"training-{_led}", _torchrun_store()
    _led += 1
    store.set(name, json.dumps(task))
    try:
        with process_group(task["device"], PrefixStore(name, store)):
            return take_part(task, progress)
    except CorpusmillError:
        leave_group()
        raise
    except Exception:
        leave_group()
        raise_first(_torchrun_errors(store, name))
        raise


def _torchrun_errors(store: "Store", name: str) -> list[dict[str, Any]]:
    """What the other processes say within a moment has happened to them, the first first."""
    time.sleep(HEAR)
    keys = [key for key in (f"{name}/error/{other}" for other in range(1, torchrun_world())) if store.check([key])]
    return sorted((json.loads(store.get(key)) for key in keys), key=lambda error: float(error["time"]))


def _follow_torchrun(store: "Store") -> int:
    """What processes other than the first do: training after training, silently. Returns the exit status of the first."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # torchrun passes Ctrl-C on; the first process has the word
    if not os.environ.get("CORPUSMILL_DEBUG"):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
    number = 0
    while not store.check(["end"]):
        name = f"training-{number}"
        if not store.check([name]):
            time.sleep(STORE_LOOK)
            continue
        number += 1
        if not _took_part(store, name):
            until = time.monotonic() + END
            while not store.check(["end"]) and time.monotonic() < until:
                time.sleep(STORE_LOOK)
            break
    code = int(json.loads(store.get("end"))) if store.check(["end"]) else 1
    time.sleep(HEAR if code else 0.0)  # torchrun kills the others as soon as one has failed: the first process goes first
    return code


def _took_part(store: "Store", name: str) -> bool:
    from torch.distributed import PrefixStore

    from corpusmill.train.rank import described, leave_group, process_group, rank, take_part

    task = json.loads(store.get(name))
    try:
        with process_group(task["device"], PrefixStore(name, store)):
            take_part(task, None)
    except Exception as error:  # noqa: BLE001 - the boundary where any failure becomes a sentence of the first process
        store.set(f"{name}/error/{rank()}", json.dumps(described(error)))
        leave_group()
        return False
    return True


def _torchrun_store() -> "Store":
    """A part of torchrun's own store, for this attempt of its (`--max-restarts`)."""
    from torch.distributed import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    store, _, _ = next(rendezvous("env://"))
    return PrefixStore(f"corpusmill-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
