"""`report.html`: the whole run on one page that holds all it needs and lets nothing else in: see page.py."""

import json
from dataclasses import replace
from typing import Any

from corpusmill.pipeline.report import (
    classifier_figures,
    figures,
    shown_dedup,
    shown_inside,
    shown_times,
    shown_tokenizer,
    shown_tokens,
    shown_training,
    tokenizers,
)
from corpusmill.pipeline.report.contamination import stayed
from corpusmill.pipeline.report.decisions import Decisions
from corpusmill.pipeline.report.dedup_details import FULL
from corpusmill.pipeline.report.duplicates import LISTS, evidence
from corpusmill.pipeline.report.funnel import packings
from corpusmill.pipeline.report.histogram import Histogram, number
from corpusmill.pipeline.report.page import templates, whole_page
from corpusmill.pipeline.report.read import DATA_STAGES, Rule
from corpusmill.pipeline.report.shown import Shown
from corpusmill.pipeline.report.status import unfinished
from corpusmill.pipeline.report.status_view import clock
from corpusmill.pipeline.report.summary import Summary, read_summary, stage_times
from corpusmill.pipeline.report.training import Training
from corpusmill.pipeline.report.training_figures import HEIGHT, drawn, training_charts

REPORT_FILE = "report.html"
#: What gives the queries of each section.
QUERIES = {
    "dedup": shown_dedup, "inside": shown_inside, "tokenizer": shown_tokenizer, "tokens": shown_tokens, "training": shown_training,
    "times": shown_times,
}  # fmt: skip
SAMPLE_TEXT = 700
#: Warnings, rules and histograms that a page shows; beyond, it says how many more there are.
MAX_WARNINGS, MAX_TABLE, MAX_HISTOGRAMS = 50, 100, 80


class Page:
    """Collects the page's charts, and the queries of all that it shows, while the template asks for them."""

    def __init__(self, summary: Summary):
        self.summary = summary
        self.figures: list[figures.Figure] = []
        self.queries: dict[str, Shown] = {}

    def chart(self, figure: figures.Figure) -> int:
        """Registers a chart; returns its number."""
        self.figures.append(figure)
        return len(self.figures) - 1

    def shown(self, shown: Shown) -> Shown:
        """Registers the query of a table or chart, under another name where its own is taken."""
        name, number = shown.name, 1
        while name in self.queries:
            number += 1
            name = f"{shown.name}-{number}"
        self.queries[name] = shown if number == 1 else replace(shown, name=name)
        return self.queries[name]

    def histograms(self, decisions: Decisions) -> list[dict[str, Any]]:
        """The charts of a stage: columns with a threshold first, then the others, each in the report's order."""
        by_column: dict[str, list[Rule]] = {}
        for rule in decisions.thresholds:
            by_column.setdefault(rule.column, []).append(rule)
        ordered = sorted(decisions.histograms.values(), key=lambda h: h.column not in by_column)
        drawn = [h for h in ordered if h.values][:MAX_HISTOGRAMS]
        return [self._histogram(h, by_column.get(h.column, [])) for h in drawn]

    def _histogram(self, histogram: Histogram, rules: list[Rule]) -> dict[str, Any]:
        return {
            "figure": self.chart(figures.histogram_figure(histogram, rules)),
            "height": 240,
            "title": histogram.column,
            "rules": [f"{rule.rule}: fails if {rule.comparison} {number(rule.threshold)}" for rule in rules],
            "caption": caption(histogram, bool(rules)),
        }

    def scores(self, decisions: Decisions, column: str, own: float) -> dict[str, Any] | None:
        """The chart of a classifier's scores; None where there are no values. `own`: its threshold, drawn where no rule has another."""
        histogram = decisions.histograms.get(column)
        if histogram is None or not histogram.values:
            return None
        rules = [rule for rule in decisions.thresholds if rule.column == column]
        shown = self._histogram(histogram, rules)
        if not rules:
            self.figures[shown["figure"]] = figures.histogram_figure(histogram, [Rule("", "", column, "yes: >=", own)])
        return shown

    def near_misses(self, decisions: Decisions) -> list[dict[str, Any]]:
        """For each rule that fired or could: the documents just dropped and just kept, with the beginning of their text."""
        stage = decisions.stage
        before = {"filter": "ingest", "dedup": "filter"}.get(stage)
        if before is not None and self.summary.reader.stages[before].status == "missing":
            before = "ingest"
        samples = [s for group in (decisions.just_dropped, decisions.just_kept) for best in group.values() for s in best]
        texts = self.summary.reader.texts(before, {s.id for s in samples}, SAMPLE_TEXT) if before else {}
        thresholds = {rule.rule: rule for rule in decisions.thresholds}
        shown = []
        for rule in decisions.by_removal()[:MAX_TABLE]:
            sides = [
                (side, [{"sample": s, "text": texts.get(s.id, "")} for s in group.get(rule.name, [])])
                for side, group in (("dropped", decisions.just_dropped), ("kept", decisions.just_kept))
            ]
            shown.append({"rule": rule, "threshold": thresholds.get(rule.name), "sides": sides})
        return shown

    def curves(self, training: Training) -> list[dict[str, Any]]:
        """The charts of a training, the loss first."""
        charts = zip(training_charts(training), drawn(training), strict=True)
        return [{"title": title, "caption": caption, "figure": self.chart(figure), "height": HEIGHT,
                 "query": self.shown(shown_training.curve(curve, training))} for (title, caption, figure), curve in charts]  # fmt: skip


