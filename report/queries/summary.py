"""Reads all data of a report once, for the page and for the terminal."""

from dataclasses import dataclass, field
from typing import Any

from corpusmill.pipeline.failures import sentence_of
from corpusmill.report.queries.alignment import Alignment, read_alignment
from corpusmill.report.queries.ask import Query, ask
from corpusmill.report.queries.classifiers import UsedClassifier, read_classifiers
from corpusmill.report.queries.duplicates import Duplicates, Earlier, FullClusters, read_duplicates, read_earlier, read_full_clusters
from corpusmill.report.queries.inside import Contamination, Cuts, TopLines, read_contamination, read_cuts, read_top_lines
from corpusmill.report.queries.origins import Origin, read_origins
from corpusmill.report.queries.rules import (
    Decisions,
    Funnel,
    FunnelRow,
    FunnelStep,
    NoPages,
    Overlap,
    read_decisions,
    read_funnel,
    read_no_pages,
    read_overlap,
    read_steps,
)  # fmt: skip
from corpusmill.report.queries.thresholds import (
    Changes,
    Examples,
    Headline,
    NearMisses,
    headline,
    read_changes,
    read_examples,
    read_near_misses,
)  # fmt: skip
from corpusmill.report.queries.tokens import Component, Judgement, mixture, read_judgement, token_splits
from corpusmill.report.queries.training import (
    Benchmarks,
    Scores,
    Training,
    read_benchmarks,
    read_figures,
    read_samples,
    read_scores,
    read_training,
)
from corpusmill.report.queries.values import Histogram, Lengths, PersonalData, read_histograms, read_lengths, read_personal_data
from corpusmill.report.query.run import Run
from corpusmill.report.read import DATA_STAGES, RunReader

#: The warnings name a rule that removes more than this share of a stage's documents.
ALARM_SHARE = 0.5
#: Rules for which the page shows documents.
MOST_RULES = 100
#: Memory of the queries in bytes; larger results go to a temporary file. With half of it, the report of a million documents takes half as
#: long again.
MEMORY = 320 << 20
#: The tables that are read into DuckDB once, since many queries use them.
HELD = (*(f"{stage}_report" for stage in DATA_STAGES), "dedup_clusters")


@dataclass
class PageData:
    """The data that only the page shows: values, origins, documents."""

    steps: list[FunnelStep] = field(default_factory=list)
    steps_query: Query | None = None
    no_pages: NoPages | None = None
    overlaps: dict[str, Overlap | None] = field(default_factory=dict)
    histograms: dict[str, dict[str, Histogram]] = field(default_factory=dict)  # by stage and column
    changes: dict[str, Changes] = field(default_factory=dict)  # of the filter stage's rules
    near: dict[str, list[NearMisses]] = field(default_factory=dict)
    headline: Headline | None = None
    examples: Examples | None = None
    origins: list[Origin] = field(default_factory=list)
    lengths: list[Lengths] = field(default_factory=list)
    lengths_queries: list[Query] = field(default_factory=list)
    alignment: Alignment | None = None


@dataclass
class Summary:
    """All data of a report. `page` is empty where `read_summary` was called with `deep=False`."""

    reader: RunReader
    decisions: dict[str, Decisions]
    funnel: Funnel | None
    tokens: dict[str, dict[str, Any]]  # shards.json by split
    duplicates: Duplicates | None
    cuts: list[Cuts]
    cuts_query: Query | None
    top_lines: TopLines | None
    contamination: Contamination | None
    full_clusters: FullClusters | None
    earlier: Earlier | None
    tokenizer: Judgement | None
    training: list[Training]
    figures: dict[str, list[tuple[str, Any]]]  # by training's title: names and values
    scores: Scores
    samples: list[tuple[str, list[tuple[str, Any]]]]  # by model
    times: Query | None  # one row for each phase of a stage
    mixture: list[Component]
    classifiers: list[UsedClassifier]
    benchmarks: Benchmarks
    personal: PersonalData | None
    page: PageData = field(default_factory=PageData)
    warnings: list[str] = field(default_factory=list)

    @property
    def rows(self) -> list[FunnelRow]:
        """The stages of the funnel."""
        return self.funnel.rows if self.funnel else []


