"""What each process of a training takes of a Ray cluster, whose nodes may be of many kinds; and whether there is room for all of them."""

import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: Seconds in which a living node answers.
ANSWER = 2.0


@dataclass(frozen=True)
class WorkerResources:
    """So many CPUs (of a node whose GPUs are in use perhaps none) and GPUs for each process."""

    cpus: int
    gpus: int

    @property
    def resources(self) -> dict[str, float]:
        """As Ray wants it."""
        return {kind: float(count) for kind, count in (("CPU", self.cpus), ("GPU", self.gpus)) if count}


def find_resources(nodes: Sequence[Mapping[str, float]], world: int, device: str, cpus: int = 0) -> WorkerResources | None:
    """What each of `world` processes gets of nodes with these resources: a GPU for the device `cuda`, or for `auto` where there are enough;
    `cpus` CPUs, or (0) the largest number with which all find a place. None where they don't.

    A process is on one node, so what counts is how many fit on each: two nodes with a GPU and no CPU are no room for two that need both.
    """
    wanted = [cpus] if cpus else range(max((int(node.get("CPU", 0)) for node in nodes), default=0), 0, -1)
    if device.startswith("cuda") or device == "auto":
        for each in [*wanted, *([] if cpus else [0])]:  # nodes may have only GPUs to give
            if _places(nodes, each, 1) >= world:
                return WorkerResources(each, 1)
    if device.startswith("cuda"):
        return None
    return next((WorkerResources(each, 0) for each in wanted if _places(nodes, each, 0) >= world), None)


def _places(nodes: Sequence[Mapping[str, float]], cpus: int, gpus: int) -> int:
    """How many processes with so much find a place on the nodes."""
    wanted = {"CPU": cpus, "GPU": gpus}
    return sum(min(int(node.get(kind, 0) // count) for kind, count in wanted.items() if count) for node in nodes)


def living(nodes: Iterable[Mapping[str, Any]]) -> list[Mapping[str, float]]:
    """The resources of those of Ray's nodes (`ray.nodes()`) that answer: Ray itself takes up to 15 seconds to notice that one is dead."""
    return [node["Resources"] for node in nodes if node["Alive"] and _answers(node["NodeManagerAddress"], int(node["NodeManagerPort"]))]


def _answers(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=ANSWER):
            return True
    except OSError:
        return False
