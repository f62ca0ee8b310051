"""What the page shows of values: histograms, lengths, personal data, near misses, with the queries over the reports."""

from collections.abc import Sequence

from corpusmill.report.facts.decisions import Decisions
from corpusmill.report.facts.examples import MOST, Examples
from corpusmill.report.facts.histogram import Histogram
from corpusmill.report.facts.lengths import EDGES, QUANTILES, Lengths
from corpusmill.report.facts.near import SAMPLES
from corpusmill.report.facts.near_view import NearMisses
from corpusmill.report.facts.pii import PersonalData
from corpusmill.report.facts.thresholds import is_number
from corpusmill.report.query.sql import column, literal
from corpusmill.report.read import Rule
from corpusmill.report.shown.shown import Shown, ratio, shown


def histogram(d: Decisions, found: Histogram) -> Shown:
    """The bins that are not empty, by their lower edges."""
    edges = found.edges.tolist()
    value = f"{column(found.column)}::DOUBLE"
    sql = f"""\
SELECT low, count(*) FILTER (kept) AS kept, count(*) FILTER (NOT kept) AS dropped
FROM (SELECT kept, {value} AS value FROM {d.stage}_report WHERE {value} <= {literal(edges[-1])}) ASOF JOIN
  (SELECT unnest([{_listed(edges[:-1])}]::DOUBLE[]) AS low) ON value >= low
GROUP BY low
ORDER BY low"""
    rows = [row for row in zip(edges[:-1], found.kept.tolist(), found.dropped.tolist(), strict=True) if row[1] or row[2]]
    return shown("values", f"Values of {found.column} ({d.stage})", sql, ("low", "kept", "dropped"), rows)


def captions(d: Decisions, drawn: Sequence[Histogram]) -> Shown:
    """How many values each histogram of a stage has, and how many lie outside of its bins; its first bin by itself."""
    columns = ("column_name", "values_known", "below", "above", "missing", "first_bin", "first_bin_dropped", "first_edge", "second_edge",
               "last_edge")  # fmt: skip
    edges = [[float(h.edges[place]) for place in (0, 1, -1)] for h in drawn]
    parts = [
        f"SELECT {place}, {literal(h.column)}, kept, {column(h.column)}::DOUBLE, {', '.join(map(literal, at))}, "
        f"{literal(len(h.edges) == 2)} FROM {d.stage}_report"
        for place, (h, at) in enumerate(zip(drawn, edges, strict=True))
    ]
    union = "\n  UNION ALL ".join(parts)
    sql = f"""\
SELECT column_name, count(*) FILTER (known) AS values_known, count(*) FILTER (known AND value < low) AS below,
  count(*) FILTER (known AND value > high) AS above, count(*) FILTER (NOT known) AS missing,
  count(*) FILTER (first) AS first_bin, count(*) FILTER (first AND NOT kept) AS first_bin_dropped,
  any_value(low) AS first_edge, any_value(second) AS second_edge, any_value(high) AS last_edge
FROM (SELECT *, value IS NOT NULL AND NOT isnan(value) AS known,
    known AND value >= low AND (value < second OR single AND value <= high) AS first FROM (
  {union}
) every(place, column_name, kept, value, low, second, high, single))
GROUP BY place, column_name
ORDER BY place"""
    rows = []
    for h, at in zip(drawn, edges, strict=True):
        first = (int(h.kept[0] + h.dropped[0]), int(h.dropped[0]))
        rows.append((h.column, h.values, h.below, h.above, h.missing, *first, *at))
    return shown(f"{d.stage}-values", f"Values of {d.stage} inside and outside of the charts", sql, columns, rows)


def _listed(numbers: Sequence[float]) -> str:
    return ", ".join(literal(float(number)) for number in numbers)


def quantiles(sets: Sequence[Lengths]) -> Shown:
    """Lengths at some shares of the documents."""
    names = [f"p{round(100 * share):02d}" for share in QUANTILES]
    found = [each for each in sets if each.documents]
    sql = "\nUNION ALL ".join(
        f"SELECT {place} AS place, {literal(each.name)} AS documents_that, count(*) AS documents, sum({each.column}) AS characters, "
        + ", ".join(f"quantile_disc({each.column}, {share}) AS {name}" for share, name in zip(QUANTILES, names, strict=True))
        + f"\nFROM {each.stage}_report{' WHERE kept' if each.kept else ''}"
        for place, each in enumerate(found)
    )
    columns = ("place", "documents_that", "documents", "characters", *names)
    rows = [(place, each.name, each.documents, each.characters, *each.quantiles()) for place, each in enumerate(found)]
    return shown("lengths", "Lengths in characters", sql + "\nORDER BY place", columns, rows)


def lengths(sets: Sequence[Lengths]) -> Shown:
    """The chart: documents between one step and the next, where there are any."""
    found = [each for each in sets if each.documents]
    some = "\n  UNION ALL ".join(
        f"SELECT {place} AS place, {literal(each.name)} AS documents_that, {each.column} AS characters FROM {each.stage}_report"
        + (" WHERE kept" if each.kept else "")
        for place, each in enumerate(found)
    )
    sql = f"""\
SELECT any_value(documents_that) AS documents_that, low, count(*) AS documents
FROM (
  {some}
) ASOF JOIN (SELECT unnest([{", ".join(map(str, EDGES))}]) AS low) ON characters >= low
GROUP BY place, low
ORDER BY place, low"""
    rows = [(each.name, low, count) for each in found for low, count in zip(EDGES, each.bins().tolist(), strict=True) if count]
    return shown("lengths-chart", "Documents by length", sql, ("documents_that", "low", "documents"), rows)


