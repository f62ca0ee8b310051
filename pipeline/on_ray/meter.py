"""Counts of a run among a Ray cluster's own metrics: Prometheus finds them on the metrics port of the node that the run was started on."""

import sys
from collections.abc import Mapping
from typing import Any

from corpusmill.pipeline.watch.meters import FAMILIES, SECONDS, Family


class RayMeter:
    """Gives counts to Ray, with the run's name as a label. What is counted before Ray is there is kept until it is."""

    def __init__(self, run: str):
        self.run = run
        self._made: dict[str, Any] = {}
        self._waiting: list[tuple[str, str, float, Mapping[str, str]]] = []

    def count(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        self._give("inc", name, value, labels)

    def gauge(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        self._give("set", name, value, labels)

    def observe(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        self._give("observe", name, value, labels)

    def _give(self, what: str, name: str, value: float, labels: Mapping[str, str]) -> None:
        self._waiting.append((what, name, value, labels))
        ray = sys.modules.get("ray")  # which the engine imports, once it has set what Ray reads then
        if ray is None or not ray.is_initialized():
            return
        for what, name, value, labels in self._waiting:
            if value or what != "inc":  # a counter of Ray's refuses 0
                getattr(self._metric(name), what)(value, tags={**labels, "run": self.run})
        self._waiting.clear()

    def _metric(self, name: str) -> Any:
        if name not in self._made:
            self._made[name] = _make(FAMILIES[name])
        return self._made[name]


def _make(family: Family) -> Any:
    """The metric as Ray has it, which puts `ray_` before each name and `_total` behind a counter's."""
    from ray.util import metrics

    tags = tuple(dict.fromkeys((*family.labels, "run")))
    if family.kind == "histogram":
        return metrics.Histogram(family.name, family.help, boundaries=list(SECONDS), tag_keys=tags)
    kind = metrics.Counter if family.kind == "counter" else metrics.Gauge
    return kind(family.name.removesuffix("_total"), family.help, tag_keys=tags)
