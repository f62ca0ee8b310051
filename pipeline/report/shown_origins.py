"""What the page shows of languages, crawl files and hosts, with the queries over reports and documents."""

from corpusmill.pipeline.report.origin_counts import HOST, NONE
from corpusmill.pipeline.report.origins import FAR, FEWEST, LOSERS, SHOWN, Encodings, Origin
from corpusmill.pipeline.report.shown import Shown, column, shown

#: What a row has of each stage.
COUNTS = ("documents", "characters")


def origin(found: Origin) -> Shown:
    """The most frequent names: documents and characters that came in, and after each stage."""
    columns = ["name", *(f"{count}_{when}" for when in ("in", *found.stages) for count in COUNTS)]
    sums = ", ".join(f"coalesce(sum({name}), 0) AS {name}" for name in columns[1:])
    sql = f"""\
WITH counted AS (
{_parts(found)}
)
SELECT name, {sums}
FROM counted
GROUP BY name
ORDER BY documents_in DESC, name
LIMIT {SHOWN}"""
    rows = [
        (name, *(count for pair in zip(documents, characters, strict=True) for count in pair))
        for name, documents, characters in found.shown()[: min(SHOWN, len(found.names))]
    ]
    return shown(f"origin-{found.column}", f"{found.title}: before and after", sql, columns, rows)


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
SELECT name, documents_in, documents_left
FROM summed, average
WHERE documents_in >= {FEWEST} AND documents_left < {FAR} * kept * documents_in
ORDER BY documents_in * kept - documents_left DESC, name
LIMIT {LOSERS}"""
    return shown(f"losers-{found.column}", f"{found.title}: loses most", sql, ("name", "documents_in", "documents_left"), found.losers())


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
    value = f"nullif(regexp_extract(url, '{HOST}', 1), '')" if name == "url" else column(name)
    return f"coalesce({value}, '{NONE}')"


def encodings(found: Encodings, most: int) -> Shown:
    """The encodings that were used and claimed, as the report has them; the page puts names of the same encoding together."""
    sql = f"""
        SELECT encoding, encoding_claimed, record_type, count(*) AS documents, count(*) FILTER (kept) AS kept
        FROM ingest_report
        WHERE encoding IS NOT NULL
        GROUP BY ALL
        ORDER BY documents DESC, encoding, encoding_claimed NULLS FIRST, record_type
        LIMIT {most}
    """
    rows = [(used, claimed, kind, counts[0], counts[2]) for (used, claimed, kind), counts in found.counts.items()]
    rows.sort(key=lambda row: (-row[3], row[0], row[1] is not None, row[1] or "", row[2]))
    columns = ("encoding", "encoding_claimed", "record_type", "documents", "kept")
    return shown("encodings", "Encodings", sql, columns, rows[:most])
