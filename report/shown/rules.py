"""What the page shows of stages, rules and their overlap, with the queries over the reports."""

from collections.abc import Mapping, Sequence

from corpusmill.report.facts.decisions import Decisions, RuleCount
from corpusmill.report.facts.funnel import NO_PAGE, FunnelRow, Step, characters_a_token
from corpusmill.report.facts.overlap import COMBINATIONS, LONGEST, Combination
from corpusmill.report.facts.thresholds import Changes
from corpusmill.report.query.sql import column, literal
from corpusmill.report.shown.shown import Shown, ratio, shown

#: Counts of a rule: columns of a query, and attributes of `RuleCount`.
RULE_COUNTS = ("fired", "alone", "first", "chars_fired", "chars_alone", "chars_first")


def stages(rows: Sequence[FunnelRow], splits: Sequence[str]) -> Shown:
    """The funnel's stages, from their reports; the tokens of `splits` from their indexes. Tokens of the stages before are estimated by
    the characters of a token."""
    columns = ("stage", "documents_in", "documents_out", "dropped", "kept", "of_all", "chars_in", "chars_out", "chars_kept", "tokens",
               "characters_a_token")  # fmt: skip
    parts = [_stage(place, row, rows[place - 1] if place else row, splits) for place, row in enumerate(rows)]
    union = "\n  UNION ALL ".join(parts)
    sql = f"""\
SELECT stage, documents_in, documents_out, documents_in - documents_out AS dropped, documents_out / nullif(documents_in, 0) AS kept,
  documents_out / nullif(first(documents_in) OVER places, 0) AS of_all, chars_in, chars_out, chars_out / nullif(chars_in, 0) AS chars_kept,
  coalesce(tokens, round(chars_out * max(tokens) OVER () / last(chars_out IGNORE NULLS) OVER every)::BIGINT) AS tokens,
  last(chars_out IGNORE NULLS) OVER every / max(tokens) OVER () AS characters_a_token
FROM (
  {union}
)
WINDOW places AS (ORDER BY place), every AS (ORDER BY place ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
ORDER BY place"""
    a_token = characters_a_token(list(rows))
    found = []
    for row in rows:
        tokens = round(row.chars_out / a_token) if a_token and row.chars_out is not None else row.tokens
        characters = (row.chars_in, row.chars_out, None if row.chars_out is None else ratio(row.chars_out, row.chars_in or 0))
        shares = (row.dropped, ratio(row.documents_out, row.documents_in), ratio(row.documents_out, rows[0].documents_in))
        found.append((row.stage, row.documents_in, row.documents_out, *shares, *characters, tokens, a_token))
    return shown("funnel", "Stages", sql, columns, found)


def _stage(place: int, row: FunnelRow, before: FunnelRow, splits: Sequence[str]) -> str:
    if row.chars_in is not None:
        return f"""\
SELECT {place} AS place, {literal(row.stage)} AS stage, count(*) AS documents_in, count(*) FILTER (kept) AS documents_out,
    sum(chars_in) AS chars_in, sum(chars_out) AS chars_out, NULL AS tokens FROM {row.stage}_report"""
    out = "(SELECT count(*) FILTER (kept) FROM {0}_report) AS {1}"
    came_in = out.format(before.stage if before is not row else row.stage, "documents_in")
    tokens = " + ".join(f"(SELECT sum(tokens) FROM tokens_{split})" for split in splits)
    kept = out.format(row.stage, "documents_out")
    return f"""SELECT {place} AS place, {literal(row.stage)} AS stage, {came_in}, {kept},
    NULL AS chars_in, NULL AS chars_out, {tokens} AS tokens"""


def pages(rows: Sequence[FunnelRow], without: int) -> Shown:
    """How many records hold no page, and the share of the others that the last stage keeps. `without` are those that hold none."""
    first, last = rows[0], rows[-1]
    sql = f"""
        SELECT *, documents_out / nullif(pages, 0) AS share
        FROM (
          SELECT count(*) AS records, count(*) FILTER (list_contains(failed, {literal(NO_PAGE)})) AS no_pages, records - no_pages AS pages,
            (SELECT count(*) FILTER (kept) FROM {last.stage}_report) AS documents_out
          FROM {first.stage}_report
        )
    """
    left = first.documents_in - without
    row = (first.documents_in, without, left, last.documents_out, ratio(last.documents_out, left))
    return shown("pages", "Records that hold no page", sql, ("records", "no_pages", "pages", "documents_out", "share"), [row])


