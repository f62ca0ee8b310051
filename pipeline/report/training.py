"""Training curves, evaluation scores and samples, read from the JSON that the training stages leave."""

import math
from dataclasses import dataclass
from typing import Any

from corpusmill.pipeline.report.read import RunReader

TRAINED = ("pretrain", "sft", "align")
#: Points of a curve that a page draws: more can't be seen.
POINTS = 600


@dataclass
class Curve:
    """One logged value over the steps of one stage."""

    stage: str
    name: str
    steps: list[int]
    values: list[float]


@dataclass
class Training:
    """The log of one training stage."""

    stage: str
    steps: int
    last: dict[str, Any]
    curves: list[Curve]
    not_finite: int  # steps whose loss was not a finite number


def read_training(reader: RunReader) -> list[Training]:
    """The training stages that have a log, in their order."""
    found = []
    for stage in TRAINED:
        lines = [line for line in reader.json_lines(f"{stage}/logs/train.jsonl") if isinstance(line.get("step"), int)]
        if lines:
            names = sorted({name for line in lines for name in line if name != "step"})
            curves = [curve for name in names if (curve := _curve(stage, name, lines)) is not None]
            bad = sum(not math.isfinite(as_number(line.get("loss", 0.0)) or 0.0) for line in lines)
            found.append(Training(stage, len(lines), lines[-1], curves, bad))
    return found


def as_number(value: Any) -> float | None:
    """A logged value as a float (logs write NaN and infinity as text); None where it is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def _curve(stage: str, name: str, lines: list[dict[str, Any]]) -> Curve | None:
    points = [(line["step"], value) for line in lines if (value := as_number(line.get(name))) is not None]
    points = [(step, value) for step, value in points if math.isfinite(value)]
    if not points:
        return None
    every = math.ceil(len(points) / POINTS)
    thinned = points[::every] if points[-1] in points[::every] else [*points[::every], points[-1]]
    return Curve(stage, name, [step for step, _ in thinned], [value for _, value in thinned])


def flatten(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """The leaves of nested JSON objects as (dotted name, value); a list of plain values is one leaf."""
    if isinstance(value, dict):
        return [leaf for key, item in value.items() for leaf in flatten(item, f"{prefix}.{key}" if prefix else str(key))]
    if isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        return [leaf for place, item in enumerate(value) for leaf in flatten(item, f"{prefix}[{place}]")]
    if isinstance(value, list):
        return [(prefix, ", ".join(str(item) for item in value))]
    return [(prefix, value)]


def read_scores(reader: RunReader) -> list[tuple[str, list[tuple[str, Any]]]]:
    """(title, leaves) of each JSON file with figures that the run has."""
    places = {
        "Tokenizer": "tokenizer/quality.json",
        "Pre-training": "pretrain/metrics.json",
        "Instruction tuning": "sft/metrics.json",
        "Alignment": "align/metrics.json",
        "Evaluation": "evaluate/scores.json",
    }
    found = []
    for title, path in places.items():
        value = reader.json(path)
        if value is not None:
            found.append((title, flatten(value)))
    return found


def read_samples(reader: RunReader) -> list[list[tuple[str, Any]]]:
    """What the models said: each sample as (name, text) pairs."""
    value = reader.json("evaluate/samples.json")
    if isinstance(value, dict):
        value = next((v for v in value.values() if isinstance(v, list)), [value])
    return [flatten(sample) for sample in value or [] if isinstance(sample, dict)]
