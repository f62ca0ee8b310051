"""Reads training curves, evaluation scores and samples from the JSON files of the training stages."""

import math
import statistics
from dataclasses import dataclass, field
from typing import Any

from corpusmill.pipeline.intervals import score_text
from corpusmill.pipeline.recipe import STAGES
from corpusmill.report.queries.ask import Query, ask, slug
from corpusmill.report.query.run import Run
from corpusmill.report.query.sql import identifier
from corpusmill.report.read import TRAINED, RunReader
from corpusmill.report.tables import number

#: Points of a curve that a page draws.
POINTS = 600
#: The curves of the validation, with the ends of its interval.
VALIDATION, LOW, HIGH = "validation_bits_per_byte", "validation_low", "validation_high"
#: The curve from `speed.jsonl`, and its number of points.
SPEED, SPEED_POINTS = "tokens_per_second", 200


@dataclass
class Curve:
    """One logged value over the steps of one stage."""

    stage: str
    name: str
    steps: list[int]
    values: list[float]


@dataclass
class ValidationGroup:
    """Validation bits per byte for the documents of one language, source or host. Only `bits` is known where only the log is there."""

    name: str
    bits: float | None
    low: float | None = None
    high: float | None = None
    documents: float | None = None
    utf8_bytes: float | None = None


@dataclass
class Look:
    """Samples of a model in training after a step: (document, prompt, continuation)."""

    step: int
    texts: list[tuple[str, str, str]]


@dataclass
class Speed:
    """The speed of a training: medians over the steps, and the peak memory; None if unknown."""

    tokens_per_second: float | None
    flops_per_second: float | None
    mfu: float | None
    waited: float | None  # share of the steps' time
    memory_bytes: float | None
    cuda_bytes: float | None


@dataclass
class Training:
    """The log of one training stage."""

    stage: str
    steps: int
    last: dict[str, Any]
    curves: list[Curve]
    not_finite: int  # steps whose loss was not a finite number
    skipped: int  # steps without an update of the weights
    skips: list[int] = field(default_factory=list)  # the first skipped steps, for the chart
    groups: dict[str, list[ValidationGroup]] = field(default_factory=dict)
    finished: bool = False  # whether the groups come from the finished model instead of the log
    looks: list[Look] = field(default_factory=list)
    speed: Speed | None = None
    precision: str = ""

    def curve(self, name: str) -> Curve | None:
        return next((curve for curve in self.curves if curve.name == name), None)


def read_training(reader: RunReader) -> list[Training]:
    """Reads the training stages that have a log, in their order."""
    found = []
    for stage in TRAINED:
        lines = _steps(reader, stage, "train")
        if lines:
            names = sorted({name for line in lines for name in line if name != "step"})
            curves = [curve for name in names if (curve := _curve(stage, name, lines)) is not None]
            bad = sum(not math.isfinite(as_number(line.get("loss", 0.0)) or 0.0) for line in lines)
            skips = [line["step"] for line in lines if line.get("skipped")]
            training = Training(stage, len(lines), lines[-1], curves, bad, len(skips), skips[:POINTS])
            training.precision = str(lines[0].get("precision", ""))
            speed = _steps(reader, stage, "speed")
            training.speed = _speed(speed) if speed else None
            if (curve := _speed_curve(stage, speed)) is not None:
                training.curves.append(curve)
            training.groups, training.finished = _groups(reader, stage, lines)
            training.looks = [look for line in _steps(reader, stage, "samples") if (look := _look(line)).texts]
            found.append(training)
    return found


def _steps(reader: RunReader, stage: str, name: str) -> list[dict[str, Any]]:
    return [line for line in reader.json_lines(f"{stage}/logs/{name}.jsonl") if isinstance(line.get("step"), int)]


def _values(lines: list[dict[str, Any]], name: str) -> list[float]:
    return [value for line in lines if (value := as_number(line.get(name))) is not None and math.isfinite(value)]


def _speed(lines: list[dict[str, Any]]) -> Speed:
    def middle(name: str) -> float | None:
        values = _values(lines, name)
        return statistics.median(values) if values else None

    seconds = sum(_values(lines, "seconds"))
    waited = sum(_values(lines, "waited")) / seconds if seconds else None
    memory, cuda = (max(_values(lines, name), default=None) for name in ("memory_bytes", "cuda_bytes"))
    return Speed(middle("tokens_per_second"), middle("flops_per_second"), middle("mfu"), waited, memory, cuda)