def rule_by_rule(found: Sequence[Step], decisions: Mapping[str, Decisions]) -> Shown:
    """The rules in the order in which they decide, each with the documents that failed it first."""
    by_stage = {stage: [step for step in found if step.stage == stage] for stage in dict.fromkeys(step.stage for step in found)}
    parts = [_first_failures(stage, some, decisions[stage]) for stage, some in by_stage.items()]
    union = "\n  UNION ALL ".join(parts)
    order = ", ".join(literal(f"{step.stage}: {step.name}") for step in found)
    whole = f"(SELECT count(*) FROM {next(iter(decisions))}_report)"
    sql = f"""\
SELECT stage, rule, count(*) AS removed, count(*) / any_value(came_in) AS share, count(*) / {whole} AS of_all, sum(chars_in) AS characters,
  any_value(came_in) - sum(count(*)) OVER (PARTITION BY stage ORDER BY any_value(place)) AS documents_left
FROM (
  SELECT *, list_position([{order}], stage || ': ' || rule) AS place
  FROM ({union})
)
GROUP BY stage, rule
ORDER BY any_value(place)"""
    rows = next(iter(decisions.values())).rows
    values = [(s.stage, s.name, s.removed, ratio(s.removed, s.came_in), ratio(s.removed, rows), s.characters, s.left) for s in found]
    columns = ("stage", "rule", "removed", "share", "of_all", "characters", "documents_left")
    return shown("rule-by-rule", "Rule by rule", sql, columns, values)


def _first_failures(stage: str, steps: Sequence[Step], d: Decisions) -> str:
    """A row for each document that the stage dropped, with the step that counts it."""
    named = [step.name for step in steps if step.rules == 1 and step.name in d.rules]
    others = [step.name for step in steps if step.name not in named and step.rules]
    rule, chars = "failed[1]", "chars_in"
    if others:
        rule = f"CASE WHEN failed[1] IN ({', '.join(map(literal, named))}) THEN failed[1] ELSE {literal(others[0])} END"
    if any(not step.rules for step in steps):
        rule, chars = f"CASE WHEN failed = [] THEN {literal(steps[-1].name)} ELSE {rule} END", "if(failed = [], 0, chars_in)"
    came_in = f"(SELECT count(*) FROM {stage}_report)"
    return f"""SELECT {literal(stage)} AS stage, {rule} AS rule, {chars} AS chars_in, {came_in} AS came_in
    FROM {stage}_report WHERE NOT kept"""


def rules(d: Decisions, most: int, first: FunnelRow) -> Shown:
    """How often each rule fired, alone and first; the most frequent first. Shares are of what came into the stage, and into `first`."""
    rows_in = f"(SELECT count(*) FROM {d.stage}_report)"
    sql = f"""
        SELECT rule, count(*) AS fired, count(*) FILTER (len(failed) = 1) AS alone, count(*) FILTER (failed[1] = rule) AS first,
          sum(chars_in) AS chars_fired, coalesce(sum(chars_in) FILTER (len(failed) = 1), 0) AS chars_alone,
          coalesce(sum(chars_in) FILTER (failed[1] = rule), 0) AS chars_first, fired / {rows_in} AS share_fired,
          alone / {rows_in} AS share_alone, "first" / {rows_in} AS share_first,
          fired / (SELECT count(*) FROM {first.stage}_report) AS of_all
        FROM (SELECT unnest(failed) AS rule, failed, chars_in FROM {d.stage}_report)
        GROUP BY rule
        ORDER BY fired DESC, rule
        LIMIT {most}
    """
    rows = []
    for rule in d.by_removal()[:most]:
        shares = (ratio(count, d.rows) for count in (rule.fired, rule.alone, rule.first))
        rows.append((rule.name, *(getattr(rule, name) for name in RULE_COUNTS), *shares, ratio(rule.fired, first.documents_in)))
    columns = ("rule", *RULE_COUNTS, "share_fired", "share_alone", "share_first", "of_all")
    return shown(f"{d.stage}-rules", f"Rules of {d.stage}", sql, columns, rows)


