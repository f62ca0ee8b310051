"""Reads all data of a report once, for the page and for the terminal."""

import re
from dataclasses import dataclass, field
from typing import Any

from corpusmill.pipeline.failures import sentence_of
from corpusmill.report.queries.alignment import read_alignment
from corpusmill.report.queries.ask import Query, ask
from corpusmill.report.queries.classifiers import UsedClassifier, read_classifiers
from corpusmill.report.queries.duplicates import Duplicates, Earlier, FullClusters, read_duplicates, read_earlier, read_full_clusters
from corpusmill.report.queries.inside import Contamination, TopLines, read_contamination, read_cuts, read_top_lines
from corpusmill.report.queries.language_model import LanguageModel, read_language_model
from corpusmill.report.queries.origins import Origin, dropped_languages, read_by_language, read_origins, read_rights
from corpusmill.report.queries.rules import (
    Decisions,
    Funnel,
    FunnelRow,
    read_decisions,
    read_funnel,
    read_overlap,
    read_steps,
)  # fmt: skip
from corpusmill.report.queries.thresholds import Changes, Headline, NearMisses, headline, read_changes, read_near_misses
from corpusmill.report.queries.tokens import Component, Judgement, mixture, read_judgement, token_splits
from corpusmill.report.queries.training import (
    Benchmarks,
    Result,
    Scores,
    Training,
    read_benchmarks,
    read_result,
    read_samples,
    read_scores,
    read_training,
)
from corpusmill.report.queries.values import Histogram, Lengths, PersonalData, read_histograms, read_lengths, read_personal_data
from corpusmill.report.query.run import Run
from corpusmill.report.read import DATA_STAGES, RunReader

#: The warnings name a rule that removes more than this share of a stage's documents. A doubt about a classifier weighs as much.
ALARM_SHARE = 0.5
#: The share that a stage's own warning tells: `3 of 1,200`, `12.5%`.
_TOLD = re.compile(r"(\d[\d,]*) of (\d[\d,]*)|(\d+(?:\.\d+)?)%")
#: Rules of ingest on pages that are lost although they had a text, here or in a browser.
EMPTY_PAGES = {"only_scripts": "pages that hold only scripts", "no_main_text": "pages whose markup holds text, but no main text"}
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

    steps: Query | None = None
    overlaps: dict[str, Query | None] = field(default_factory=dict)
    histograms: dict[str, dict[str, Histogram]] = field(default_factory=dict)  # by stage and column
    changes: dict[str, Changes] = field(default_factory=dict)  # of the filter stage's rules
    near: dict[str, list[NearMisses]] = field(default_factory=dict)
    headline: Headline | None = None
    origins: list[Origin] = field(default_factory=list)
    by_language: Query | None = None
    rights: Query | None = None
    lengths: list[Lengths] = field(default_factory=list)
    lengths_queries: list[Query] = field(default_factory=list)
    alignment: dict[str, Query] | None = None


@dataclass(frozen=True)
class Facts:
    """What the title says of a run. `date`: of its last command, as in ISO 8601. `seconds`: of all work, over all commands. What the run's
    files do not tell is empty, or 0."""

    name: str
    recipe: str
    inputs: tuple[str, ...]
    date: str
    seconds: float
    version: str


