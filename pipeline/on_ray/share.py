"""What each worker of a phase takes of a Ray cluster: one CPU, or a GPU (or a part of one) with the CPUs that fall to it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ROUNDING = 1e-9


@dataclass(frozen=True)
class Share:
    """`actors` workers, each with so much. `cpus` is also how many threads a worker's libraries may have."""

    actors: int
    cpus: int = 1
    gpus: float = 0.0


def share_out(nodes: Sequence[Mapping[str, Any]], gpus: float, actors: int) -> Share:
    """The share of each of at most `actors` workers that would like `gpus` of a GPU (at most 1; 0: none).

    `nodes` are Ray's (`ray.nodes()`). Where no node has a GPU, workers do without. Where there are, there are no more workers than fit
    on them, and the CPUs of a node are divided among its workers: texts have to be read and tokenised for each GPU.
    """
    resources = [node["Resources"] for node in nodes if node["Alive"] and node["Resources"].get("GPU", 0) >= gpus]
    if not gpus or not resources:
        return Share(actors)
    places = [int(node["GPU"] / gpus + ROUNDING) for node in resources]
    cpus = min(int(node.get("CPU", 1)) // min(places_here, actors) for node, places_here in zip(resources, places))
    return Share(min(actors, sum(places)), max(1, cpus), gpus)
