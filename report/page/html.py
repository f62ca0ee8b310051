"""Makes `report.html`: the whole run on one self-contained page (page.py says how)."""

import json
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from corpusmill.pipeline.redact import redact, walked
from corpusmill.pipeline.safe import safe_line
from corpusmill.report.live.status import unfinished
from corpusmill.report.live.status_view import clock
from corpusmill.report.page import figures
from corpusmill.report.page.figures import HEIGHT, training_charts
from corpusmill.report.page.page import templates, whole_page
from corpusmill.report.queries import tokens as tokenizers
from corpusmill.report.queries.ask import Query, json_query, slug
from corpusmill.report.queries.classifiers import can_fail
from corpusmill.report.queries.duplicates import LISTS, evidence_in_words
from corpusmill.report.queries.inside import stayed
from corpusmill.report.queries.origins import biggest_loss
from corpusmill.report.queries.rules import Combination, Decisions, Overlap, RuleCount
from corpusmill.report.queries.summary import MOST_RULES, Summary, read_summary
from corpusmill.report.queries.thresholds import SAMPLE_TEXT, Changes, NearMisses, is_number, numeric_rules, recipe_line
from corpusmill.report.queries.tokens import packings, shards_file
from corpusmill.report.queries.training import FIGURES, Training
from corpusmill.report.queries.values import QUANTILES, Histogram
from corpusmill.report.read import DATA_STAGES, ReportRule
from corpusmill.report.tables import number

#: Rules that have a column in the table of combinations.
COLUMNS = 14
#: Shades for a share.
SHADES = 9


@dataclass(frozen=True)
class OverlapView:
    """Tables of rules that fire together. `rows`: each combination, whether each of `columns` is in it, and its rules without a column.
    `matrix`: for each of the paired rules, the documents that failed it and each of them (None: itself), and a shade up to `SHADES`."""

    found: Overlap
    columns: list[str]
    rows: list[tuple[Combination, list[bool], list[str]]]
    matrix: list[tuple[RuleCount, list[tuple[int | None, int]]]]

    @property
    def hidden(self) -> bool:
        """Whether a combination has rules without a column."""
        return any(others for *_, others in self.rows)


def overlap_view(found: Overlap) -> OverlapView:
    shown: Counter[str] = Counter()
    for combination in found.combinations:
        shown.update(dict.fromkeys(combination.rules, combination.documents))
    columns = [name for name, _ in sorted(shown.items(), key=lambda pair: (-pair[1], pair[0]))[:COLUMNS]]
    rows = [
        (each, [name in each.rules for name in columns], [name for name in each.rules if name not in columns])
        for each in found.combinations
    ]
    return OverlapView(found, columns, rows, [(rule, [_cell(found, rule, other) for other in found.paired]) for rule in found.paired])


def _cell(found: Overlap, rule: RuleCount, other: RuleCount) -> tuple[int | None, int]:
    if rule is other:
        return None, 0
    both = found.both.get((rule.name, other.name), 0)
    return both, round(SHADES * both / rule.fired)


REPORT_FILE = "report.html"
#: Warnings and histograms that a page shows; it says how many more there are.
MAX_WARNINGS, MAX_HISTOGRAMS = 50, 80
#: Sliders under one histogram.
MAX_CHANGES = 8