def _speed_curve(stage: str, lines: list[dict[str, Any]]) -> Curve | None:
    """Returns the curve of tokens per second. Each point is the median of several steps, since single steps vary much."""
    every = max(1, math.ceil(len(lines) / SPEED_POINTS))
    points = [(some[-1]["step"], _values(some, "tokens_per_second")) for begin in range(0, len(lines), every)
              if (some := lines[begin : begin + every])]  # fmt: skip
    points = [(step, values) for step, values in points if values]
    return Curve(stage, SPEED, [step for step, _ in points], [statistics.median(values) for _, values in points]) if points else None


def _groups(reader: RunReader, stage: str, lines: list[dict[str, Any]]) -> tuple[dict[str, list[ValidationGroup]], bool]:
    """Returns the validation groups by language, source and host, and whether they come from the finished model; else the log's last
    ones."""
    measured = (reader.json(f"{stage}/metrics.json", dict) or {}).get("validation")
    by = measured.get("by") if isinstance(measured, dict) else None
    finished = isinstance(by, dict)
    if not isinstance(by, dict):
        by = next((line["validation_by"] for line in reversed(lines) if isinstance(line.get("validation_by"), dict)), {})
    groups = {str(kind): [_group(str(name), value) for name, value in of.items()] for kind, of in by.items() if isinstance(of, dict) and of}
    return groups, finished


def _group(name: str, value: Any) -> ValidationGroup:
    if not isinstance(value, dict):
        return ValidationGroup(name, as_number(value))
    return ValidationGroup(name, *(as_number(value.get(key)) for key in ("bits_per_byte", "low", "high", "documents", "utf8_bytes")))


def _look(line: dict[str, Any]) -> Look:
    samples = line.get("samples")
    given = [sample for sample in samples if isinstance(sample, dict)] if isinstance(samples, list) else []
    texts = [tuple(str(sample.get(key, "")) for key in ("document", "prompt", "text")) for sample in given]
    return Look(line["step"] + 1, [(document, prompt, text) for document, prompt, text in texts])


def as_number(value: Any) -> float | None:
    """Returns a logged value as a float (logs write NaN and infinity as text); None if it is not a number."""
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
    """Returns the leaves of nested JSON objects as (dotted name, value). A list of plain values is one leaf."""
    if isinstance(value, dict):
        return [leaf for key, item in value.items() for leaf in flatten(item, f"{prefix}.{key}" if prefix else str(key))]
    if isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        return [leaf for place, item in enumerate(value) for leaf in flatten(item, f"{prefix}[{place}]")]
    if isinstance(value, list):
        return [(prefix, ", ".join(str(item) for item in value))]
    return [(prefix, value)]


def _by_stage(models: dict[str, Any] | None) -> dict[str, Any]:
    """Orders models as they were made: the aligned one comes last."""
    order = list(STAGES)
    return dict(sorted((models or {}).items(), key=lambda item: order.index(item[0]) if item[0] in order else -1))


@dataclass
class Scores:
    """Evaluation scores. `rows`: (score, one value for each model, None if it has none)."""

    models: list[str]
    rows: list[tuple[str, list[Any]]]
    sections: dict[str, dict[str, Any]] = field(default_factory=dict)  # by model, as in the file


def read_scores(reader: RunReader) -> Scores:
    """Reads `evaluate/scores.json`, with one section for each model. Benchmark tasks give no rows here (`read_benchmarks`)."""
    value = _by_stage(reader.json("evaluate/scores.json", dict))
    whole = {str(model): scores for model, scores in value.items() if isinstance(scores, dict)}
    sections = {model: dict(flatten({name: of for name, of in scores.items() if name != "tasks"})) for model, scores in whole.items()}
    names = dict.fromkeys(name for scores in sections.values() for name in scores)
    rows = [(name, [scores.get(name) for scores in sections.values()]) for name in names]
    return Scores(list(sections), [row for row in rows if any(value is not None for value in row[1])], whole)


