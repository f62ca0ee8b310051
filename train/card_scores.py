"""What a model card says of evaluations, judged answers and samples: what the report's own readers read of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from corpusmill.report.queries.alignment import read_judged
from corpusmill.report.queries.summary import Summary
from corpusmill.report.queries.training import Benchmark, as_number
from corpusmill.report.read import RunReader

SAMPLES = 3


@dataclass(frozen=True)
class Measured:
    """One score of each model of the run (None where it has none), and what has to be known beside it."""

    name: str
    values: list[str | None]
    note: str = ""


def measured(summary: Summary, models: list[str]) -> list[Measured]:
    """Every score of these models, a value for each; of a benchmark all its metrics."""
    scores = summary.scores.sections
    rows = [
        Measured("bits per byte", [_interval(_part(scores, m, "bits_per_byte"), "value", ".3f") for m in models], _text_note(scores)),
        Measured("held-out preferences ranked right", [_interval(_part(scores, m, "preferences"), "accuracy", ".1%") for m in models]),
        Measured("tokens in a sampled answer", [_plain(scores[m].get("answer_tokens"), ".1f") for m in models]),
    ]
    for task in summary.benchmarks.tasks:
        for metric, of in task.scores.items():
            values = [of[model].text(metric) if model in of else None for model in models]
            rows.append(Measured(f"{task.title}, {metric}", values, _task_note(task)))
    return [row for row in rows if any(value is not None for value in row.values)]


def model_index(summary: Summary, model: str, name: str) -> list[dict[str, Any]]:
    """The scores of one model as Hugging Face's `model-index`."""
    results = []
    bits = as_number(_part(summary.scores.sections, model, "bits_per_byte").get("value"))
    if bits is not None:
        results.append(_result("held-out documents of the run", "held-out", "bits_per_byte", bits))
    for task in summary.benchmarks.tasks:
        results += [_result(task.title, task.name, metric, of[model].value) for metric, of in task.scores.items() if model in of]
    return [{"name": name, "results": results}] if results else []


def _result(dataset: str, kind: str, metric: str, value: float) -> dict[str, Any]:
    return {
        "task": {"type": "text-generation"},
        "dataset": {"name": dataset, "type": kind},
        "metrics": [{"type": metric, "value": value, "name": metric}],
    }


def judged_rows(reader: RunReader) -> list[tuple[str, str, str, str]]:
    """Scores of sampled answers by the run's classifiers: (score, before alignment, after it, the interval of the difference)."""
    compared, _, _ = read_judged(reader)
    return [
        (of.column, f"{of.before:.3f}", f"{of.after:.3f}", f"{of.low:+.3f} to {of.high:+.3f}")
        for of in compared
        if of.before is not None and of.after is not None and of.low is not None and of.high is not None
    ]


def samples(reader: RunReader, model: str) -> list[tuple[str, str]]:
    """Prompts and what the model wrote: answers where it answers, else continuations."""
    found = (reader.json("evaluate/samples.json", dict) or {}).get(model)
    given = [sample for sample in found if isinstance(sample, dict)] if isinstance(found, list) else []
    kind = "answer" if any(sample.get("kind") == "answer" for sample in given) else "continuation"
    return [(str(s.get("prompt", "")), str(s.get("text", ""))) for s in given if s.get("kind") == kind][:SAMPLES]


def _part(scores: Mapping[str, dict[str, Any]], model: str, part: str) -> dict[str, Any]:
    value = scores.get(model, {}).get(part)
    return value if isinstance(value, dict) else {}


def _plain(value: Any, form: str) -> str | None:
    known = as_number(value)
    return None if known is None else f"{known:{form}}"


def _interval(values: Mapping[str, Any], key: str, form: str) -> str | None:
    value, low, high = (_plain(values.get(name), form) for name in (key, "low", "high"))
    return value if low is None or high is None or value is None else f"{value} ({low} to {high})"


def _text_note(scores: Mapping[str, dict[str, Any]]) -> str:
    bits = next((part for model in scores if (part := _part(scores, model, "bits_per_byte"))), {})
    documents, size = _plain(bits.get("documents"), ",.0f"), _plain(bits.get("bytes"), ",.0f")
    return f"{size} bytes of {documents} held-out documents of the run" if documents and size else ""


def _task_note(task: Benchmark) -> str:
    parts = [f"{task.items:,} items" + (f" of {task.total:,}" if task.total != task.items else "")]
    parts += [f"{task.shots} solved examples before each"] if task.shots else []
    parts += [f"guessing gives {task.chance:.1%}"] if task.chance is not None else []
    if task.searched:
        parts.append(f"{task.found:,} of {task.searched:,} are in the run's documents")
    return ", ".join(parts)
