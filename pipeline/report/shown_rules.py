"""What the page shows of stages, rules and their overlap, with the queries over the reports."""

from collections.abc import Sequence

from corpusmill.pipeline.report.decisions import Decisions, RuleCount
from corpusmill.pipeline.report.funnel import FunnelRow
from corpusmill.pipeline.report.overlap import COMBINATIONS, LONGEST, Combination
from corpusmill.pipeline.report.shown import Shown, column, literal, shown
from corpusmill.pipeline.report.thresholds import Changes

#: Counts of a rule: columns of a query, and attributes of `RuleCount`.
RULE_COUNTS = ("fired", "alone", "first", "chars_fired", "chars_alone", "chars_first")


def stages(rows: Sequence[FunnelRow]) -> Shown:
    """The funnel's stages, from their reports."""
    columns = ("stage", "documents_in", "documents_out", "chars_in", "chars_out")
    found = [row for row in rows if row.chars_in is not None]
    some = [
        f"SELECT {place} AS place, {literal(row.stage)} AS stage, kept, chars_in, chars_out FROM {row.stage}_report"
        for place, row in enumerate(found)
    ]
    every = "\n  UNION ALL ".join(some)
    sql = f"""\
SELECT any_value(stage) AS stage, count(*) AS documents_in, count(*) FILTER (kept) AS documents_out,
  sum(chars_in) AS chars_in, sum(chars_out) AS chars_out
FROM (
  {every}
)
GROUP BY place
ORDER BY place"""
    return shown("funnel", "Stages", sql, columns, [tuple(getattr(row, name) for name in columns) for row in found])


def rules(d: Decisions, most: int) -> Shown:
    """How often each rule fired, alone and first; the most frequent first."""
    sql = f"""
        SELECT rule, count(*) AS fired, count(*) FILTER (len(failed) = 1) AS alone, count(*) FILTER (failed[1] = rule) AS first,
          sum(chars_in) AS chars_fired, coalesce(sum(chars_in) FILTER (len(failed) = 1), 0) AS chars_alone,
          coalesce(sum(chars_in) FILTER (failed[1] = rule), 0) AS chars_first
        FROM (SELECT unnest(failed) AS rule, failed, chars_in FROM {d.stage}_report)
        GROUP BY rule
        ORDER BY fired DESC, rule
        LIMIT {most}
    """
    rows = [(rule.name, *(getattr(rule, name) for name in RULE_COUNTS)) for rule in d.by_removal()[:most]]
    return shown(f"{d.stage}-rules", f"Rules of {d.stage}", sql, ("rule", *RULE_COUNTS), rows)


def combinations(d: Decisions, found: Sequence[Combination]) -> Shown:
    """Documents that failed exactly these rules."""
    where = f"len(failed) BETWEEN 1 AND {LONGEST}"
    sql = f"""
        SELECT array_to_string(list_sort(failed), ' + ') AS rules, count(*) AS documents, sum(chars_in) AS characters
        FROM {d.stage}_report
        WHERE {where}
        GROUP BY rules
        ORDER BY documents DESC, rules
        LIMIT {len(found)}
    """
    if d.overlap.others:  # the first so many that the report has are told apart
        names = ", ".join(literal(each.name) for each in found)
        sql = sql.replace(where, f"{where} AND array_to_string(list_sort(failed), ' + ') IN ({names})  -- of the first {COMBINATIONS}")
    rows = [(each.name, each.documents, each.characters) for each in found]
    return shown(f"{d.stage}-combinations", f"Combinations of rules of {d.stage}", sql, ("rules", "documents", "characters"), rows)


def pairs(d: Decisions, names: Sequence[RuleCount]) -> Shown:
    """Documents that failed both of two rules."""
    listed = ", ".join(literal(rule.name) for rule in names)
    sql = f"""
        WITH fired AS (
          SELECT row_number() OVER () AS document, list_filter(failed, lambda rule: rule IN ({listed})) AS failed
          FROM {d.stage}_report WHERE len(failed) > 1
        )
        SELECT a.rule AS rule, b.rule AS other, count(*) AS documents
        FROM (SELECT document, unnest(failed) AS rule FROM fired) a JOIN (SELECT document, unnest(failed) AS rule FROM fired) b
          ON a.document = b.document AND a.rule <> b.rule
        GROUP BY ALL
        ORDER BY rule, other
    """
    every = sorted((a.name, b.name, d.overlap.both(a.name, b.name)) for a in names for b in names if a.name != b.name)
    rows = [row for row in every if row[2]]
    return shown(f"{d.stage}-pairs", f"Pairs of rules of {d.stage}", sql, ("rule", "other", "documents"), rows)


def changes(d: Decisions, found: Changes) -> Shown:
    """What each threshold of a rule keeps, all others as they are."""
    rule = found.rule
    place, name = column(rule.column), literal(rule.rule)
    listed = ", ".join(literal(float(value)) for value in found.thresholds)
    failing = f"coalesce({place}::DOUBLE {rule.comparison} threshold AND NOT isnan({place}::DOUBLE), false)"
    sql = f"""\
SELECT threshold, count(*) FILTER (NOT {failing}) AS documents,
  coalesce(sum(chars_in) FILTER (NOT {failing}), 0) AS characters
FROM {d.stage}_report, (SELECT unnest([{listed}]::DOUBLE[]) AS threshold)
WHERE failed = [] OR failed = [{name}]
GROUP BY threshold
ORDER BY threshold"""
    rows = list(zip(found.thresholds.tolist(), found.documents.tolist(), found.characters.tolist(), strict=True))
    columns = ("threshold", "documents", "characters")
    return shown("threshold", f"What other thresholds of {rule.rule} keep", sql, columns, rows if found.off[0] else [])