class Page:
    """Collects the page's charts and queries while the template runs."""

    def __init__(self, summary: Summary):
        self.summary = summary
        self.figures: list[figures.Figure] = []
        self.queries: dict[str, Query] = {}
        self.sliders = 0

    def chart(self, figure: figures.Figure) -> int:
        """Registers a chart and returns its number."""
        self.figures.append(figure)
        return len(self.figures) - 1

    def shown(self, query: Query) -> Query:
        """Registers the query of a table or chart, under a new name where its own is taken."""
        name, number = query.name, 1
        while name in self.queries:
            number += 1
            name = f"{query.name}-{number}"
        self.queries[name] = query if number == 1 else replace(query, name=name)
        return self.queries[name]

    def file(self, *paths: str) -> Query:
        """Returns the query of JSON files whose numbers the page shows unchanged; each is registered once."""
        query = json_query(", ".join(paths), *paths)
        return self.queries.setdefault(query.name, query)

    def histograms(self, decisions: Decisions) -> list[dict[str, Any]]:
        """Returns a stage's charts of values: columns with a threshold first, then the others in the report's order."""
        rules = {h.column: [rule for rule in decisions.thresholds if rule.column == h.column] for h, _ in self.cards(decisions)}
        return [self._histogram(h, rules[h.column], decisions, card) for h, card in self.cards(decisions)]

    def cards(self, decisions: Decisions) -> list[tuple[Histogram, str]]:
        """Returns a stage's histograms that are drawn, columns with a threshold first, each with the id of its part of the page."""
        judged = {rule.column for rule in decisions.thresholds}
        every = self.summary.page.histograms.get(decisions.stage, {}).values()
        drawn = [h for h in sorted(every, key=lambda h: h.column not in judged) if h.values][:MAX_HISTOGRAMS]
        return [(h, f"card-{decisions.stage}-{place}-{slug(h.column)[:40]}") for place, h in enumerate(drawn)]

    def card(self, decisions: Decisions, name: str) -> str | None:
        """Returns the id of the card with the values of a rule's column; None if there is none."""
        rule = decisions.rule(name)
        return next((card for h, card in self.cards(decisions) if rule is not None and h.column == rule.column), None)

    def other_thresholds(self, decisions: Decisions, name: str) -> str | None:
        """Returns the id of the table with a rule's other thresholds; None if there is none."""
        rule, card = decisions.rule(name), self.card(decisions, name)
        rules = [each for each in decisions.thresholds if rule is not None and each.column == rule.column]
        names = [found.rule.rule for found in self.changes(rules, decisions)]
        return f"{card}-{names.index(name)}" if card is not None and name in names else None

    def changes(self, rules: list[ReportRule], decisions: Decisions) -> list[Changes]:
        """Returns what other thresholds of some rules keep, where a recipe can change them."""
        names = dict.fromkeys(rule.rule for rule in rules if decisions.stage == "filter")
        return [self.summary.page.changes[name] for name in names if name in self.summary.page.changes][:MAX_CHANGES]

    def _histogram(self, histogram: Histogram, rules: list[ReportRule], decisions: Decisions, card: str = "") -> dict[str, Any]:
        return {
            "id": card,
            "figure": self.chart(figures.histogram_figure(histogram, rules)),
            "height": 240,
            "title": histogram.column,
            "rules": [
                f"{rule.rule}: fails if {rule.comparison} {number(rule.threshold)}" + (f" ({meaning})" if meaning else "")
                for rule in rules
                for meaning in [decisions.meanings.get(rule.rule)]
            ],
            "caption": caption(histogram, bool(rules)),
            "histogram": histogram,
            "changes": self.changes(rules, decisions),
            "uncounted": uncounted(rules, decisions),
            "flat": sum(kept + dropped > 0 for kept, dropped in zip(histogram.kept, histogram.dropped, strict=True)) <= 1,
        }

    def slider(self, decisions: Decisions, changes: Changes) -> dict[str, str]:
        """Returns the data from which the page's script says what each threshold keeps."""
        self.sliders += 1
        rules = [rule for rule in decisions.thresholds if rule.column == changes.rule.column and is_number(rule.threshold)]
        data = {
            "rule": safe_line(changes.rule.rule, 200), "fails": changes.rule.comparison, "now": changes.place,
            "thresholds": [change.threshold for change in changes.every], "documents": [change.documents for change in changes.every],
            "characters": [change.characters for change in changes.every], "of": decisions.rows, "line": rules.index(changes.rule),
        }  # fmt: skip
        return {"id": f"slider-{self.sliders}", "json": json.dumps(data, separators=(",", ":"))}

    def conditional(self) -> bool:
        """Whether a step of the filter stage measured only documents that passed the rules before it."""
        steps = self.summary.reader.settings("filter").get("steps")
        options = [value for step in steps if isinstance(step, dict) for value in step.values()] if isinstance(steps, list) else []
        return any(isinstance(each, dict) and each.get("only_passing") is True for each in options)

    def overlap(self, decisions: Decisions) -> OverlapView | None:
        found = self.summary.page.overlaps.get(decisions.stage)
        return None if found is None else overlap_view(found)

    def near_of(self, rule: RuleCount) -> NearMisses | None:
        """Returns the documents near the threshold of a rule of the filter stage."""
        return next((each for each in self.summary.page.near.get("filter", []) if each.rule is rule), None)

    def scores(self, decisions: Decisions, column: str, threshold: float) -> dict[str, Any] | None:
        """Returns the chart of a classifier's scores; None if there are none. `threshold`: its threshold, drawn where no rule has
        another one."""
        histogram = self.summary.page.histograms.get(decisions.stage, {}).get(column)
        if histogram is None or not histogram.values:
            return None
        rules = [rule for rule in decisions.thresholds if rule.column == column and can_fail(rule)]
        shown = self._histogram(histogram, rules, decisions)
        if not rules:
            self.figures[shown["figure"]] = figures.histogram_figure(histogram, [ReportRule("", "", column, "yes: >=", threshold)])
        return shown

    def curves(self, training: Training) -> list[dict[str, Any]]:
        """Returns the charts of a training, the loss first."""
        return [
            {"title": title, "caption": caption, "figure": self.chart(figure), "height": HEIGHT,
             "query": self.file(f"{training.stage}/logs/{log}.jsonl")}
            for title, caption, figure, log in training_charts(training)
        ]  # fmt: skip