def personal(found: PersonalData) -> Shown:
    """Finds, and documents with any, by kind; of all and of those that were kept."""
    columns = ("kind", "finds", "documents", "kept_finds", "kept_documents", "share", "kept_share")
    some = "\nUNION ALL ".join(_kind(place, kind.column) for place, kind in enumerate(found.kinds))
    rows = []
    for kind in found.kinds:
        shares = (ratio(kind.documents, found.rows), ratio(kind.kept_documents, found.kept))
        rows.append((kind.column, kind.finds, kind.documents, kind.kept_finds, kind.kept_documents, *shares))
    return shown("pii", "Personal data by kind", f"SELECT * EXCLUDE (place) FROM (\n{some}\n)\nORDER BY place", columns, rows)


def _kind(place: int, kind: str) -> str:
    name = column(kind)
    return f"""\
SELECT {place} AS place, {literal(kind)} AS kind, coalesce(sum({name}), 0) AS finds, count(*) FILTER ({name} > 0) AS documents,
  coalesce(sum({name}) FILTER (kept), 0) AS kept_finds, count(*) FILTER (kept AND {name} > 0) AS kept_documents,
  count(*) FILTER ({name} > 0) / nullif(count(*), 0) AS share,
  count(*) FILTER (kept AND {name} > 0) / nullif(count(*) FILTER (kept), 0) AS kept_share
FROM filter_report"""


def touched(found: PersonalData) -> Shown:
    """Documents with any find."""
    some = " OR ".join(f"{column(kind.column)} > 0" for kind in found.kinds)
    sql = f"""\
SELECT count(*) AS rows, count(*) FILTER (kept) AS kept, count(*) FILTER ({some}) AS touched,
  count(*) FILTER (kept AND ({some})) AS kept_touched, touched / nullif(count(*), 0) AS share,
  kept_touched / nullif(count(*) FILTER (kept), 0) AS kept_share
FROM filter_report"""
    shares = (ratio(found.touched, found.rows), ratio(found.kept_touched, found.kept))
    row = (found.rows, found.kept, found.touched, found.kept_touched, *shares)
    columns = ("rows", "kept", "touched", "kept_touched", "share", "kept_share")
    return shown("pii-documents", "Documents with personal data", sql, columns, [row])


def near(d: Decisions, entry: NearMisses) -> Shown:
    """The documents on both sides of a rule; of equal ids the nearest."""
    rule, name = entry.comparison, literal(entry.rule.name)
    numeric = rule is not None and is_number(rule.threshold)
    dropped = _side(d.stage, rule if numeric else None, f"list_contains(failed, {name})", 0, "dropped")
    kept = _side(d.stage, rule if numeric else None, "kept", 1, "kept")
    both = [dropped, *([kept] if any(s.side == "kept" for s in entry.shown) else [])]
    columns = ("side", "id", "distance") if numeric else ("side", "id")
    every = "\nUNION ALL ".join(both)
    sql = f"SELECT {', '.join(columns)} FROM (\n{every}\n)\nORDER BY place, others, distance, id"
    rows = [(s.side, s.sample.id, s.sample.rank[1]) if numeric else (s.side, s.sample.id) for s in entry.shown]
    return shown("near", f"Documents near {entry.rule.name}", sql, columns, rows)


def examples(d: Decisions, found: Examples) -> Shown:
    """Pages that a rule dropped, those in one language first; of equal ids the nearest."""
    name, rule = literal(found.rule), found.comparison
    where = f"failed = [{name}]" if found.alone else f"list_contains(failed, {name})"
    distance, elsewhere = "0.0", "false"
    if rule is not None and is_number(rule.threshold):
        value = f"{column(rule.column)}::DOUBLE"
        distance, where = f"abs({value} - {literal(float(rule.threshold))})", f"{where} AND {value} IS NOT NULL AND NOT isnan({value})"
    if found.language is not None:
        elsewhere = f"coalesce(language::VARCHAR <> {literal(found.language)}, true)"
    sql = f"""
        SELECT id, {distance} AS distance, {elsewhere} AS elsewhere
        FROM {d.stage}_report WHERE {where}
        QUALIFY row_number() OVER (PARTITION BY id ORDER BY elsewhere, distance) = 1
        ORDER BY elsewhere, distance, id LIMIT {MOST}
    """
    rows = [(each.sample.id, each.sample.rank[1], bool(each.sample.rank[0])) for each in found.shown]
    return shown("examples", f"Pages that {found.rule} dropped", sql, ("id", "distance", "elsewhere"), rows)


def _side(stage: str, rule: Rule | None, where: str, place: int, side: str) -> str:
    distance = "0.0"
    if rule is not None:
        value = f"{column(rule.column)}::DOUBLE"
        distance, where = f"abs({value} - {literal(float(rule.threshold))})", f"{where} AND {value} IS NOT NULL AND NOT isnan({value})"
    return f"""\
(SELECT {place} AS place, '{side}' AS side, id, len(failed) > 1 AS others, {distance} AS distance
FROM {stage}_report WHERE {where}
QUALIFY row_number() OVER (PARTITION BY id ORDER BY others, distance) = 1
ORDER BY others, distance, id LIMIT {SAMPLES})"""
