"""`diff`: what two runs keep and drop differently, which rules did it, and how that changes what they keep."""

from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console

from corpusmill.pipeline.schemas import REPORT
from corpusmill.report.answers.choose import Rows, table_rows
from corpusmill.report.answers.diff_columns import QUANTILES, ColumnChange, read_columns
from corpusmill.report.answers.diff_documents import (
    ORDER,
    Counts,
    Pair,
    RuleCount,
    open_pair,
    read_counts,
    read_properties,
    read_rules,
)
from corpusmill.report.answers.diff_recipes import ABSENT, read_settings
from corpusmill.report.answers.sample import add_texts
from corpusmill.report.machine import as_json
from corpusmill.report.query.run import Run
from corpusmill.report.read import Rule

SEED = 0


@dataclass(frozen=True)
class Wanted:
    """`stage`: compare its decisions alone; `samples` documents are shown of each side, with `chars` characters of their texts."""

    stage: str | None = None
    samples: int = 3
    chars: int = 400
    all_columns: bool = False


@dataclass
class Sample:
    """A document that one run keeps and the other drops: its row in the report of the `stage` that drops it, its text as it came in there,
    and that run's rules."""

    stage: str
    row: dict[str, Any]
    rules: list[Rule]


@dataclass
class Difference:
    """Two runs compared. `samples` are of documents that only `a`, and that only `b` keeps."""

    folders: dict[str, str]
    stages: list[str]
    counts: dict[str, Counts]
    rules: list[RuleCount]
    thresholds: dict[str, dict[tuple[str, str], Rule]]
    columns: list[ColumnChange]
    columns_of_one: list[str]
    properties: dict[str, list[tuple[str, int, int]]]
    settings: list[tuple[str, Any, Any]]
    samples: dict[str, list[Sample]]
    notes: list[str] = field(default_factory=list)

    def of(self, name: str) -> Counts:
        return self.counts.get(name, Counts())

    def kept(self, side: str) -> int:
        """How many documents a run keeps."""
        names = ("both", f"only_{side}", f"kept_unseen_{'b' if side == 'a' else 'a'}")
        return sum(self.of(name).documents for name in names)

    def as_json(self) -> dict[str, Any]:
        properties = {n: [{"value": v, "a": a, "b": b} for v, a, b in rows] for n, rows in self.properties.items()}
        return {
            "a": self.folders["a"], "b": self.folders["b"], "stages": self.stages,
            "documents": {name: asdict(counts) for name, counts in self.counts.items()},
            "kept": {"a": self.kept("a"), "b": self.kept("b")},
            "rules": [{**asdict(rule), "threshold": {s: _threshold(self.thresholds[s].get((rule.stage, rule.rule))) for s in self.folders}}
                      for rule in self.rules],
            "quantiles": list(QUANTILES), "columns": [asdict(column) for column in self.columns], "columns_of_one": self.columns_of_one,
            **properties,
            "settings": [{"key": key, "a": a, "b": b} for key, a, b in self.settings],
            "samples": {name: [{"stage": s.stage, **s.row} for s in samples] for name, samples in self.samples.items()},
            "notes": self.notes,
        }  # fmt: skip


def _threshold(rule: Rule | None) -> dict[str, Any] | None:
    return None if rule is None else {"column": rule.column, "comparison": rule.comparison, "threshold": rule.threshold}


def diff(a: str, b: str, wanted: Wanted, form: str, console: Console) -> None:
    """Prints how the runs in the folders `a` and `b` differ; `form` is `text` or `json`. Raises InputError for what is no run."""
    from corpusmill.report.answers.diff_view import show_difference

    found = compare(a, b, wanted)
    if form == "json":
        print(as_json(found.as_json(), 2))
    else:
        show_difference(found, wanted, console)


def compare(a: str, b: str, wanted: Wanted) -> Difference:
    """How the runs in two folders differ. Raises InputError."""
    with open_pair(a, b, wanted.stage) as pair:
        columns, alone = read_columns(pair)
        return Difference(
            folders={"a": a, "b": b},
            stages=pair.stages,
            counts=read_counts(pair),
            rules=read_rules(pair),
            thresholds={side: _thresholds(run, pair.chains[side]) for side, run in pair.runs.items()},
            columns=columns,
            columns_of_one=alone,
            properties=read_properties(pair),
            settings=_settings(pair),
            samples={f"only_{side}": _samples(pair, side, wanted) for side in pair.runs},
            notes=_notes(pair),
        )


def _thresholds(run: Run, stages: list[str]) -> dict[tuple[str, str], Rule]:
    return {(stage, rule.rule): rule for stage in stages for rule in run.rules(stage)}


def _settings(pair: Pair) -> list[tuple[str, Any, Any]]:
    """What `run.json` says differently; for a threshold that one recipe leaves to its preset, the one that the stage applied."""
    rows = read_settings(pair.runs["a"].reader, pair.runs["b"].reader)
    presets = [{f"filter.thresholds.{rule.rule}": rule.threshold for rule in run.rules("filter")} for run in pair.runs.values()]
    return [
        (key, *(preset.get(key, value) if value == ABSENT else value for value, preset in zip(values, presets, strict=True)))
        for key, *values in rows
    ]


def _samples(pair: Pair, side: str, wanted: Wanted) -> list[Sample]:
    """Documents that `side` keeps and the other run drops, drawn by a hash of their ids, as the other run saw them."""
    other = "b" if side == "a" else "a"
    sql = (
        f"SELECT id, level_{other} FROM matched WHERE kept_{side} AND NOT kept_{other} "
        f"ORDER BY md5(id || ':{SEED}'), copy LIMIT {int(wanted.samples)}"
    )
    chosen = [(str(id_), ORDER[level]) for id_, level in pair.query(sql)]
    run = pair.runs[other]
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for stage in dict.fromkeys(stage for _, stage in chosen):
        table: Rows = table_rows(run, f"{stage}_report", stage, REPORT.names)
        table.add("NOT kept AND list_contains(?, id)", [id_ for id_, where in chosen if where == stage])
        here = list(table.read(table.columns, "", 0))
        add_texts(run.reader, stage, here, wanted.chars)
        rows.update({(row["id"], stage): row for row in here})
    return [Sample(stage, rows[id_, stage], run.rules(stage)) for id_, stage in chosen if (id_, stage) in rows]


def _notes(pair: Pair) -> list[str]:
    """What is unlike in the two runs beside their recipes, or damaged."""
    notes = [f"{side.upper()}: {run.reader.stale.sentence}" for side, run in pair.runs.items() if run.reader.stale]
    for side, other in (("a", "b"), ("b", "a")):
        more = [name for name in pair.chains[side] if name not in pair.chains[other]]
        later = [name for name in ORDER if f"{name}_report" in pair.runs[side].tables and f"{name}_report" not in pair.runs[other].tables]
        if more:
            notes.append(f"{other.upper()} has no {', '.join(more)}.")
        if (later := [name for name in later if name not in more]) and len(pair.stages) > 1:
            notes.append(f"{other.upper()} has no {', '.join(later)}, so both are compared up to {pair.stages[-1]}.")
        run = pair.runs[side]
        unfinished = [name for name in pair.stages if run.reader.stages[name].status == "unfinished"]
        if unfinished:
            notes.append(f"{side.upper()}: {', '.join(unfinished)} not finished, so it has not decided about all documents yet.")
        notes += [f"{side.upper()}: {warning}" for warning in run.reader.warnings]
    return notes