def uncounted(rules: list[ReportRule], decisions: Decisions) -> list[str]:
    """Returns the rules for which the page can't count what another threshold keeps: it would also change another rule's threshold."""
    numeric = numeric_rules(decisions.thresholds, [rule.column for rule in decisions.thresholds])
    names = dict.fromkeys(rule.rule for rule in rules if decisions.stage == "filter" and rule in numeric)
    return [name for name in names if decisions.moves(name)][:MAX_CHANGES]


def caption(histogram: Histogram, thresholds: bool) -> str:
    """Returns a chart's caption: the number of values, and how many are not drawn. `thresholds`: whether rules judge the column."""
    parts = [f"{histogram.values:,} values"]
    if histogram.mostly_zeros and not thresholds:
        kept, dropped, least = histogram.kept[0], histogram.dropped[0], number(histogram.bins.low)
        parts.append(f"{kept + dropped:,} below {least}{f' ({dropped:,} dropped)' if dropped else ''} not drawn")
    if histogram.above:
        parts.append(f"{histogram.above:,} above {number(histogram.bins.edges[-1])} not drawn")
    if histogram.below:
        parts.append(f"{histogram.below:,} below {number(histogram.bins.edges[0])} not drawn")
    if histogram.missing:
        parts.append(f"{histogram.missing:,} not measured")
    return "; ".join(parts)


def render(summary: Summary) -> str:
    """Returns the page's HTML. Equal runs give equal pages, except the times from metrics.jsonl."""
    body, page = render_body(summary)
    return whole_page("Corpusmill report", body, page.figures)


def render_body(summary: Summary) -> tuple[str, Page]:
    """Returns the content of the page's body, with its charts and queries."""
    page = Page(summary)
    body = templates(SAMPLE_TEXT).get_template("report.html.jinja").render(
        page=page, s=summary, figures=figures, recipe_line=recipe_line,
        biggest_loss=biggest_loss, quantiles=QUANTILES, tokenizers=tokenizers,
        data_stages=DATA_STAGES, figure_files=FIGURES, token_files=[shards_file(split) for split in summary.tokens],
        max_warnings=MAX_WARNINGS, max_table=MOST_RULES, lists=LISTS, evidence=evidence_in_words, stayed=stayed,
        packings=packings(summary.tokens),
        progress=unfinished(summary.reader.storage.root), clock=clock,
        description=json.dumps(walked(summary.reader.description, redact), indent=2, ensure_ascii=False, sort_keys=True),
    )  # fmt: skip
    return body, page


def write_report(folder: str) -> str:
    """Writes RUN/report.html atomically and returns its path. Raises InputError if `folder` is not a run."""
    summary = read_summary(folder)
    page = render(summary)
    summary.reader.storage.write_bytes(REPORT_FILE, page.encode("utf-8", "replace"))
    return summary.reader.storage.path(REPORT_FILE)
