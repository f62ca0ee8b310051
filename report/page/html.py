"""`report.html`: the whole run on one page that holds all it needs and lets nothing else in: see page.py."""

import json
from dataclasses import replace
from typing import Any

import numpy as np

from corpusmill.pipeline.redact import redact, walked
from corpusmill.pipeline.safe import safe_line
from corpusmill.report.facts import tokenizers
from corpusmill.report.facts.classifiers import can_fail
from corpusmill.report.facts.contamination import stayed
from corpusmill.report.facts.decisions import Decisions
from corpusmill.report.facts.dedup_details import FULL
from corpusmill.report.facts.duplicates import LISTS, told
from corpusmill.report.facts.examples import Examples, examples
from corpusmill.report.facts.funnel import Step, characters_a_token, no_pages, packings, steps
from corpusmill.report.facts.headline import Headline, headline
from corpusmill.report.facts.histogram import Histogram, number
from corpusmill.report.facts.lengths import QUANTILES
from corpusmill.report.facts.near_view import NearMisses, near_misses
from corpusmill.report.facts.origins import biggest_loss
from corpusmill.report.facts.summary import Summary, read_summary, stage_times
from corpusmill.report.facts.thresholds import Changes, is_number, recipe_line
from corpusmill.report.facts.training import Training
from corpusmill.report.live.status import unfinished
from corpusmill.report.live.status_view import clock
from corpusmill.report.page import classifier_figures, decided_figures, figures
from corpusmill.report.page.overlap_view import OverlapView, overlap_view
from corpusmill.report.page.page import templates, whole_page
from corpusmill.report.page.training_figures import HEIGHT, drawn, training_charts
from corpusmill.report.read import DATA_STAGES, Rule
from corpusmill.report.shown import alignment as shown_alignment
from corpusmill.report.shown import classifiers as shown_classifiers
from corpusmill.report.shown import dedup as shown_dedup
from corpusmill.report.shown import evaluation as shown_evaluation
from corpusmill.report.shown import inside as shown_inside
from corpusmill.report.shown import origins as shown_origins
from corpusmill.report.shown import rules as shown_rules
from corpusmill.report.shown import times as shown_times
from corpusmill.report.shown import tokenizer as shown_tokenizer
from corpusmill.report.shown import tokens as shown_tokens
from corpusmill.report.shown import training as shown_training
from corpusmill.report.shown import values as shown_values
from corpusmill.report.shown.shown import Shown, slug

REPORT_FILE = "report.html"
#: What gives the queries of each section.
QUERIES = {
    "rules": shown_rules, "measured": shown_values, "origins": shown_origins, "classifiers": shown_classifiers, "dedup": shown_dedup,
    "inside": shown_inside, "tokenizer": shown_tokenizer, "tokens": shown_tokens, "training": shown_training, "alignment": shown_alignment,
    "evaluation": shown_evaluation, "times": shown_times,
}  # fmt: skip
SAMPLE_TEXT = 700
#: Warnings, rules and histograms that a page shows; beyond, it says how many more there are.
MAX_WARNINGS, MAX_TABLE, MAX_HISTOGRAMS = 50, 100, 80
#: Sliders under one histogram.
MAX_CHANGES = 8


