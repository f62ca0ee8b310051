"""Chooses the processes to kill in a run, and the times: kills are drawn beforehand, the process is looked for at its time."""

import contextlib
import random
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from raylets import Raylets
from whole_run import STAGES

#: Kinds of processes to kill, with weights out of 10. `driver`: with all its processes; `cluster`: with the driver.
TARGETS = {"inline": {"driver": 10}, "ray": {"driver": 3, "worker": 4, "raylet": 2, "cluster": 1}}
#: In these stages a `child` is killed equally often: the process that reads archives, of the driver or of a Ray worker.
WITH_CHILDREN = STAGES[:1]
#: Stages that are killed: on Ray those that the cluster works on, as the others are the same there.
KILLED = {"inline": STAGES, "ray": STAGES[:5]}
#: Chances of further kills of a stage in one run.
MORE = {"inline": (0.45, 0.2), "ray": (0.7, 0.5, 0.3)}
#: Titles of a raylet's child processes that hold no actor. An actor's process has the name of its class, or of its current task.
OTHERS = ("ray::IDLE", "ray::DashboardAgent", "ray::RuntimeEnvAgent", "ray::JobSupervisor")


@dataclass(frozen=True)
class Kill:
    stage: str
    target: str
    share: float  # as a share of the stage's usual time
    which: float  # which of the processes, as a share, too


def drawn(seed: str, engine: str) -> list[Kill]:
    """Draws the kills of one run, in the order of its stages."""
    draw = random.Random(seed)
    kills = []
    for stage in KILLED[engine]:
        targets = dict(TARGETS[engine])
        if stage in WITH_CHILDREN:
            targets["child"] = sum(targets.values())
        count = 1 + sum(draw.random() < chance for chance in MORE[engine])
        names = draw.choices(list(targets), list(targets.values()), k=count)
        kills += [Kill(stage, name, draw.random(), draw.random()) for name in names]
    return kills


def places(target: str, engine: str) -> tuple[str, ...]:
    """Returns the stages in which there may be such a process."""
    return WITH_CHILDREN if target == "child" else KILLED[engine]


def stage_of(said: dict[str, Any], driver: int) -> str | None:
    """Returns the current stage of the process `driver`, from progress.json; None before its first stage."""
    return next(reversed(said["stages_began"]), None) if said.get("process") == driver else None


def stage_seconds(said: dict[str, Any]) -> dict[str, float]:
    """Returns the seconds of each stage of a finished run."""
    times = [datetime.fromisoformat(time) for time in [*said["stages_began"].values(), said["ended"]]]
    return {stage: (times[number + 1] - times[number]).total_seconds() for number, stage in enumerate(said["stages_began"])}


def find(target: str, driver: int, cluster: Raylets | None) -> list[int]:
    """Returns the living processes of a kind: `child` of the driver or of a worker, Ray `worker`, or `raylet` (not the head's)."""
    raylets = [] if cluster is None else [pid for node in range(1, cluster.count) if (pid := cluster.raylet(node))]
    if target == "raylet":
        return raylets
    workers = [pid for raylet in raylets for pid in _children(raylet) if is_worker(title(pid))]
    if target == "worker":
        return workers
    return [pid for parent in [driver, *workers] for pid in _children(parent) if _is_reader(title(pid))]


def is_worker(title: str) -> bool:
    return title.startswith("ray::") and not title.startswith(OTHERS)


def _is_reader(title: str) -> bool:
    """Whether a process runs a program of corpusmill; multiprocessing's resource tracker and a process that is just being forked do not."""
    return "corpusmill" in title and not title.startswith("ray::")


def title(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    return ""


def _children(parent: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(pid) for task in Path(f"/proc/{parent}/task").iterdir() for pid in (task / "children").read_text().split()]
    return []
