"""Where a run is, and the process of it that is to be killed."""

import contextlib
import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from raylets import Raylets


def progress(run: Path) -> dict[str, Any]:
    """What the run says of itself; nothing where it has not said anything yet."""
    with contextlib.suppress(OSError, ValueError):
        return dict(json.loads((run / "progress.json").read_text()))
    return {}


def stage_of(run: Path, driver: int) -> str | None:
    """The stage in which the process `driver` is; None before its first."""
    said = progress(run)
    return next(reversed(said["stages_began"]), None) if said.get("process") == driver else None


def stage_seconds(run: Path) -> dict[str, float]:
    """How long each stage of a finished run took."""
    said = progress(run)
    times = [datetime.fromisoformat(time) for time in [*said["stages_began"].values(), said["ended"]]]
    return {stage: (times[number + 1] - times[number]).total_seconds() for number, stage in enumerate(said["stages_began"])}


def find(target: str, driver: int, cluster: Raylets | None) -> int | None:
    """A process of that kind: a `child` of the driver or of a worker, a Ray `worker`, or a `raylet`. None where there is none now."""
    if target == "raylet" and cluster is not None:
        return next((pid for node in range(1, cluster.count) if (pid := cluster.raylet(node))), None)
    if target == "worker" and cluster is not None:
        return next(iter(_workers(cluster)), None)
    if target == "child":
        parents = [driver] if cluster is None else [driver, *_workers(cluster)]
        return next((pid for parent in parents for pid in _children(parent)), None)
    return None


def _workers(cluster: Raylets) -> list[int]:
    """Those of pieces: Ray calls an actor by its class, and as soon as it exists by its `repr`."""
    return [pid for pid in cluster.processes() if _title(pid).startswith(("ray::PieceActor", "ray::corpusmill"))]


def _title(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    return ""


def _children(parent: int) -> Iterator[int]:
    """Child processes of Python that work for the parent; not its resource tracker."""
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{parent}/task").iterdir():
            for pid in (task / "children").read_text().split():
                if "resource_tracker" not in _title(int(pid)) and "python" in _title(int(pid)):
                    yield int(pid)
