"""Training curves, evaluation scores and samples, read from the JSON that the training stages leave."""

import math
from dataclasses import dataclass
from typing import Any

from corpusmill.pipeline.recipe import STAGES
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
    skipped: int  # steps that did not count


def read_training(reader: RunReader) -> list[Training]:
    """The training stages that have a log, in their order."""
    found = []
    for stage in TRAINED:
        lines = [line for line in reader.json_lines(f"{stage}/logs/train.jsonl") if isinstance(line.get("step"), int)]
        if lines:
            names = sorted({name for line in lines for name in line if name != "step"})
            curves = [curve for name in names if (curve := _curve(stage, name, lines)) is not None]
            bad = sum(not math.isfinite(as_number(line.get("loss", 0.0)) or 0.0) for line in lines)
            skipped = sum(bool(line.get("skipped")) for line in lines)
            found.append(Training(stage, len(lines), lines[-1], curves, bad, skipped))
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


#: Where stages leave figures about themselves.
FIGURES = {
    "Pre-training": "pretrain/metrics.json",
    "Instruction tuning": "sft/metrics.json",
    "Alignment": "align/metrics.json",
}


def read_figures(reader: RunReader) -> dict[str, list[tuple[str, Any]]]:
    """The leaves of each JSON file with figures that the run has, by title."""
    found = {title: reader.json(path) for title, path in FIGURES.items()}
    return {title: flatten(value) for title, value in found.items() if value is not None}


def _by_stage(models: dict[str, Any] | None) -> dict[str, Any]:
    """Models in the order in which they were made: the aligned one comes last."""
    order = list(STAGES)
    return dict(sorted((models or {}).items(), key=lambda item: order.index(item[0]) if item[0] in order else -1))


@dataclass
class Scores:
    """Evaluation: `rows` are (score, one value a model or None where it has none)."""

    models: list[str]
    rows: list[tuple[str, list[Any]]]


def read_scores(reader: RunReader) -> Scores:
    """`evaluate/scores.json`, which has a section a model."""
    value = _by_stage(reader.json("evaluate/scores.json", dict))
    sections = {str(model): dict(flatten(scores)) for model, scores in value.items() if isinstance(scores, dict)}
    names = dict.fromkeys(name for scores in sections.values() for name in scores)
    rows = [(name, [scores.get(name) for scores in sections.values()]) for name in names]
    return Scores(list(sections), [row for row in rows if any(value is not None for value in row[1])])


def read_samples(reader: RunReader) -> list[tuple[str, list[tuple[str, Any]]]]:
    """What the models said, from `evaluate/samples.json`: (model, the sample's names and texts)."""
    value = _by_stage(reader.json("evaluate/samples.json", dict))
    return [
        (str(model), flatten(s)) for model, samples in value.items() if isinstance(samples, list) for s in samples if isinstance(s, dict)
    ]