def combinations(d: Decisions, found: Sequence[Combination]) -> Shown:
    """Documents that failed exactly these rules."""
    where = f"len(failed) BETWEEN 1 AND {LONGEST}"
    sql = f"""
        SELECT array_to_string(list_sort(failed), ' + ') AS rules, count(*) AS documents, sum(chars_in) AS characters,
          documents / (SELECT count(*) FROM {d.stage}_report WHERE NOT kept) AS of_dropped
        FROM {d.stage}_report
        WHERE {where}
        GROUP BY rules
        ORDER BY documents DESC, rules
        LIMIT {len(found)}
    """
    if d.overlap.others:  # the first so many that the report has are told apart
        names = ", ".join(literal(each.name) for each in found)
        sql = sql.replace(where, f"{where} AND array_to_string(list_sort(failed), ' + ') IN ({names})  -- of the first {COMBINATIONS}")
    rows = [(each.name, each.documents, each.characters, ratio(each.documents, d.dropped)) for each in found]
    columns = ("rules", "documents", "characters", "of_dropped")
    return shown(f"{d.stage}-combinations", f"Combinations of rules of {d.stage}", sql, columns, rows)


def pairs(d: Decisions, names: Sequence[RuleCount]) -> Shown:
    """Of the documents that failed a rule, those that failed another one as well, and those that failed no other. Of a rule with itself:
    all that failed it."""
    listed = ", ".join(literal(rule.name) for rule in names)
    sql = f"""
        SELECT rule, other, count(*) FILTER (list_contains(failed, other)) AS documents, documents / count(*) AS share,
          count(*) FILTER (len(failed) = 1) / count(*) AS alone
        FROM (SELECT failed, unnest(failed) AS rule FROM {d.stage}_report), (SELECT unnest([{listed}]) AS other)
        WHERE rule IN ({listed})
        GROUP BY rule, other
        ORDER BY rule, other
    """
    rows = []
    for a in sorted(names, key=lambda rule: rule.name):
        for b in sorted(names, key=lambda rule: rule.name):
            both = a.fired if a.name == b.name else d.overlap.both(a.name, b.name)
            rows.append((a.name, b.name, both, ratio(both, a.fired), ratio(a.alone, a.fired)))
    columns = ("rule", "other", "documents", "share", "alone")
    return shown(f"{d.stage}-pairs", f"Pairs of rules of {d.stage}", sql, columns, rows)


def changes(d: Decisions, found: Changes) -> Shown:
    """What each threshold of a rule keeps, all others as they are; the last, NULL, is what is kept without the rule."""
    rule = found.rule
    place, name = column(rule.column), literal(rule.rule)
    listed = ", ".join(literal(float(value)) for value in found.thresholds)
    failing = f"coalesce({place}::DOUBLE {rule.comparison} threshold AND NOT isnan({place}::DOUBLE), false)"
    sql = f"""\
SELECT threshold, documents, documents - max(documents) FILTER (threshold = {literal(float(rule.threshold))}) OVER () AS more,
  documents / (SELECT count(*) FROM {d.stage}_report) AS share, characters
FROM (
  SELECT threshold, count(*) FILTER (NOT {failing}) AS documents, coalesce(sum(chars_in) FILTER (NOT {failing}), 0) AS characters
  FROM {d.stage}_report, (SELECT unnest([{listed}, NULL]::DOUBLE[]) AS threshold)
  WHERE failed = [] OR failed = [{name}]
  GROUP BY threshold
)
ORDER BY threshold NULLS LAST"""
    counts = [*zip(found.thresholds.tolist(), found.documents.tolist(), found.characters.tolist(), strict=True), (None, *found.off)]
    now = int(found.documents[found.place])
    rows = [(threshold, documents, documents - now, ratio(documents, d.rows), size) for threshold, documents, size in counts]
    columns = ("threshold", "documents", "more", "share", "characters")
    return shown("threshold", f"What other thresholds of {rule.rule} keep", sql, columns, rows if found.off[0] else [])