def read_summary(folder: str, deep: bool = True) -> Summary:
    """Reads a run. `deep=False` leaves out the data that only the page shows: histograms, samples, origins, texts of clusters."""
    with Run(folder, memory=MEMORY) as run:
        run.hold(HELD)
        funnel = read_funnel(run)
        read = {stage: read_decisions(run, stage, funnel) for stage in DATA_STAGES}
        decisions = {stage: d for stage, d in read.items() if d is not None}
        scores = read_scores(run.reader)
        summary = Summary(
            run.reader, decisions, funnel, token_splits(run.reader), read_duplicates(run, texts=deep), *read_cuts(run), read_top_lines(run),
            read_contamination(run, examples=deep), read_full_clusters(run), read_earlier(run, examples=deep), read_judgement(run.reader),
            read_training(run.reader), read_figures(run.reader), scores, read_samples(run.reader), read_times(run), mixture(run.reader),
            read_classifiers(run, decisions.get("filter")), read_benchmarks(run, scores.models, scores.sections, examples=deep),
            read_personal_data(run),
        )  # fmt: skip
        if deep:
            summary.page = _read_page(run, funnel, decisions)
        summary.warnings = warnings(summary)
    return summary


def _read_page(run: Run, funnel: Funnel | None, decisions: dict[str, Decisions]) -> PageData:
    page = PageData(*read_steps(run, decisions), origins=read_origins(run, decisions))
    page.no_pages = read_no_pages(run, funnel, decisions) if funnel else None
    page.lengths, page.lengths_queries = read_lengths(run, list(decisions))
    for stage, d in decisions.items():
        page.overlaps[stage], page.histograms[stage] = read_overlap(run, d), read_histograms(run, d)
        page.near[stage] = read_near_misses(run, d, MOST_RULES)
    if "filter" in decisions:
        page.changes = read_changes(run, decisions["filter"])
    page.headline = headline(decisions, page.changes)
    if page.headline is not None and page.headline.decisions.stage == "filter":
        language = next((origin.kept_most for origin in page.origins if origin.column == "language"), None)
        rule = page.headline.deciding or page.headline.most
        page.examples = read_examples(run, page.headline.decisions, rule, language)
    page.alignment = read_alignment(run)
    return page


def read_times(run: Run) -> Query | None:
    """Returns the sums of `metrics.jsonl` by stage and phase, in the order in which the phases first ran. A value that is not a number is
    ignored."""
    if "metrics" not in run.names:
        return None
    known = run.table("metrics").columns
    values = {name: f"TRY_CAST({name} AS DOUBLE)" if name in known else "NULL::DOUBLE"
              for name in ("seconds", "tasks", "rows_in", "bytes_in", "peak_mb")}  # fmt: skip
    names = ", ".join(f"{name}::VARCHAR AS {name}" if name in known else f"'' AS {name}" for name in ("stage", "phase"))
    return ask(run, "times", "Time and memory by stage and phase", f"""
        SELECT stage, phase, coalesce(sum(seconds), 0) AS seconds, coalesce(sum(tasks), 0)::BIGINT AS tasks,
          sum(rows_in) / nullif(sum(seconds), 0) AS rows_a_second, sum(bytes_in) / nullif(sum(seconds), 0) / 1e6 AS mb_a_second,
          coalesce(max(peak_mb), 0)::BIGINT AS peak_mb
        FROM (SELECT row_number() OVER () AS line, {names},
          {", ".join(f"{value} AS {name}" for name, value in values.items())} FROM metrics)
        GROUP BY stage, phase
        ORDER BY min(line)
    """)  # fmt: skip


def warnings(summary: Summary) -> list[str]:
    """Returns the report's warnings: unfinished stages, damaged files, suspicious numbers, and the stages' own warnings."""
    reader = summary.reader
    found = [
        f"{sentence_of(name, row)}; the task was given up, and none of its documents is here (run the same command to try it again)."
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
