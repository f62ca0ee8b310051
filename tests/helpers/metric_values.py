"""Reads metrics in Prometheus' text format."""

from collections import Counter
from typing import Any

from prometheus_client.parser import text_string_to_metric_families


def values(text: str, name: str, *labels: str) -> dict[Any, float]:
    """Returns samples of one metric, keyed by the values of some of its labels (summed over the others)."""
    found: Counter[Any] = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name:
                found[tuple(sample.labels[label] for label in labels)] += sample.value
    return dict(found)
