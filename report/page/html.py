"""Makes `report.html`: the whole run on one self-contained page (page.py says how)."""

import json
import shlex
from dataclasses import replace
from typing import Any

from corpusmill.pipeline.redact import redact, walked
from corpusmill.pipeline.run import REPORT_FILE
from corpusmill.pipeline.safe import safe_line
from corpusmill.report.answers.diff import Difference, outcomes, verdict
from corpusmill.report.live.status import unfinished
from corpusmill.report.live.status_view import clock
from corpusmill.report.page import figures
from corpusmill.report.page.figures import training_charts
from corpusmill.report.page.page import templates, whole_page
from corpusmill.report.queries import tokens as tokenizers
from corpusmill.report.queries.ask import Query, json_query, slug
from corpusmill.report.queries.classifiers import can_fail
from corpusmill.report.queries.duplicates import LISTS, evidence_in_words
from corpusmill.report.queries.inside import stayed
from corpusmill.report.queries.origins import biggest_loss
from corpusmill.report.queries.rules import Decisions
from corpusmill.report.queries.summary import MOST_RULES, Summary, read_summary
from corpusmill.report.queries.thresholds import SAMPLE_TEXT, Changes, change_text, is_number, numeric_rules
from corpusmill.report.queries.tokens import packings, shards_file
from corpusmill.report.queries.training import Training, plain_scores
from corpusmill.report.queries.values import QUANTILES, Histogram
from corpusmill.report.read import ReportRule
from corpusmill.report.tables import number

#: Warnings and histograms that a page shows (it says how many more warnings there are), rules beside one histogram, and rules of a stage
#: whose nearest documents are not folded.
MAX_WARNINGS, MAX_HISTOGRAMS, MAX_RULES, MAX_NEAR = 50, 80, 12, 6


