"""Scores on benchmark tasks, and what of their items stands in the run's documents, read from what the stage `evaluate` leaves."""

from dataclasses import dataclass, field
from typing import Any

from corpusmill.report.queries.ask import Query, ask, slug
from corpusmill.report.queries.training import as_number
from corpusmill.report.query.run import Run
from corpusmill.report.query.sql import identifier

#: Items shown of those that were found in documents.
EXAMPLES = 5
#: Metrics that are no share of items.
OTHER = ("perplexity",)


@dataclass(frozen=True)
class Score:
    value: float
    error: float | None

    def text(self, metric: str) -> str:
        """`50.2% ± 0.4`, or a perplexity."""
        if metric in OTHER:
            return f"{self.value:.3g}" + ("" if self.error is None else f" ± {self.error:.2g}")
        return f"{self.value:.1%}" + ("" if self.error is None else f" ± {100 * self.error:.1f}")


@dataclass(frozen=True)
class Leak:
    """An item that a document holds: `share` of its words that prove something, `passage` of the document."""

    item: int
    text: str
    share: float
    passage: str
    documents: int
    id: str
    url: str


@dataclass
class Benchmark:
    """A task: `scores` by metric (the first is the one to compare by) and model, `groups` by name and model."""

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
    without: dict[str, Score] = field(default_factory=dict)  # the first metric by model, of the items that no document holds
    groups: dict[str, dict[str, Score]] = field(default_factory=dict)
    leaks: list[Leak] = field(default_factory=list)
    leaks_query: Query | None = None

    @property
    def metric(self) -> str:
        return next(iter(self.scores))

    def weakest(self) -> list[tuple[str, dict[str, Score]]]:
        """The groups, those with the lowest mean over models first."""
        return sorted(self.groups.items(), key=lambda group: (sum(s.value for s in group[1].values()) / max(1, len(group[1])), group[0]))


@dataclass
class Benchmarks:
    models: list[str]
    tasks: list[Benchmark]


def read_benchmarks(run: Run, models: list[str], scores: dict[str, dict[str, Any]], examples: bool = True) -> Benchmarks:
    """`scores`: the sections of `evaluate/scores.json` by model. What is not of the expected form is left out."""
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
        if first in (own := _scores(_object(of).get("metrics"))):
            task.groups.setdefault(str(group), {})[model] = own[first]


def _count(of: dict[str, Any], key: str) -> int:
    return int(as_number(of.get(key)) or 0)


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _scores(metrics: Any) -> dict[str, Score]:
    given = {str(name): _object(of) for name, of in _object(metrics).items()}
    values = {name: (as_number(of.get("value")), as_number(of.get("stderr"))) for name, of in given.items()}
    return {name: Score(value, error) for name, (value, error) in values.items() if value is not None}


def _find_leaks(run: Run, task: Benchmark) -> None:
    """The items of which most was found, with their own text where they were among those scored by the first model."""
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
        known = run.sql(f"FROM {identifier(scored)} WHERE item IN ({items})")
        texts = {row["item"]: _text(row) for row in (dict(zip(known.columns, values, strict=True)) for values in known.fetchall())}
    names = ("share", "passage", "documents", "id")
    task.leaks = [Leak(row["item"], texts.get(row["item"], ""), *(row[name] for name in names), row["url"] or "") for row in rows]


def _text(row: dict[str, Any]) -> str:
    if "prompt" in row:
        return f"{row['prompt']} {row['answer']}"
    return "".join(texts[row["gold"] if len(texts) > 1 else 0] for texts in (row["contexts"], row["continuations"]))
