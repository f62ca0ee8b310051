"""Counts the documents that each stage took in and kept, and those that each rule removed: alone, first, and together with other rules."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from corpusmill.report.queries.ask import Query, ask, has_report, listed
from corpusmill.report.query.run import Run
from corpusmill.report.query.sql import literal
from corpusmill.report.read import DATA_STAGES, NO_PAGE, ReportRule, read_meanings

#: Rules that the funnel shows of each stage, and combinations of rules that the page shows.
STEPS, COMBINATIONS = 14, 20


@dataclass(frozen=True)
class FunnelRow:
    """A stage of the funnel. Counts are None if the stage has none. `pages_in`: what came in without records that hold no page.
    `estimate`: tokens, estimated from characters."""

    stage: str
    status: str
    documents_in: int
    pages_in: int
    documents_out: int
    chars_in: int | None
    chars_out: int | None
    tokens: int | None = None
    estimate: int | None = None

    @property
    def dropped(self) -> int:
        return self.pages_in - self.documents_out

    @property
    def share(self) -> float:
        """The share of the pages that came in that the stage keeps."""
        return self.documents_out / self.pages_in if self.pages_in else 0.0


@dataclass(frozen=True)
class Funnel:
    """The stages from records to tokens. `characters_a_token` is measured on the documents that became tokens; None if there are
    none."""

    rows: list[FunnelRow]
    characters_a_token: float | None
    query: Query

    @property
    def pages(self) -> int:
        """The pages (or documents) that came into the run, of which the shares "of all" are taken."""
        return self.rows[0].pages_in


def read_funnel(run: Run, stages: Sequence[str] = (*DATA_STAGES, "tokens")) -> Funnel | None:
    """Reads the funnel from the reports of the data stages and from `shards.json`; None if the run has neither."""
    parts: list[str] = []
    before = None
    for stage in stages:
        if stage in DATA_STAGES and has_report(run, stage):
            pages = f"count(*) FILTER (NOT list_contains(failed, '{NO_PAGE}'))" if stage == "ingest" else "count(*)"
            parts.append(f"""\
SELECT {len(parts)} AS place, '{stage}' AS stage, count(*) AS documents_in, {pages} AS pages_in, count(*) FILTER (kept) AS documents_out,
    coalesce(sum(chars_in), 0)::BIGINT AS chars_in, coalesce(sum(chars_out), 0)::BIGINT AS chars_out, NULL::BIGINT AS tokens
  FROM {stage}_report""")
            before = stage
    splits = [split for split in ("train", "validation") if run.reader.json(f"tokens/{split}/shards.json", dict)]
    if "tokens" in stages and splits and run.reader.stages["tokens"].status != "missing":
        parts.append(_token_row(run, len(parts), before, splits))
    if not parts:
        return None
    union = "\n  UNION ALL ".join(parts)
    query = ask(run, "funnel", "Stages", f"""\
SELECT stage, documents_in, pages_in, documents_in - pages_in AS no_pages, documents_out, pages_in - documents_out AS dropped,
  documents_out / nullif(pages_in, 0) AS kept, documents_out / nullif(first(pages_in) OVER places, 0) AS of_all,
  first(documents_out) OVER backwards AS left_at_last, left_at_last / nullif(first(pages_in) OVER places, 0) AS left_of_all,
  chars_in, chars_out, chars_out / nullif(chars_in, 0) AS chars_kept,
  tokens, last(chars_out IGNORE NULLS) OVER every / nullif(max(tokens) OVER (), 0) AS characters_a_token,
  round(chars_out / nullif(characters_a_token, 0))::BIGINT AS estimated_tokens