class Page:
    """Collects the page's charts and queries while the template runs."""

    #: Heads of the columns of `QUANTILES`.
    quantiles = [">median" if share == 0.5 else f">{100 * share:g}%" for share in QUANTILES]

    def __init__(self, summary: Summary):
        self.summary = summary
        self.figures: list[figures.Figure] = []
        self.queries: dict[str, Query] = {}
        self.sliders = 0
        self._printed: set[str] = set()

    def chart(self, figure: figures.Figure) -> int:
        """Registers a chart and returns its number."""
        self.figures.append(figure)
        return len(self.figures) - 1

    def shown(self, query: Query) -> Query:
        """Registers the query of a table or chart once; under a new name where another query has its name."""
        name, number = query.name, 1
        while name in self.queries and self.queries[name].sql != query.sql:
            number += 1
            name = f"{query.name}-{number}"
        return self.queries.setdefault(name, query if number == 1 else replace(query, name=name))

    def file(self, *paths: str) -> Query:
        """Returns the query of JSON files whose numbers the page shows unchanged."""
        return self.shown(json_query(", ".join(paths), *paths))

    def first(self, query: Query) -> bool:
        """Whether the query has not been printed yet. It is then taken as printed."""
        new = query.name not in self._printed
        self._printed.add(query.name)
        return new

    def heads(self, names: list[str]) -> list[str]:
        """Returns heads of columns of numbers."""
        return [f">{name}" for name in names]

    def percent(self, ends: tuple[float, float | None, float | None]) -> str:
        """Formats the ends of a share's interval; empty without them."""
        _, low, high = ends
        return "" if low is None or high is None else f"{low:.1%} to {high:.1%}"

    def measured(self) -> list[tuple[Decisions, list[dict[str, Any]], list[dict[str, Any]], list[tuple[str, str]]]]:
        """Returns for each stage the charts of values that a rule judges, those first by which most is decided, those of other values, and
        the columns with one value: (name, value)."""
        found = []
        for d in self.summary.decisions.values():
            judged = {rule.column for rule in d.thresholds}
            every = [h for h in self.summary.page.histograms.get(d.stage, {}).values() if h.values]
            charts = [self._histogram(h, d, card) for h, card in self.cards(d)]
            same = [(h.column, only(h)) for h in every if h.flat and h.column not in judged]
            if charts or same:
                found.append((d, [h for h in charts if h["rules"]], [h for h in charts if not h["rules"]], same))
        return found

    def cards(self, d: Decisions) -> list[tuple[Histogram, str]]:
        """Returns a stage's histograms that are shown, columns with a threshold first, those first by which most is decided, each with the
        id of its part of the page."""
        judged = {rule.column for rule in d.thresholds}
        found = self.summary.page.histograms.get(d.stage, {}).values()
        every = sorted(found, key=lambda h: (h.column not in judged, -self.decided(d, h)[0], -self.decided(d, h)[1]))
        shown = [h for h in every if h.values and (h.column in judged or not h.flat)][:MAX_HISTOGRAMS]
        return [(h, f"card-{d.stage}-{place}-{slug(h.column)[:40]}") for place, h in enumerate(shown)]

    def decided(self, d: Decisions, histogram: Histogram) -> tuple[int, int]:
        """Returns how many documents the rules on a column dropped alone, and on how many they fired."""
        rules = [d.rules[rule.rule] for rule in d.thresholds if rule.column == histogram.column]
        return sum(rule.alone for rule in rules), sum(rule.fired for rule in rules)

    def card(self, d: Decisions, name: str) -> str | None:
        """Returns the id of the card with the values of a rule's column; None if there is none."""
        rule = d.rule(name)
        return next((card for h, card in self.cards(d) if rule is not None and h.column == rule.column), None)

    def _histogram(self, histogram: Histogram, d: Decisions, card: str = "") -> dict[str, Any]:
        rules = [rule for rule in d.thresholds if rule.column == histogram.column]
        changes = self.summary.page.changes if d.stage == "filter" else {}
        return {
            "id": card, "title": histogram.column, "caption": caption(histogram), "decided": self.decided(d, histogram),
            "rules": {rule.rule: changes.get(rule.rule) for rule in rules[:MAX_RULES]},
            "figure": None if histogram.flat else figures.histogram_figure(histogram, rules),
            "query": self.shown(histogram.query) if histogram.query else None,
        }  # fmt: skip

    def uncounted(self, d: Decisions, name: str) -> bool:
        """Whether the page can't count what another threshold of a rule keeps, since it would also change another rule's threshold."""
        numeric = numeric_rules(d.thresholds, [rule.column for rule in d.thresholds])
        return d.stage == "filter" and bool(d.moves(name)) and name in [rule.rule for rule in numeric]

    def slider(self, decisions: Decisions, changes: Changes) -> dict[str, str]:
        """Returns the data from which the page's script says what each threshold keeps."""
        self.sliders += 1
        rules = [rule for rule in decisions.thresholds if rule.column == changes.rule.column and is_number(rule.threshold)]
        data = {
            "rule": safe_line(changes.rule.rule, 200), "fails": changes.rule.comparison, "now": changes.place,
            "thresholds": [change["threshold"] for change in changes.every], "documents": [change["documents"] for change in changes.every],
            "characters": [change["characters"] for change in changes.every], "of": decisions.rows, "line": rules.index(changes.rule),
        }  # fmt: skip
        return {"id": f"slider-{self.sliders}", "json": json.dumps(data, separators=(",", ":"))}

    def conditional(self) -> bool:
        """Whether a step of the filter stage measured only documents that passed the rules before it."""
        return any(options.get("only_passing") is True for _, options in self.summary.reader.steps())

    def scores(self, column: str, threshold: float) -> dict[str, Any] | None:
        """Returns the chart of a classifier's scores; None if there are none. `threshold`: its threshold, drawn where no rule has
        another one."""
        d, histogram = self.summary.decisions.get("filter"), self.summary.page.histograms.get("filter", {}).get(column)
        if d is None or histogram is None or histogram.flat:
            return None
        rules = [rule for rule in d.thresholds if rule.column == column and can_fail(rule)]
        own = [ReportRule("", "", column, "yes: >=", threshold)]
        return self._histogram(histogram, d) | {"figure": figures.histogram_figure(histogram, rules or own)}

    def curves(self, training: Training) -> list[dict[str, Any]]:
        """Returns the charts of a training, the loss first."""
        return [
            {"title": title, "caption": caption, "figure": figure, "query": self.file(f"{training.stage}/logs/{log}.jsonl")}
            for title, caption, figure, log in training_charts(training)
        ]


