"""Reads the finds of deduplication inside documents: repeated lines and passages that it cut, and items of evaluation sets."""

from dataclasses import dataclass, field, replace
from typing import Any

from corpusmill.report.queries.ask import Query, ask, columns, has_report, listed
from corpusmill.report.query.run import Run
from corpusmill.report.read import RunReader

LINES, PASSAGES = "lines", "passages"
#: By kind: the report's columns with the number of pieces cut, their characters, and the number of all pieces; and the rules that drop
#: documents with nothing (or too little) left.
COLUMNS = {LINES: ("lines_cut", "line_chars_cut", "lines_in"), PASSAGES: ("substring_spans", "substring_chars_cut", None)}
RULES = {LINES: ("only_repeated_lines", "mostly_repeated_lines"), PASSAGES: ("only_repeated_substrings",)}
TOP_LINES = "dedup_lines_top"
NEEDED = {"text", "documents", "times", "sources", "example_id", "example_url"}
#: Lines that the page shows.
TOP_SHOWN = 25
SETS_TABLE = "dedup_contamination_sets"
SET, RULE = "contaminated_set", "contaminated"
#: Documents shown for each set, and sets whose documents are shown.
EACH, SETS = 3, 10
#: What happens to an item in a document that stays, by `dedup.contamination.action`.
STAYED = {"cut": "cut out", "report": "only reported"}


@dataclass(frozen=True)
class TopLines:
    """The lines that were cut most often. `listed`: how many lines the stage's list has. `about`: which lines are cut, in words."""

    rows: list[dict[str, Any]]
    listed: int
    unit: str
    about: str
    file: str
    query: Query


def read_cuts(run: Run) -> Query | None:
    """Reads the cuts by kind (`repeated`): kept documents that lost text, the pieces `cut` and their characters; the pieces (`of`, 0 where
    the report does not count them) and characters of all kept documents `before`; documents `dropped` for their repeats. None where the
    stage did not search for them."""
    kinds = columns(run, "dedup_report") if has_report(run, "dedup") else {}
    parts = []
    for kind, (cut, characters, pieces) in COLUMNS.items():
        if cut in kinds:
            parts.append(f"""\
SELECT '{kind}' AS repeated, count(*) FILTER ({cut} > 0) AS documents, coalesce(sum({cut}), 0)::BIGINT AS cut,
  coalesce(sum({pieces if pieces in kinds else 0}), 0)::BIGINT AS "of",
  coalesce(sum({characters}) FILTER ({cut} > 0), 0)::BIGINT AS characters, coalesce(sum(chars_in), 0)::BIGINT AS "before",
  characters / nullif("before", 0) AS share,
  (SELECT count(*) FROM dedup_report WHERE list_has_any(failed, {listed(RULES[kind])})) AS dropped
FROM dedup_report
WHERE kept""")
    if not parts:
        return None
    return ask(run, "cuts", "Repeats cut inside documents", "\nUNION ALL\n".join(parts) + "\nORDER BY repeated")


def read_top_lines(run: Run) -> TopLines | None:
    """Reads the stage's list of the lines that it cut most often; None if it has none."""
    if not columns(run, TOP_LINES).keys() >= NEEDED:
        return None
    query = ask(run, "top-lines", "What was cut most often", f"FROM {TOP_LINES} LIMIT {TOP_SHOWN}")
    listed_ = ask(run, "top-lines-all", "All lines", f"SELECT count(*) AS rows FROM {TOP_LINES}").first["rows"]
    settings = run.reader.settings("dedup").get("lines")
    settings = settings if isinstance(settings, dict) else {}
    unit = str(settings.get("unit", "line"))
    return TopLines(query.rows, listed_, unit, _about(unit, settings), run.tables[TOP_LINES].files[0], query)


def _about(unit: str, settings: dict[str, Any]) -> str:
    """Says which lines are cut, by the recipe."""
    within = " of a host" if settings.get("scope") == "host" else ""
    if settings.get("keep") == "first":
        return f"Of each repeated {unit}{within} the first one stays"
    if settings.get("keep") == "none":
        least = settings.get("min_count") or 10
        share = settings.get("min_share")
        also = f" and {share:.0%} of its documents" if within and isinstance(share, int | float) and share else ""
        return f"{unit.capitalize()}s of {least} documents{within}{also} or more are cut from all of them"
    return f"The most frequent {unit}s"