class Page:
    """Collects the page's charts, and the queries of all that it shows, while the template asks for them."""

    def __init__(self, summary: Summary):
        self.summary = summary
        self.figures: list[figures.Figure] = []
        self.queries: dict[str, Shown] = {}
        self.near: dict[str, list[NearMisses]] = {}
        self.sliders = 0

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
        rules = {h.column: [rule for rule in decisions.thresholds if rule.column == h.column] for h in decisions.histograms.values()}
        return [self._histogram(h, rules[h.column], decisions, card) for h, card in cards(decisions)]

    def card(self, decisions: Decisions, name: str) -> str | None:
        """The id of the card with the values that a rule judges; None where it has none."""
        rule = decisions.rule(name)
        return next((card for h, card in cards(decisions) if rule is not None and h.column == rule.column), None)

    def other_thresholds(self, decisions: Decisions, name: str) -> str | None:
        """The id of the table of a rule's other thresholds; None where it has none."""
        rule, card = decisions.rule(name), self.card(decisions, name)
        rules = [each for each in decisions.thresholds if rule is not None and each.column == rule.column]
        names = [found.rule.rule for found in changes_of(rules, decisions)]
        return f"{card}-{names.index(name)}" if card is not None and name in names else None

    def _histogram(self, histogram: Histogram, rules: list[Rule], decisions: Decisions, card: str = "") -> dict[str, Any]:
        return {
            "id": card,
            "figure": self.chart(figures.histogram_figure(histogram, rules)),
            "height": 240,
            "title": histogram.column,
            "rules": [
                f"{rule.rule}: fails if {rule.comparison} {number(rule.threshold)}" + (f" ({said})" if said else "")
                for rule in rules
                for said in [decisions.meanings.get(rule.rule)]
            ],
            "caption": caption(histogram, bool(rules)),
            "histogram": histogram,
            "changes": changes_of(rules, decisions),
            "uncounted": uncounted(rules, decisions),
            "flat": int(np.count_nonzero(histogram.kept + histogram.dropped)) <= 1,
        }

    def slider(self, decisions: Decisions, changes: Changes) -> dict[str, str]:
        """What the page's script needs to say what each threshold keeps."""
        self.sliders += 1
        rules = [rule for rule in decisions.thresholds if rule.column == changes.rule.column and is_number(rule.threshold)]
        thresholds = [changes.change(place).threshold for place in range(len(changes.thresholds))]
        told = {
            "rule": safe_line(changes.rule.rule, 200), "fails": changes.rule.comparison, "thresholds": thresholds, "now": changes.place,
            "documents": changes.documents.tolist(), "characters": changes.characters.tolist(), "of": decisions.rows,
            "line": rules.index(changes.rule),
        }  # fmt: skip
        return {"id": f"slider-{self.sliders}", "json": json.dumps(told, separators=(",", ":"))}

    def conditional(self) -> bool:
        """Whether a step of the filter stage has measured only what passed the rules before it."""
        steps = self.summary.reader.settings("filter").get("steps")
        options = [value for step in steps if isinstance(step, dict) for value in step.values()] if isinstance(steps, list) else []
        return any(isinstance(each, dict) and each.get("only_passing") is True for each in options)

    def overlap(self, decisions: Decisions) -> OverlapView | None:
        return overlap_view(decisions)

    def steps(self) -> list[Step]:
        return steps(self.summary.decisions)

    def characters_a_token(self) -> float | None:
        return characters_a_token(self.summary.funnel)

    def headline(self) -> Headline | None:
        decisions = self.summary.decisions
        return headline(decisions, self.near_misses(decisions["filter"]) if "filter" in decisions else [])

    def examples(self, found: Headline) -> Examples | None:
        """Pages that the rule of the headline dropped; None where the run holds none of their texts."""
        if found.decisions.stage != "filter":
            return None
        language = next((origin.kept_most() for origin in self.summary.origins if origin.column == "language"), None)
        made = examples(self.summary.reader, found.decisions, found.deciding or found.most, language, SAMPLE_TEXT)
        return made if any(each.text for each in made.shown) else None

    def no_pages(self) -> int:
        return no_pages(self.summary.decisions)

    def scores(self, decisions: Decisions, column: str, own: float) -> dict[str, Any] | None:
        """The chart of a classifier's scores; None where there are none. `own`: its threshold, drawn where no rule decides by another."""
        histogram = decisions.histograms.get(column)
        if histogram is None or not histogram.values:
            return None
        rules = [rule for rule in decisions.thresholds if rule.column == column and can_fail(rule)]
        shown = self._histogram(histogram, rules, decisions)
        if not rules:
            self.figures[shown["figure"]] = figures.histogram_figure(histogram, [Rule("", "", column, "yes: >=", own)])
        return shown

    def near_misses(self, decisions: Decisions) -> list[NearMisses]:
        """For each rule that fired: the documents just dropped and just kept, with the beginning of their text."""
        if decisions.stage not in self.near:
            self.near[decisions.stage] = near_misses(self.summary.reader, decisions, MAX_TABLE, SAMPLE_TEXT)
        return self.near[decisions.stage]

    def curves(self, training: Training) -> list[dict[str, Any]]:
        """The charts of a training, the loss first."""
        charts = zip(training_charts(training), drawn(training), strict=True)
        return [{"title": title, "caption": caption, "figure": self.chart(figure), "height": HEIGHT,
                 "query": self.shown(shown_training.curve(curve, training))} for (title, caption, figure), curve in charts]  # fmt: skip


def cards(decisions: Decisions) -> list[tuple[Histogram, str]]:
    """The histograms of a stage that are drawn, columns with a threshold first; each with the id of its part of the page."""
    judged = {rule.column for rule in decisions.thresholds}
    drawn = [h for h in sorted(decisions.histograms.values(), key=lambda h: h.column not in judged) if h.values][:MAX_HISTOGRAMS]
    return [(h, f"card-{decisions.stage}-{place}-{slug(h.column)[:40]}") for place, h in enumerate(drawn)]


def changes_of(rules: list[Rule], decisions: Decisions) -> list[Changes]:
    """What other thresholds of some rules keep, where a recipe can change them."""
    names = dict.fromkeys(rule.rule for rule in rules if decisions.stage == "filter")
    return [decisions.changes[name] for name in names if name in decisions.changes][:MAX_CHANGES]


def uncounted(rules: list[Rule], decisions: Decisions) -> list[str]:
    """The rules among some of which other thresholds move the one of another rule, so that nobody has counted what they keep."""
    names = dict.fromkeys(rule.rule for rule in rules if decisions.stage == "filter" and rule.rule in decisions.numeric)
    return [name for name in names if decisions.moves(name)][:MAX_CHANGES]


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
        page=page, queries=QUERIES, s=summary, figures=figures, decided_figures=decided_figures, recipe_line=recipe_line,
        biggest_loss=biggest_loss, quantiles=QUANTILES, classifier_figures=classifier_figures, tokenizers=tokenizers,
        data_stages=DATA_STAGES, times=stage_times(summary.measures),
        max_warnings=MAX_WARNINGS, max_table=MAX_TABLE, lists=LISTS, evidence=told,
        progress=unfinished(summary.reader.storage.root), clock=clock, full_shown=FULL, stayed=stayed, packings=packings(summary.tokens),
        description=json.dumps(walked(summary.reader.description, redact), indent=2, ensure_ascii=False, sort_keys=True),
    )  # fmt: skip
    return body, page


def write_report(folder: str) -> str:
    """Writes RUN/report.html atomically and returns its path. Raises InputError where `folder` is no run."""
    summary = read_summary(folder)
    page = render(summary)
    summary.reader.storage.write_bytes(REPORT_FILE, page.encode("utf-8", "replace"))
    return summary.reader.storage.path(REPORT_FILE)