def caption(histogram: Histogram) -> str:
    """Returns a chart's caption: the number of values, and how many are not drawn."""
    parts = [f"{histogram.values:,} values"]
    if histogram.mostly_zeros:
        kept, dropped, least = histogram.kept[0], histogram.dropped[0], number(histogram.bins.low)
        parts.append(f"{kept + dropped:,} below {least}{f' ({dropped:,} dropped)' if dropped else ''} not drawn")
    if histogram.above:
        parts.append(f"{histogram.above:,} above {number(histogram.bins.edges[-1])} not drawn")
    if histogram.below:
        parts.append(f"{histogram.below:,} below {number(histogram.bins.edges[0])} not drawn")
    if histogram.missing:
        parts.append(f"{histogram.missing:,} not measured")
    return "; ".join(parts)


def duration(seconds: float) -> str:
    """Formats seconds: `2 h 5 min`, `7 min 24 s`, `8 s`."""
    hours, rest = divmod(round(seconds), 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours:,} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def only(histogram: Histogram) -> str:
    """Returns the bar of a histogram that would have no other: its number, or its ends."""
    filled = [place for place, counts in enumerate(zip(histogram.kept, histogram.dropped, strict=True)) if sum(counts)]
    low, high = histogram.bins.edges[filled[0]], histogram.bins.edges[filled[-1] + 1]
    return number(low) if histogram.bins.whole and high - low == 1 else f"{number(low)} to {number(high)}"


def absent(summary: Summary) -> list[str]:
    """Returns the parts of a page for which the run has nothing."""
    s = summary
    trained, evaluated = s.training or s.page.alignment is not None, s.scores.rows or s.benchmarks.tasks or s.samples
    parts = [
        ("decisions about documents", s.decisions), ("languages and sources", s.page.origins), ("duplicates", s.duplicates is not None),
        ("personal data (the step pii has not run, so nobody has looked for any)", s.personal is not None or not s.decisions),
        ("a tokenizer", s.tokenizer is not None), ("tokens", s.tokens), ("training", trained), ("evaluation", evaluated),
    ]  # fmt: skip
    return [name for name, there in parts if not there]


def render(summary: Summary, path: str | None = None, against: Difference | None = None) -> str:
    """Returns the page's HTML. Equal runs at the same path give equal pages, except the times. `path`: what the page's commands call the
    run; by default its path, as it was given. `against`: the difference from another run, which is its A."""
    body, page = render_body(summary, path, against)
    return whole_page(f"{safe_line(summary.facts.name, 100)}: corpusmill report", body, page.figures)


def render_body(summary: Summary, path: str | None = None, against: Difference | None = None) -> tuple[str, Page]:
    """Returns the content of the page's body, with its charts and queries."""
    page = Page(summary)
    other = safe_line(redact(against.folders["a"]), 300) if against else ""
    body = templates(SAMPLE_TEXT).get_template("report.html.jinja").render(
        page=page, s=summary, figures=figures, change=change_text, absent=absent(summary),
        run=shlex.quote(safe_line(redact(summary.reader.storage.root if path is None else path), 300)),
        biggest_loss=biggest_loss, tokenizers=tokenizers, token_files=[shards_file(split) for split in summary.tokens],
        max_warnings=MAX_WARNINGS, max_table=MOST_RULES, max_near=MAX_NEAR, lists=LISTS, evidence=evidence_in_words, stayed=stayed,
        packings=packings(summary.tokens), scores=plain_scores(summary.scores), duration=duration,
        against=against, against_name=other.rstrip("/").rpartition("/")[2], against_run=shlex.quote(other),
        outcomes=outcomes, verdict=verdict,
        progress=unfinished(summary.reader.storage.root), clock=clock,
        description=json.dumps(walked(summary.reader.description, redact), indent=2, ensure_ascii=False, sort_keys=True),
    )  # fmt: skip
    return body, page


def write_report(folder: str, against: Difference | None = None) -> str:
    """Writes RUN/report.html atomically and returns its path. `against`: the difference from another run, which is its A. Raises InputError
    if `folder` is not a run."""
    summary = read_summary(folder)
    page, storage = render(summary, against=against), summary.reader.storage
    storage.write_bytes(REPORT_FILE, page.encode("utf-8", "replace"))
    return storage.path(REPORT_FILE)
