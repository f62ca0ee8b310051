"""What the page shows of cuts inside documents and of contamination, with the queries over the report of the dedup stage."""

from collections.abc import Sequence

from corpusmill.report.facts.contamination import EACH, RULE, SETS, Contamination
from corpusmill.report.facts.cuts import COLUMNS, RULES, Cuts, TopLines
from corpusmill.report.read import RunReader
from corpusmill.report.shown.shown import Shown, shown

#: Columns of the report in which other edits say what they took of a document.
OTHERS = ("line_chars_cut", "substring_chars_cut")


def cuts(found: Sequence[Cuts]) -> Shown:
    """Repeated lines and passages that were cut."""
    columns = ("repeated", "documents", "cut", "of", "characters", "share", "dropped")
    rows = [
        (c.kind, c.documents, c.cut, c.pieces, c.characters, c.characters / c.before if c.before else None, c.dropped) for c in found
    ]  # fmt: skip
    return shown("cuts", "Repeats cut inside documents", "\nUNION ALL\n".join(map(_cut, found)) + "\nORDER BY repeated", columns, rows)


def _cut(of: Cuts) -> str:
    cut, characters, pieces = COLUMNS[of.kind]
    rules = ", ".join(f"'{rule}'" for rule in RULES[of.kind])
    return f"""\
SELECT '{of.kind}' AS repeated, count(*) FILTER ({cut} > 0) AS documents, coalesce(sum({cut}), 0) AS cut,
  coalesce(sum({pieces or "0"}), 0) AS "of", coalesce(sum({characters}) FILTER ({cut} > 0), 0) AS characters,
  coalesce(sum({characters}) FILTER ({cut} > 0), 0) / sum(chars_in) AS share,
  (SELECT count(*) FROM dedup_report WHERE list_has_any(failed, [{rules}])) AS dropped
FROM dedup_report
WHERE kept"""


def top_lines(found: TopLines) -> Shown:
    """The lines that are cut most often, as the stage's table has them."""
    sql = f"SELECT text, documents, times, sources FROM dedup_lines_top LIMIT {max(1, len(found.rows))}"
    columns = ("text", "documents", "times", "sources")
    return shown("top-lines", "What was cut most often", sql, columns, [[row[name] for name in columns] for row in found.rows])


def contamination_totals(found: Contamination, reader: RunReader) -> Shown:
    schema = reader.schema("dedup", "report")
    others = "".join(f" - coalesce({name}, 0)" for name in OTHERS if schema is not None and name in schema.names)
    sql = f"""
        SELECT count(*) FILTER (contaminated_set IS NOT NULL) AS documents,
          count(*) FILTER (kept OR list_contains(failed, '{RULE}')) AS looked_at,
          coalesce(sum(contamination_matches) FILTER (contaminated_set IS NOT NULL), 0) AS items,
          count(*) FILTER (contaminated_set IS NOT NULL AND NOT kept) AS dropped,
          count(*) FILTER (contaminated_set IS NOT NULL AND kept) AS stayed,
          coalesce(sum(chars_in - chars_out{others}) FILTER (contaminated_set IS NOT NULL AND kept), 0) AS characters
        FROM dedup_report
    """
    row = (found.documents, found.seen, found.items, found.dropped, found.documents - found.dropped, found.characters)
    return shown("contamination", "Contamination", sql, ("documents", "looked_at", "items", "dropped", "stayed", "characters"), [row])


def contamination_sets(found: Contamination, most: int) -> Shown:
    sql = f"""
        SELECT contaminated_set, count(*) AS documents,
          count(*) / (SELECT count(*) FROM dedup_report WHERE kept OR list_contains(failed, '{RULE}')) AS share,
          count(*) FILTER (NOT kept) AS dropped
        FROM dedup_report
        WHERE contaminated_set IS NOT NULL
        GROUP BY contaminated_set
        ORDER BY documents DESC, contaminated_set
        LIMIT {most}
    """
    rows = [(name, of.documents, of.documents / found.seen, of.dropped) for name, of in found.by_documents()[:most]]
    return shown("contamination-sets", "Evaluation sets", sql, ("contaminated_set", "documents", "share", "dropped"), rows)


def contamination_examples(found: Contamination) -> Shown:
    """The documents of each set of whose match the least was found."""
    sql = f"""
        SELECT contaminated_set, id, contaminated_item AS item, contamination AS share, contamination_matches AS items
        FROM (
          SELECT *, count(*) OVER (PARTITION BY contaminated_set) AS documents
          FROM (SELECT *, row_number() OVER () AS place FROM dedup_report)
          WHERE contaminated_set IS NOT NULL
        )
        QUALIFY row_number() OVER (PARTITION BY contaminated_set ORDER BY contamination, place) <= {EACH}
          AND dense_rank() OVER (ORDER BY documents DESC, contaminated_set) <= {SETS}
        ORDER BY documents DESC, contaminated_set, contamination, place
    """
    rows = [(f.set, f.id, f.item, f.share, f.items) for f in found.examples]
    return shown("contamination-examples", "The least certain matches", sql, ("contaminated_set", "id", "item", "share", "items"), rows)