def caption(histogram: Histogram, thresholds: bool) -> str:
    """How many values there are, and how many of them are not drawn. `thresholds`: whether rules judge the column."""
    parts = [f"{histogram.values:,} values"]
    if histogram.mostly_zeros and not thresholds:
        kept, dropped, least = int(histogram.kept[0]), int(histogram.dropped[0]), number(float(histogram.edges[1]))
        parts.append(f"{kept + dropped:,} below {least}{f' ({dropped:,} dropped)' if dropped else ''} not drawn")
    if histogram.above:
        parts.append(f"{histogram.above:,} above {number(float(histogram.edges[-1]))} not drawn")
    if histogram.below:
        parts.append(f"{histogram.below:,} below {number(float(histogram.edges[0]))} not drawn")
    if histogram.missing:
        parts.append(f"{histogram.missing:,} not measured")
    return "; ".join(parts)


def render(summary: Summary) -> str:
    """The page's HTML. Equal runs give equal pages but for the times of metrics.jsonl."""
    body, page = render_body(summary)
    return whole_page("Corpusmill report", body, page.figures)


def render_body(summary: Summary) -> tuple[str, Page]:
    """What stands on the page, and its charts and queries."""
    page = Page(summary)
    body = templates(SAMPLE_TEXT).get_template("report.html.jinja").render(
        page=page, queries=QUERIES, s=summary, figures=figures, classifier_figures=classifier_figures, tokenizers=tokenizers,
        data_stages=DATA_STAGES, times=stage_times(summary.measures),
        max_warnings=MAX_WARNINGS, max_table=MAX_TABLE, lists=LISTS, evidence=evidence,
        progress=unfinished(summary.reader.storage.root), clock=clock, full_shown=FULL, stayed=stayed, packings=packings(summary.tokens),
        description=json.dumps(summary.reader.description, indent=2, ensure_ascii=False, sort_keys=True),
    )  # fmt: skip
    return body, page


def write_report(folder: str) -> str:
    """Writes RUN/report.html atomically and returns its path. Raises InputError where `folder` is no run."""
    summary = read_summary(folder)
    page = render(summary)
    summary.reader.storage.write_bytes(REPORT_FILE, page.encode("utf-8", "replace"))
    return summary.reader.storage.path(REPORT_FILE)
