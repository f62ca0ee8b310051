"""All that a report says about a run, read once, for the page and for the terminal."""

from dataclasses import dataclass, field
from typing import Any

from corpusmill.pipeline.failures import sentence_of
from corpusmill.report.facts.alignment import Alignment, read_alignment
from corpusmill.report.facts.benchmarks import Benchmarks, read_benchmarks
from corpusmill.report.facts.classifiers import Classifier, read_classifiers
from corpusmill.report.facts.decisions import Decisions, read_decisions
from corpusmill.report.facts.dedup_details import DedupDetails, read_dedup_details
from corpusmill.report.facts.duplicates import Duplicates, read_duplicates
from corpusmill.report.facts.funnel import Component, FunnelRow, funnel, mixture, token_splits
from corpusmill.report.facts.lengths import Lengths, StageLengths
from corpusmill.report.facts.origin_counts import Encodings
from corpusmill.report.facts.origins import Origin, OriginMeasures
from corpusmill.report.facts.pii import PersonalData, personal_data
from corpusmill.report.facts.scan import Measure
from corpusmill.report.facts.tokenizers import Judgement, read_judgement
from corpusmill.report.facts.training import Scores, Training, read_figures, read_samples, read_scores, read_training
from corpusmill.report.read import DATA_STAGES, RunReader

#: A rule that removes more than this share of what came in deserves a look.
ALARM_SHARE = 0.5


@dataclass
class Summary:
    reader: RunReader
    decisions: dict[str, Decisions]
    funnel: list[FunnelRow]
    tokens: dict[str, dict[str, Any]]  # shards.json by split
    duplicates: Duplicates | None
    dedup: DedupDetails
    tokenizer: Judgement | None
    training: list[Training]
    figures: dict[str, list[tuple[str, Any]]]  # names and values by title: trainings
    scores: Scores
    samples: list[tuple[str, list[tuple[str, Any]]]]  # by model
    measures: list[dict[str, Any]]  # rows of metrics.jsonl: times and memory
    mixture: list[Component] = field(default_factory=list)
    classifiers: list[Classifier] = field(default_factory=list)
    origins: list[Origin] = field(default_factory=list)
    encodings: Encodings | None = None
    lengths: list[Lengths] = field(default_factory=list)
    personal: PersonalData | None = None
    alignment: Alignment | None = None
    benchmarks: Benchmarks = field(default_factory=lambda: Benchmarks([], []))
    warnings: list[str] = field(default_factory=list)


def read_summary(folder: str, deep: bool = True) -> Summary:
    """Reads a run. `deep=False` leaves out what only the page shows: histograms, samples, origins, cluster texts."""
    reader = RunReader(folder)
    origins, lengths, personal = OriginMeasures(), list[Lengths](), personal_data(reader) if deep else None
    decisions: dict[str, Decisions] = {}
    for stage in DATA_STAGES:
        others: list[Measure] = []
        if deep:
            length = StageLengths(stage, first=not decisions)
            others = [length, *origins.of(reader, stage), *([personal] if personal is not None and stage == "filter" else [])]
        found = read_decisions(reader, stage, histograms=deep, samples=deep, others=others)
        if found is not None:
            decisions[stage] = found
            lengths += length.sets if deep else []
    summary = Summary(
        reader, decisions, funnel(reader, decisions), token_splits(reader), read_duplicates(reader, texts=deep),
        read_dedup_details(reader, examples=deep), read_judgement(reader),
        read_training(reader), read_figures(reader), read_scores(reader), read_samples(reader),
        reader.json_lines("metrics.jsonl"), mixture(reader), read_classifiers(reader, decisions.get("filter")),
    )  # fmt: skip
    summary.benchmarks = read_benchmarks(reader, summary.scores.models, summary.scores.sections, examples=deep)
    if deep:
        summary.origins, summary.encodings = origins.read(reader), origins.encodings
        summary.lengths, summary.personal = lengths, personal
        summary.alignment = read_alignment(reader)
    summary.warnings = warnings(summary)
    return summary


def warnings(summary: Summary) -> list[str]:
    """What a reader should know first: what is unfinished, damaged, suspicious, and what the stages themselves warned of."""
    reader = summary.reader
    found = [
        f"{sentence_of(name, row)}; the task was given up, and none of its documents is here (the same command tries it again)."
        for name, state in reader.stages.items()
        for row in state.quarantined
    ]
    found += reader.warnings
    wanted = reader.description.get("recipe")
    for name, state in reader.stages.items():
        if state.status == "unfinished":
            found.append(f"{name}: not finished (tasks done: {len(state.tasks):,}), and its numbers cover only what is done.")
        elif state.status == "missing" and isinstance(wanted, dict) and name in wanted:
            found.append(f"{name}: the recipe has this stage, but it has not run yet.")
    for stage, d in summary.decisions.items():
        if d.rows and not d.kept:
            found.append(f"{stage}: none of {d.rows:,} documents was kept.")
        alarming = [rule for rule in d.by_removal() if stage != "ingest" and d.rows >= 20 and rule.fired > ALARM_SHARE * d.rows]
        found += [f"{stage}: {rule.name} fired on {rule.fired / d.rows:.1%} of the documents." for rule in alarming]
    for classifier in summary.classifiers:
        if classifier.decides:
            found += [f"filter: classifier {classifier.name}: {sentence}" for sentence in classifier.warnings()]
    bad = [training for training in summary.training if training.not_finite]
    found += [f"{training.stage}: steps whose loss was not a finite number: {training.not_finite:,}." for training in bad]
    found += [f"{training.stage}: steps that were skipped: {training.skipped:,}." for training in summary.training if training.skipped]
    for name, state in reader.stages.items():
        found += [f"{name}: {sentence}" for task in state.tasks for sentence in task.warnings]
    return list(dict.fromkeys(found))


def stage_times(measures: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """metrics.jsonl summed up by stage and phase, in the order in which they first ran."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for measure in measures:
        key = (str(measure.get("stage", "")), str(measure.get("phase", "")))
        counts = {"seconds": 0.0, "tasks": 0, "rows_in": 0, "bytes_in": 0, "peak_mb": 0}
        row = rows.setdefault(key, {"stage": key[0], "phase": key[1], **counts})
        for name in ("seconds", "tasks", "rows_in", "bytes_in"):
            row[name] += _count(measure.get(name))
        row["peak_mb"] = max(row["peak_mb"], _count(measure.get("peak_mb")))
        row["workers"] = measure.get("workers")
    return list(rows.values())


def _count(value: Any) -> float:
    """A number that is none (a damaged file) counts nothing."""
    return value if isinstance(value, int | float) else 0