FROM (
  {union}
)
WINDOW places AS (ORDER BY place), backwards AS (ORDER BY place DESC),
  every AS (ORDER BY place ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
ORDER BY place""")  # fmt: skip
    names = ("documents_in", "pages_in", "documents_out", "chars_in", "chars_out", "tokens", "estimated_tokens")
    rows = [FunnelRow(r["stage"], run.reader.stages[r["stage"]].status, *(r[name] for name in names)) for r in query.rows]
    return Funnel(rows, query.first["characters_a_token"] or None, query)


def _token_row(run: Run, place: int, before: str | None, splits: Sequence[str]) -> str:
    """SQL: the funnel's row for tokens. Counts each document once, however often a mixture repeats it, and the tokens of all splits."""
    tokens, documents = (
        " + ".join(f"(SELECT coalesce((content->>'{name}')::BIGINT, 0) FROM json_tokens_{split}_shards)" for split in splits)
        for name in ("tokens", "documents")
    )
    if has_report(run, "tokens"):
        documents = "(SELECT count(*) FILTER (kept) FROM tokens_report)"
    came_in = documents if before is None else f"(SELECT count(*) FILTER (kept) FROM {before}_report)"
    return f"SELECT {place}, 'tokens', {came_in}, {came_in},\n    {documents}, NULL, NULL,\n    {tokens}"


@dataclass
class RuleCount:
    """On how many documents a rule fired in a stage, on how many as the only one, and on how many as the first in the document's list."""

    name: str
    fired: int = 0
    alone: int = 0
    first: int = 0


@dataclass
class Decisions:
    """The counts of one stage's report."""

    stage: str
    rows: int = 0
    kept: int = 0
    chars_in: int = 0
    chars_out: int = 0
    rules: dict[str, RuleCount] = field(default_factory=dict)
    thresholds: list[ReportRule] = field(default_factory=list)
    meanings: dict[str, str] = field(default_factory=dict)  # by rule: the reason for which it drops a document, in words
    query: Query | None = None  # of the rules

    @property
    def no_pages(self) -> int:
        """The records of a crawl that hold no page, such as requests."""
        return self.rules[NO_PAGE].fired if self.stage == "ingest" and NO_PAGE in self.rules else 0

    @property
    def dropped(self) -> int:
        return self.rows - self.kept

    def by_removal(self) -> list[RuleCount]:
        """Returns the rules that fired, the most frequent first."""
        return sorted((r for r in self.rules.values() if r.fired), key=lambda r: (-r.fired, r.name))

    def by_decision(self) -> list[RuleCount]:
        """Returns the rules that fired, those first that alone dropped the most documents."""
        return sorted(self.by_removal(), key=lambda rule: -rule.alone)

    def rule(self, name: str) -> ReportRule | None:
        """Returns a rule by its name; None if the stage has none of this name."""
        return next((rule for rule in self.thresholds if rule.rule == name), None)

    def moves(self, name: str) -> list[str]:
        """Returns the rules whose thresholds change with the threshold of `name`: rules that keep a share of the documents that pass."""
        return [rule.rule for rule in shares_moved(self.thresholds, [name])]

    @property
    def sharing(self) -> list[str]:
        """The rules that keep a share of the documents that pass the other rules."""
        return self.moves("")


def shares_moved(rules: Sequence[ReportRule], moved: Sequence[str]) -> list[ReportRule]:
    """Returns the rules whose thresholds change with those of `moved`: they keep a share of the documents that pass the other rules."""
    return [rule for rule in rules if moved and rule.share and rule.share[1] == "passing" and rule.rule not in moved]


def read_decisions(run: Run, stage: str, funnel: Funnel | None = None) -> Decisions | None:
    """Reads the decisions of a stage; None if it has no usable report. `funnel`: the funnel, where it has been read already."""
    funnel = funnel or read_funnel(run, [stage])
    totals = next((row for row in funnel.rows if row.stage == stage), None) if funnel else None
    if funnel is None or totals is None or not has_report(run, stage):
        return None
    rows_in = f"(SELECT count(*) FROM {stage}_report)"
    query = ask(run, f"{stage}-rules", f"Rules of {stage}", f"""
        SELECT rule, count(*) AS fired, count(*) FILTER (len(failed) = 1) AS alone, count(*) FILTER (failed[1] = rule) AS "first",
          fired / {rows_in} AS share_fired, alone / {rows_in} AS share_alone
        FROM (SELECT unnest(failed) AS rule, failed FROM {stage}_report)
        GROUP BY rule
        ORDER BY alone DESC, fired DESC, rule
    """)  # fmt: skip
    found = Decisions(stage, totals.documents_in, totals.documents_out, totals.chars_in or 0, totals.chars_out or 0, query=query)
    found.thresholds, found.meanings = run.reader.rules(stage), read_meanings(run.reader, stage)
    found.rules = {rule.rule: RuleCount(rule.rule) for rule in found.thresholds}
    for row in query.rows:
        found.rules[row["rule"]] = RuleCount(row["rule"], row["fired"], row["alone"], row["first"])
    return found


def read_steps(run: Run, decisions: Mapping[str, Decisions]) -> Query | None:
    """Reads the funnel's steps: the rules of all stages in the order in which they decide, each with the documents whose first failed rule
    it is (`removed`) and those that remain after it (`documents_left`). Of each stage the `STEPS` rules that removed most have a step each,
    and the others share one. None if no document was dropped."""
    parts, places = [], []
    for stage, d in decisions.items():
        removing = sorted((rule for rule in d.rules.values() if rule.first), key=lambda rule: (-rule.first, rule.name))
        order = {rule.rule: place for place, rule in enumerate(d.thresholds)}
        shown = sorted(removing[:STEPS], key=lambda rule: (order.get(rule.name, len(order)), -rule.first, rule.name))
        others = len(removing) - len(shown)
        rest = f"{others:,} other rule{'s' if others > 1 else ''}"
        names = [rule.name for rule in shown]
        rule = "failed[1]" if not others else f"if(list_contains({listed(names)}, failed[1]), failed[1], {literal(rest)})"
        parts.append(f"""\
SELECT '{stage}' AS stage, coalesce({rule}, '(no rule named)') AS rule, {d.rows} AS came_in FROM {stage}_report WHERE NOT kept""")
        places += [f"{stage}: {name}" for name in (*names, rest, "(no rule named)")]
    if not parts:
        return None
    union = "\n  UNION ALL ".join(parts)
    query = ask(run, "rule-by-rule", "Rule by rule", f"""\
SELECT stage, rule, count(*) AS removed,
  (any_value(came_in) - sum(count(*)) OVER (PARTITION BY stage ORDER BY any_value(place)))::BIGINT AS documents_left
FROM (
  SELECT *, list_position({listed(places)}, stage || ': ' || rule) AS place
  FROM ({union})
)
GROUP BY stage, rule
ORDER BY any_value(place)""")  # fmt: skip
    return query if query.rows else None


def read_overlap(run: Run, d: Decisions) -> Query | None:
    """Reads which rules fire together: the documents that failed exactly some `rules` (names sorted), for the most frequent of all
    `combinations`; `in_all`: the documents of all of them. None if no document failed more than one rule."""
    if all(rule.alone == rule.fired for rule in d.by_removal()):
        return None
    return ask(run, f"{d.stage}-combinations", f"Combinations of rules of {d.stage}", f"""
        SELECT rules, documents, documents / (SELECT count(*) FROM {d.stage}_report WHERE NOT kept) AS of_dropped,
          count(*) OVER () AS combinations, sum(documents) OVER ()::BIGINT AS in_all
        FROM (
          SELECT list_sort(list_distinct(failed)) AS rules, count(*) AS documents FROM {d.stage}_report WHERE len(failed) > 0 GROUP BY rules
        )
        ORDER BY documents DESC, rules
        LIMIT {COMBINATIONS}
    """)  # fmt: skip