@dataclass(frozen=True)
class Contamination:
    """The contamination of a run. `seen`: documents that were searched. `documents`: those with at least one item; they hold `items`, and
    `dropped` of them were removed. `sets`: a row for each set that was read: its items, how many are `searched`, `too_short` (`offered` of
    them have `seed` words, so that a smaller `min_words` adds them), `repeated`, `boilerplate` and `matched`, and its documents; a document
    counts for the set of its best match. `characters`: cut out of documents that stay. `examples`: the weakest matches of each set."""

    action: str
    seen: int
    documents: int
    items: int
    dropped: int
    staying: int
    characters: int
    query: Query
    min_words: int
    seed: int
    sets: list[dict[str, Any]] = field(default_factory=list)
    sets_query: Query | None = None
    examples: Query | None = None

    def done(self) -> str:
        """Says in words what happened to these documents, with counts where it was not the same for all."""
        dropped = "dropped, since too little was left" if self.action == "cut" else "dropped"
        parts = [(self.dropped, dropped), (self.staying, stayed(self.action))]
        some = [(count, what) for count, what in parts if count]
        return some[0][1] if len(some) == 1 else "; ".join(f"{count:,} {what}" for count, what in some)

    def short(self) -> str:
        """Says how many items are too short to be searched for, and which option adds some of them; empty where there are none."""
        short, offered = (sum(row[name] for row in self.sets) for name in ("too_short", "offered"))
        if not short:
            return ""
        some = f"{short:,} item{' has' if short == 1 else 's have'} fewer than {self.min_words} words; these are not searched for."
        option = f"--set dedup.contamination.min_words={self.seed}"
        return some + (
            f" With {option}, {offered:,} of them would be, wherever a document has all their words in a row." if offered else ""
        )


def stayed(action: str) -> str:
    """Says what happened to a document that holds an item and stays."""
    return STAYED.get(action, "kept")


def contamination_options(reader: RunReader) -> dict[str, Any]:
    section = reader.settings("dedup").get("contamination")
    return section if isinstance(section, dict) else {}


def read_contamination(run: Run, examples: bool = True) -> Contamination | None:
    """Reads the contamination; None if the stage did not search for it. Memory grows with the number of sets."""
    kinds = columns(run, "dedup_report") if has_report(run, "dedup") else {}
    if SET not in kinds:
        return None
    others = "".join(f" - coalesce({name}, 0)" for name in ("line_chars_cut", "substring_chars_cut") if name in kinds)
    seen = f"kept OR list_contains(failed, '{RULE}')"
    query = ask(run, "contamination", "Contamination", f"""
        SELECT count(*) FILTER ({seen}) AS seen, count({SET}) AS documents,
          coalesce(sum(len(contamination_items)), 0)::BIGINT AS items,
          count(*) FILTER ({SET} IS NOT NULL AND NOT kept) AS dropped, count(*) FILTER ({SET} IS NOT NULL AND kept) AS staying,
          coalesce(sum(chars_in - chars_out{others}) FILTER ({SET} IS NOT NULL AND kept), 0)::BIGINT AS characters
        FROM dedup_report
    """)  # fmt: skip
    options = contamination_options(run.reader)
    action, min_words, seed = options.get("action", ""), options.get("min_words", 0), options.get("seed", 0)
    found = Contamination(action, **query.first, query=query, min_words=min_words, seed=seed)
    if "set" not in columns(run, SETS_TABLE):
        return found
    sets = ask(run, "contamination-sets", "Evaluation sets", f"""
        WITH documents AS (
          SELECT {SET} AS name, count(*) AS documents, count(*) FILTER (NOT kept) AS dropped FROM dedup_report GROUP BY name
        ), matches AS (
          SELECT regexp_replace(item, ':\\d+$', '') AS name, count(DISTINCT item) AS matched
          FROM (SELECT unnest(contamination_items) AS item FROM dedup_report) GROUP BY name
        )
        SELECT "set" AS name, items, searched, too_short, offered, repeated, boilerplate, coalesce(matched, 0) AS matched,
          coalesce(documents, 0) AS documents, documents / {found.seen or "NULL"} AS share, coalesce(dropped, 0) AS dropped
        FROM {SETS_TABLE} LEFT JOIN matches ON "set" = matches.name LEFT JOIN documents ON "set" = documents.name
        ORDER BY matched DESC, name
    """)  # fmt: skip
    with_documents = [row["name"] for row in sets.rows if row["documents"]]
    some = _examples(run, with_documents[:SETS]) if examples and with_documents else None
    return replace(found, sets=sets.rows, sets_query=sets, examples=some)


def _examples(run: Run, names: list[str]) -> Query:
    """Reads the documents with the weakest matches of some sets."""
    return ask(run, "contamination-examples", "The least certain matches", f"""
        SELECT {SET} AS "set", contaminated_item AS item, contaminated_field AS field, contamination AS share,
          contamination_passage AS passage, len(contamination_items) AS found, id, url, kept
        FROM dedup_report
        WHERE list_contains({listed(names)}, {SET})
        QUALIFY row_number() OVER (PARTITION BY {SET} ORDER BY contamination, id) <= {EACH}
        ORDER BY list_position({listed(names)}, {SET}), contamination, id
    """)  # fmt: skip