#: Scores in words: how a number is written, and the names in the file of the value and the ends of its interval.
PLAIN = {
    "bits per byte (less is better)": ("{:.3f}", "bits_per_byte.value", "bits_per_byte.low", "bits_per_byte.high"),
    "held-out documents": ("{:,.0f}", "bits_per_byte.documents"),
    "held-out bytes": ("{:,.0f}", "bits_per_byte.bytes"),
    "preferences ranked right": ("{:.1%}", "preferences.accuracy", "preferences.low", "preferences.high"),
    "held-out preferences": ("{:,.0f}", "preferences.pairs"),
    "tokens of an answer, on average": ("{:,.1f}", "answer_tokens"),
}


def plain_scores(scores: Scores) -> list[tuple[str, list[tuple[str, str]]]]:
    """Returns the scores in words: for each model the value and the interval, empty where unknown. Scores that have no words here follow
    under their own names."""
    rows, found = dict(scores.rows), []
    for title, (form, *parts) in PLAIN.items():
        if any(as_number(value) is not None for value in rows.get(parts[0], ())):
            numbers = [[as_number(value) for value in rows.pop(part, [None] * len(scores.models))] for part in parts]
            told = [["" if value is None else form.format(value) for value in of] for of in zip(*numbers, strict=True)]
            found.append((title, [(of[0], f"{of[1]} to {of[2]}" if all(of[1:]) and of[1:] else "") for of in told]))
    others = {name.replace("_", " ").replace(".", ": "): values for name, values in rows.items()}
    return found + [(name, [("" if value is None else number(value), "") for value in values]) for name, values in others.items()]


def read_samples(reader: RunReader) -> list[tuple[str, list[tuple[str, Any]]]]:
    """Reads `evaluate/samples.json`: (model, names and texts of the sample)."""
    value = _by_stage(reader.json("evaluate/samples.json", dict))
    return [
        (str(model), flatten(s)) for model, samples in value.items() if isinstance(samples, list) for s in samples if isinstance(s, dict)
    ]


@dataclass(frozen=True)
class Result:
    """What the last model can do, with the ends of each interval (None if unknown), and a text that it wrote. `path`: the file of the
    numbers."""

    model: str
    bits: tuple[float, float | None, float | None] | None  # per byte of the validation text
    preferences: tuple[float, float | None, float | None] | None  # the share of pairs of which the better one has the higher score
    sample: tuple[str, str] | None  # prompt and continuation
    path: str = "evaluate/scores.json"


def read_result(scores: Scores, samples: list[tuple[str, list[tuple[str, Any]]]], training: list[Training]) -> Result | None:
    """Takes the result from the evaluation, or, where there is none, from the validation of the last training; None without both."""
    if scores.models:
        of = {name: as_number(values[-1]) for name, values in scores.rows}
        bits, preferences = (
            None if (value := of.get(f"{name}.{key}")) is None else (value, of.get(f"{name}.low"), of.get(f"{name}.high"))
            for name, key in (("bits_per_byte", "value"), ("preferences", "accuracy"))
        )
        model = scores.models[-1]
        texts = [dict(fields) for name, fields in samples if name == model]
        sample = next(((str(text.get("prompt", "")), str(text["text"])) for text in texts if text.get("text")), None)
        return Result(model, bits, preferences, sample) if bits or preferences or sample else None
    validated = [each for each in training if each.curve(VALIDATION)]
    if not validated:
        return None
    last = validated[-1]
    value, low, high = (curve.values[-1] if (curve := last.curve(name)) else None for name in (VALIDATION, LOW, HIGH))
    return Result(last.stage, (value or 0.0, low, high), None, None, f"{last.stage}/logs/train.jsonl")


#: Items found in documents that the page shows.
EXAMPLES = 5


@dataclass(frozen=True)
class Score:
    value: float
    error: float | None

    def text(self, metric: str) -> str:
        return score_text(metric, self.value, self.error)


