"""What the page shows of languages, crawl files and hosts, with the queries over reports and documents."""

from corpusmill.ingest.charset import canonical
from corpusmill.report import host
from corpusmill.report.facts.origins import FAR, FEWEST, LOSERS, SHOWN, TEXTS, Encodings, Origin
from corpusmill.report.query.sql import column, literal
from corpusmill.report.shown.shown import Shown, ratio, shown

#: What a row has of each stage.
COUNTS = ("documents", "characters")


def origin(found: Origin) -> Shown:
    """The most frequent names, then all others together: documents and characters that came in, and after each stage."""
    counts = [f"{count}_{when}" for when in ("in", *found.stages) for count in COUNTS]
    last = found.stages[-1] if found.stages else "in"
    sums = ", ".join(f"coalesce(sum({name}), 0) AS {name}" for name in counts)
    each = ", ".join(f"sum({name}) AS {name}" for name in counts)
    sql = f"""\
WITH counted AS (
{_parts(found)}
), summed AS (
  SELECT name, coalesce(sum(documents_in), 0) AS frequent, {each} FROM counted GROUP BY name
), placed AS (
  SELECT *, least(row_number() OVER (ORDER BY frequent DESC, name), {SHOWN + 1}) AS place FROM summed
)
SELECT if(place > {SHOWN}, format('{{:,}} others', count(*)), any_value(placed.name)) AS name, {sums},
  coalesce(sum(documents_{last}), 0) / nullif(sum(documents_in), 0) AS documents_share,
  coalesce(sum(characters_{last}), 0) / nullif(sum(characters_in), 0) AS characters_share
FROM placed
GROUP BY place
ORDER BY place"""
    columns = ("name", *counts, "documents_share", "characters_share")
    return shown(f"origin-{found.column}", f"{found.title}: before and after", sql, columns, map(_row, found.shown()))


def losers(found: Origin) -> Shown:
    """Those that keep far less than the average."""
    last = f"documents_{found.stages[-1]}"
    sql = f"""\
WITH counted AS (
{_parts(found)}
), summed AS (
  SELECT name, sum(documents_in) AS documents_in, coalesce(sum({last}), 0) AS documents_left FROM counted GROUP BY name
), average AS (
  SELECT sum(documents_left) / sum(documents_in) AS kept FROM summed
)
SELECT name, documents_in, documents_left, documents_left / documents_in AS share
FROM summed, average
WHERE documents_in >= {FEWEST} AND documents_left < {FAR} * kept * documents_in
ORDER BY documents_in * kept - documents_left DESC, name
LIMIT {LOSERS}"""
    rows = [(name, before, left, left / before) for name, before, left in found.losers()]
    columns = ("name", "documents_in", "documents_left", "share")
    return shown(f"losers-{found.column}", f"{found.title}: loses most", sql, columns, rows)


def _parts(found: Origin) -> str:
    """A query a stage, whose columns are the counts before and after it; those of other stages are nulls."""
    parts = [
        f"""\
SELECT {_name(found.column)} AS name, count(*) AS documents_in, sum(chars_in) AS characters_in
FROM {found.first}_report GROUP BY name"""
    ]
    for stage in found.stages:
        if stage in found.by_report:
            table, characters, where = f"{stage}_report", "chars_out", " WHERE kept"
        else:
            table, characters, where = f"{stage}_documents", "length(text)", ""
        counts = f"count(*) AS documents_{stage}, sum({characters}) AS characters_{stage}"
        parts.append(f"SELECT {_name(found.column)} AS name, {counts}\nFROM {table}{where} GROUP BY name")
    return "\nUNION ALL BY NAME ".join(parts)


def _name(name: str) -> str:
    value = host.SQL if name == "url" else column(name)
    return f"coalesce({value}, '{host.NONE}')"


def encodings(found: Encodings, origin: Origin) -> Shown:
    """By encoding and what was claimed where that was another one or nothing; the most frequent, then all others together.

    Which claims mean the encoding that was used (`latin1`, `windows-1252`) is not known to SQL, so the query lists them.
    """
    same = {claimed for used, claimed, _ in found.counts if claimed is not None and canonical(claimed) == used}
    texts = ", ".join(literal(kind) for kind in TEXTS)
    sql = f"""\
WITH named AS (
  SELECT CASE
      WHEN encoding_claimed IS NULL THEN encoding || if(record_type IN ({texts}), '', ', nothing claimed')
      WHEN list_contains([{", ".join(map(literal, sorted(same)))}]::VARCHAR[], encoding_claimed) THEN encoding
      ELSE encoding || ', claimed ' || encoding_claimed END AS name, kept, chars_in, chars_out
  FROM ingest_report
  WHERE encoding IS NOT NULL
), summed AS (
  SELECT name, count(*) AS documents_in, sum(chars_in) AS characters_in, count(*) FILTER (kept) AS documents_ingest,
    coalesce(sum(chars_out) FILTER (kept), 0) AS characters_ingest
  FROM named
  GROUP BY name
), placed AS (
  SELECT *, least(row_number() OVER (ORDER BY documents_in DESC, name), {SHOWN + 1}) AS place FROM summed
)
SELECT if(place > {SHOWN}, format('{{:,}} others', count(*)), any_value(placed.name)) AS name, sum(documents_in) AS documents_in,
  sum(characters_in) AS characters_in, sum(documents_ingest) AS documents_ingest, sum(characters_ingest) AS characters_ingest,
  sum(documents_ingest) / nullif(sum(documents_in), 0) AS documents_share,
  sum(characters_ingest) / nullif(sum(characters_in), 0) AS characters_share
FROM placed
GROUP BY place
ORDER BY place"""
    columns = ("name", "documents_in", "characters_in", "documents_ingest", "characters_ingest", "documents_share", "characters_share")
    return shown("encodings", "Encodings", sql, columns, map(_row, origin.shown()))


def _row(of: tuple[str, list[int], list[int]]) -> tuple[str | float | None, ...]:
    """A row of an origin: documents and characters of each stage in turn, and what is left of both."""
    name, documents, characters = of
    both = [count for pair in zip(documents, characters, strict=True) for count in pair]
    return name, *both, ratio(documents[-1], documents[0]), ratio(characters[-1], characters[0])
