"""What a model card says of evaluations, judged answers and samples."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from corpusmill.pipeline.report.read import RunReader
from corpusmill.pipeline.report.training import as_number

#: Names of benchmark tasks' metrics in words, in the order of a card; `model-index` has them by key.
METRICS = {
    "acc": "accuracy", "acc_norm": "accuracy by length", "exact_match_strict": "exact match, strict",
    "exact_match_flexible": "exact match, flexible", "perplexity": "perplexity",
}  # fmt: skip
SAMPLES = 3


@dataclass(frozen=True)
class Measured:
    """One score of each model of the run (None where it has none), and what has to be known beside it."""

    name: str
    values: list[str | None]
    note: str = ""


def measured(reader: RunReader, models: list[str]) -> list[Measured]:
    """Every score of `evaluate/scores.json` that is known here."""
    by_model = _sections(reader)
    rows = [
        Measured("bits per byte", [_interval(_part(by_model, m, "bits_per_byte"), "value", ".3f") for m in models], _text_note(by_model)),
        Measured("held-out preferences ranked right", [_interval(_part(by_model, m, "preferences"), "accuracy", ".1%") for m in models]),
        Measured("tokens in a sampled answer", [_plain(by_model.get(m, {}).get("answer_tokens"), ".1f") for m in models]),
    ]
    tasks = dict.fromkeys(name for of in by_model.values() for name in _dict(of.get("tasks")))
    for task in tasks:
        of_models = [_dict(_part(by_model, model, "tasks").get(task)) for model in models]
        one = next(filter(None, of_models), {})
        for metric, words in METRICS.items():
            if metric in one:
                rows.append(Measured(f"{task}, {words}", [_score(_dict(of.get(metric)), metric) for of in of_models], _task_note(one)))
    return [row for row in rows if any(value is not None for value in row.values)]


def model_index(reader: RunReader, model: str, name: str) -> list[dict[str, Any]]:
    """The scores of one model as Hugging Face's `model-index`."""
    scores, results = _sections(reader).get(model, {}), []
    bits = as_number(_dict(scores.get("bits_per_byte")).get("value"))
    if bits is not None:
        results.append(_result("held-out documents of the run", "held-out", "bits_per_byte", "bits per byte", bits))
    for task, of in _dict(scores.get("tasks")).items():
        for metric, words in METRICS.items():
            value = as_number(_dict(_dict(of).get(metric)).get("value"))
            if value is not None:
                results.append(_result(str(task), str(task), metric, words, value))
    return [{"name": name, "results": results}] if results else []


def _result(dataset: str, kind: str, metric: str, words: str, value: float) -> dict[str, Any]:
    return {
        "task": {"type": "text-generation"},
        "dataset": {"name": dataset, "type": kind},
        "metrics": [{"type": metric, "value": value, "name": words}],
    }


def judged_rows(reader: RunReader) -> list[tuple[str, str, str, str]]:
    """Scores of sampled answers before and after alignment: (score, before, after, the difference with its interval)."""
    rows = []
    for name, of in _dict((reader.json("align/judged.json", dict) or {}).get("scores")).items():
        low, high = (_plain(_dict(of).get(end), "+.3f") for end in ("low", "high"))
        before, after, difference = (
            _plain(_dict(of).get(key), form) for key, form in (("before", ".3f"), ("after", ".3f"), ("difference", "+.3f"))
        )
        if before is not None and after is not None:
            rows.append((str(name), before, after, f"{difference} ({low} to {high})"))
    return rows


def samples(reader: RunReader, model: str) -> list[tuple[str, str]]:
    """Prompts and what the model wrote: answers where it answers, else continuations."""
    found = (reader.json("evaluate/samples.json", dict) or {}).get(model)
    given = [sample for sample in found if isinstance(sample, dict)] if isinstance(found, list) else []
    kind = "answer" if any(sample.get("kind") == "answer" for sample in given) else "continuation"
    return [(str(s.get("prompt", "")), str(s.get("text", ""))) for s in given if s.get("kind") == kind][:SAMPLES]


def _sections(reader: RunReader) -> dict[str, dict[str, Any]]:
    scores = reader.json("evaluate/scores.json", dict) or {}
    return {str(model): of for model, of in scores.items() if isinstance(of, dict)}


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _part(by_model: Mapping[str, dict[str, Any]], model: str, part: str) -> dict[str, Any]:
    return _dict(by_model.get(model, {}).get(part))


def _plain(value: Any, form: str) -> str | None:
    known = as_number(value)
    return None if known is None else f"{known:{form}}"


def _interval(values: Mapping[str, Any], key: str, form: str) -> str | None:
    value, low, high = (_plain(values.get(name), form) for name in (key, "low", "high"))
    return value if low is None or high is None or value is None else f"{value} ({low} to {high})"


def _score(values: Mapping[str, Any], metric: str) -> str | None:
    """A share in percent with its standard error; a perplexity as it is."""
    value, error = as_number(values.get("value")), as_number(values.get("stderr"))
    scale, unit = (1, "") if metric == "perplexity" else (100, "%")
    return None if value is None else f"{scale * value:,.1f}{unit}" + (f" ± {scale * error:,.1f}" if error is not None else "")


def _text_note(by_model: Mapping[str, dict[str, Any]]) -> str:
    bits = next((part for model in by_model if (part := _part(by_model, model, "bits_per_byte"))), {})
    documents, size = _plain(bits.get("documents"), ",.0f"), _plain(bits.get("bytes"), ",.0f")
    return f"{size} bytes of {documents} held-out documents of the run" if documents and size else ""


def _task_note(task: Mapping[str, Any]) -> str:
    overlap, items = _dict(task.get("overlap")), _plain(task.get("items"), ",.0f")
    parts = [f"{items} items"] if items else []
    if (chance := _plain(task.get("chance"), ".1%")) is not None:
        parts.append(f"guessing gives {chance}")
    if (found := _plain(overlap.get("found"), ",.0f")) is not None:
        parts.append(f"{found} of {_plain(overlap.get('items'), ',.0f')} are in the run's documents")
    return ", ".join(parts)