@dataclass
class Benchmark:
    """A benchmark task. `scores`: by metric (the main one first) and model. `groups`: by name and model."""

    name: str
    title: str
    chance: float | None
    items: int
    total: int
    shots: int
    cut: int
    found: int
    searched: int
    documents: int
    scores: dict[str, dict[str, Score]] = field(default_factory=dict)
    without: dict[str, Score] = field(default_factory=dict)  # the main metric by model, on the items that no document holds
    groups: dict[str, dict[str, Score]] = field(default_factory=dict)
    leaks: list[dict[str, Any]] = field(
        default_factory=list
    )  # items that a document holds, with the share of the words found, in `passage`
    leaks_query: Query | None = None

    @property
    def metric(self) -> str:
        return next(iter(self.scores))

    def weakest(self) -> list[tuple[str, dict[str, Score]]]:
        """Returns the groups, those with the lowest mean over models first."""
        return sorted(self.groups.items(), key=lambda group: (sum(s.value for s in group[1].values()) / max(1, len(group[1])), group[0]))


@dataclass
class Benchmarks:
    models: list[str]
    tasks: list[Benchmark]


def read_benchmarks(run: Run, models: list[str], scores: dict[str, dict[str, Any]], examples: bool = True) -> Benchmarks:
    """Reads the benchmarks. `scores`: the sections of `evaluate/scores.json` by model. Values of an unexpected form are left out."""
    found: dict[str, Benchmark] = {}
    for model in models:
        for name, summary in _object(scores[model].get("tasks")).items():
            _take(found, str(name), model, _object(summary))
    shown = [task for task in found.values() if task.scores]
    for task in shown if examples else ():
        if task.found:
            _find_leaks(run, task)
    return Benchmarks([model for model in models if any(model in task.scores[task.metric] for task in shown)], shown)


def _take(found: dict[str, Benchmark], name: str, model: str, summary: dict[str, Any]) -> None:
    """Adds one model's summary of a task."""
    overlap = _object(summary.get("overlap"))
    if name not in found:
        found[name] = Benchmark(
            name, str(summary.get("title", name)), as_number(summary.get("chance")), _count(summary, "items"), _count(summary, "total"),
            _count(summary, "shots"), _count(summary, "cut"),
            _count(overlap, "found"), _count(overlap, "searched"), _count(overlap, "documents"),
        )  # fmt: skip
    task, metrics, first = found[name], _scores(summary.get("metrics")), str(summary.get("metric", ""))
    for metric in sorted(metrics, key=lambda metric: (metric != first, metric)):
        task.scores.setdefault(metric, {})[model] = metrics[metric]
    if first in (others := _scores(overlap.get("without"))):
        task.without[model] = others[first]
    for group, of in _object(summary.get("groups")).items():
        if first in (group_scores := _scores(_object(of).get("metrics"))):
            task.groups.setdefault(str(group), {})[model] = group_scores[first]


def _count(of: dict[str, Any], key: str) -> int:
    return int(as_number(of.get(key)) or 0)


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _scores(metrics: Any) -> dict[str, Score]:
    given = {str(name): _object(of) for name, of in _object(metrics).items()}
    values = {name: (as_number(of.get("value")), as_number(of.get("stderr"))) for name, of in given.items()}
    return {name: Score(value, error) for name, (value, error) in values.items() if value is not None}


def _find_leaks(run: Run, task: Benchmark) -> None:
    """Reads the items with the largest share found. An item's text is known where it was among those that the first model answered."""
    found, scored = f"evaluate_benchmarks_overlap_{task.name}", f"evaluate_benchmarks_{next(iter(task.scores[task.metric]))}_{task.name}"
    if found not in run.tables:
        return
    task.leaks_query = ask(run, f"leaks-{slug(task.name)}", f"{task.title}: the items of which most was found", f"""
        SELECT item, share, documents, passage, id, url FROM {identifier(found)} ORDER BY share DESC, item LIMIT {EXAMPLES}
    """)  # fmt: skip
    rows = task.leaks_query.rows
    texts = {}
    if scored in run.tables and rows:
        items = ", ".join(str(row["item"]) for row in rows)
        texts = {row["item"]: _text(row) for row in run.records(f"FROM {identifier(scored)} WHERE item IN ({items})")}
    task.leaks = [row | {"text": texts.get(row["item"], "")} for row in rows]


def _text(row: dict[str, Any]) -> str:
    if "prompt" in row:
        return f"{row['prompt']} {row['answer']}"
    return "".join(texts[row["gold"] if len(texts) > 1 else 0] for texts in (row["contexts"], row["continuations"]))
