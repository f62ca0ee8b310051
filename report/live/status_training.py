"""How far a training is that goes on: the last lines of its logs, which it writes after each step."""

import json
import statistics
from typing import Any

from corpusmill.pipeline.storage import Storage
from corpusmill.report.live.status_phase import seconds_of
from corpusmill.report.queries.training import TRAINED, as_number

#: The end of a log that is read, and the steps of it by whose median the speed is told.
END, STEPS = 1 << 16, 20
SPEED, STEP = "logs/speed.jsonl", "logs/train.jsonl"


def read_training(run: Storage, settings: dict[str, Any], phase: dict[str, Any], now: float) -> dict[str, Any] | None:
    """Steps done of all, loss, tokens/s, time left; None where no training goes on, or it has not taken its first step."""
    storage = run.child(phase["stage"])
    if phase["stage"] not in TRAINED or storage.remote:
        return None
    written = storage.times("logs").get("speed.jsonl")
    if written is None or written < seconds_of(phase["began"]):  # the log of an earlier training
        return None
    speed, steps = _last(storage, SPEED), _last(storage, STEP)
    if not speed or not steps:
        return None
    loop = settings.get("loop")
    planned = speed[-1].get("steps") or (loop.get("steps") if isinstance(loop, dict) else None)
    fast = [value for line in speed[-STEPS:] if (value := as_number(line.get("tokens_per_second"))) is not None]
    left = as_number(speed[-1].get("seconds_left"))
    bits = [value for line in steps if (value := as_number(line.get("validation_bits_per_byte"))) is not None]
    return {
        "stage": phase["stage"], "steps_done": steps[-1]["step"] + 1, "steps": planned, "loss": steps[-1].get("loss"),
        "validation_bits_per_byte": bits[-1] if bits else None,
        "tokens_per_second": round(statistics.median(fast), 1) if fast else None,
        "seconds_left": None if left is None else round(max(0.0, left - max(0.0, now - written)), 1),
    }  # fmt: skip


def _last(storage: Storage, path: str) -> list[dict[str, Any]]:
    """The last whole lines of a log that are steps."""
    size = storage.size(path)
    if size <= 0:
        return []
    with storage.open_read(path) as file:
        file.seek(max(0, size - END))
        lines = file.read(END).split(b"\n")[1 if size > END else 0 : -1]
    found = []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            found.append(row)
    return found