@dataclass
class Summary:
    """All data of a report. `page` is empty where `read_summary` was called with `deep=False`."""

    reader: RunReader
    decisions: dict[str, Decisions]
    funnel: Funnel | None
    tokens: dict[str, dict[str, Any]]  # shards.json by split
    duplicates: Duplicates | None
    cuts: Query | None
    top_lines: TopLines | None
    contamination: Contamination | None
    full_clusters: FullClusters | None
    earlier: Earlier | None
    tokenizer: Judgement | None
    training: list[Training]
    scores: Scores
    samples: list[tuple[str, list[tuple[str, Any]]]]  # by model
    result: Result | None  # of the last model
    times: Query | None  # one row for each phase of a stage
    stage_times: Query | None  # one row for each stage
    facts: Facts
    mixture: list[Component]
    classifiers: list[UsedClassifier]
    benchmarks: Benchmarks
    personal: PersonalData | None
    language_model: LanguageModel | None = None
    page: PageData = field(default_factory=PageData)
    lost_languages: str = ""  # those that the rule on the language dropped most of
    warnings: list[str] = field(default_factory=list)

    @property
    def unit(self) -> str:
        """What came into the run: pages, if the crawl has the answers of servers, else documents."""
        status = self.page.histograms.get("ingest", {}).get("http_status")
        return "pages" if status is not None and status.values else "documents"

    @property
    def verdicts(self) -> list[str]:
        """The sentences about variants that the run has compared (`ablate/result.json`)."""
        rows = (self.reader.json("ablate/result.json", dict) or {}).get("variants")
        found = [row.get("sentence") for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
        return [sentence for sentence in found if isinstance(sentence, str)]

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
        scores, samples, training, times = read_scores(run.reader), read_samples(run.reader), read_training(run.reader), read_times(run)
        summary = Summary(
            run.reader, decisions, funnel, token_splits(run.reader), read_duplicates(run, texts=deep), read_cuts(run), read_top_lines(run),
            read_contamination(run, examples=deep), read_full_clusters(run), read_earlier(run, examples=deep), read_judgement(run.reader),
            training, scores, samples, read_result(scores, samples, training), times,
            read_times(run, ("stage",)), read_facts(run.reader, times), mixture(run.reader),
            read_classifiers(run, decisions.get("filter")), read_benchmarks(run, scores.models, scores.sections, examples=deep),
            read_personal_data(run), read_language_model(run),
        )  # fmt: skip
        summary.lost_languages = dropped_languages(run) if "filter" in decisions else ""
        if deep:
            summary.page = _read_page(run, decisions)
        summary.warnings = warnings(summary)
    return summary


def _read_page(run: Run, decisions: dict[str, Decisions]) -> PageData:
    page = PageData(read_steps(run, decisions), origins=read_origins(run, decisions))
    page.lengths, page.lengths_queries = read_lengths(run, list(decisions))
    for stage, d in decisions.items():
        page.overlaps[stage], page.histograms[stage] = read_overlap(run, d), read_histograms(run, d)
        page.near[stage] = read_near_misses(run, d, MOST_RULES)
    if "filter" in decisions:
        page.by_language, page.rights = read_by_language(run), read_rights(run)
        page.changes = read_changes(run, decisions["filter"])
    page.headline = headline(decisions, page.changes)
    page.alignment = read_alignment(run)
    return page


def read_facts(reader: RunReader, times: Query | None) -> Facts:
    """Reads `run.json` and `progress.json`; `times` are the seconds of the phases."""
    described, progress = reader.description, reader.json("progress.json", dict) or {}
    inputs, versions = described.get("inputs"), described.get("versions")
    return Facts(
        reader.name, str(described.get("recipe_name") or ""), tuple(map(str, inputs)) if isinstance(inputs, list) else (),
        str(progress.get("ended") or progress.get("began") or "")[:10], sum(row["seconds"] for row in times.rows) if times else 0.0,
        str(versions.get("corpusmill", "")) if isinstance(versions, dict) else "",
    )  # fmt: skip


def read_times(run: Run, by: tuple[str, ...] = ("stage", "phase")) -> Query | None:
    """Returns the sums of `metrics.jsonl` `by` stage or by stage and phase, in the order in which they first ran, and the greatest of their
    peaks. A value that is not a number is ignored."""
    if "metrics" not in run.names:
        return None
    known = run.table("metrics").columns
    values = {name: f"TRY_CAST({name} AS DOUBLE)" if name in known else "NULL::DOUBLE"
              for name in ("seconds", "tasks", "rows_in", "bytes_in", "peak_mb")}  # fmt: skip
    names = ", ".join(f"{name}::VARCHAR AS {name}" if name in known else f"'' AS {name}" for name in ("stage", "phase"))
    return ask(run, f"times-{'-'.join(by)}", f"Time and memory by {' and '.join(by)}", f"""
        SELECT {", ".join(by)}, coalesce(sum(seconds), 0) AS seconds, coalesce(sum(tasks), 0)::BIGINT AS tasks,
          sum(rows_in) / nullif(sum(seconds), 0) AS rows_a_second, sum(bytes_in) / nullif(sum(seconds), 0) / 1e6 AS mb_a_second,
          coalesce(max(peak_mb), 0)::BIGINT AS peak_mb
        FROM (SELECT row_number() OVER () AS line, {names},
          {", ".join(f"{value} AS {name}" for name, value in values.items())} FROM metrics)
        GROUP BY {", ".join(by)}
        ORDER BY min(line)
    """)  # fmt: skip


def warnings(summary: Summary) -> list[str]:
    """Returns the report's warnings: first that data are missing or broken, then suspicious numbers and the stages' own warnings, the
    largest share first."""
    reader = summary.reader
    broken = [
        f"{sentence_of(name, row)}; the task was given up, and none of its documents is here (run the same command to try it again)."
        for name, state in reader.stages.items()
        for row in state.quarantined
    ]
    broken += reader.warnings
    wanted = reader.description.get("recipe")
    for name, state in reader.stages.items():
        if state.status == "unfinished":
            broken.append(f"{name}: not finished (tasks done: {len(state.tasks):,}), and its numbers cover only what is done.")
        elif state.status == "missing" and isinstance(wanted, dict) and name in wanted:
            broken.append(f"{name}: the recipe has this stage, but it has not run yet.")
    broken += [f"{stage}: none of {d.rows:,} documents was kept." for stage, d in summary.decisions.items() if d.rows and not d.kept]
    bad = [training for training in summary.training if training.not_finite]
    broken += [f"{training.stage}: steps whose loss was not a finite number: {training.not_finite:,}." for training in bad]
    found: list[tuple[float, str]] = []
    most = f" (most of all {summary.lost_languages})" if summary.lost_languages else ""
    advice = {"language": f", which are in languages that the recipe does not keep{most}; the preset fineweb-2 has rules for others"}
    for stage, d in summary.decisions.items():
        alarming = [rule for rule in d.by_removal() if stage != "ingest" and d.rows >= 20 and rule.fired > ALARM_SHARE * d.rows]
        found += [
            (rule.fired / d.rows, f"{stage}: {rule.name} fired on {rule.fired / d.rows:.1%} of the documents{advice.get(rule.name, '')}.")
            for rule in alarming
        ]
    lost = {rule: count.fired for rule, count in summary.decisions["ingest"].rules.items()} if "ingest" in summary.decisions else {}
    for rule, sentence in EMPTY_PAGES.items():
        if lost.get(rule):
            share = lost[rule] / summary.decisions["ingest"].rows
            found.append((share, f"ingest: {sentence}: {lost[rule]:,} of {summary.decisions['ingest'].rows:,} records."))
    for classifier in summary.classifiers:
        if classifier.decides:
            found += [(ALARM_SHARE, f"filter: classifier {classifier.name}: {sentence}") for sentence in classifier.warnings()]
    found += [(ALARM_SHARE, f"filter: {sentence}") for sentence in (summary.language_model.warnings() if summary.language_model else ())]
    skipping = [training for training in summary.training if training.skipped]
    found += [(each.skipped / each.steps, f"{each.stage}: steps that were skipped: {each.skipped:,}.") for each in skipping]
    for name, state in reader.stages.items():
        found += [(_told(sentence), f"{name}: {sentence}") for task in state.tasks for sentence in task.warnings]
    return list(dict.fromkeys([*broken, *(sentence for _, sentence in sorted(found, key=lambda each: -each[0]))]))


def _told(sentence: str) -> float:
    """Returns the first share that a sentence tells; 0 if it tells none."""
    told = _TOLD.search(sentence)
    if told is None:
        return 0.0
    part, whole, percent = (float(number.replace(",", "")) if number else 0.0 for number in told.groups())
    return percent / 100 if told[3] else part / whole if whole else 0.0
