"""Reads how alignment made preference pairs from scores, and which pairs it dropped, for the page."""

from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from corpusmill.report.queries.ask import Query, ask, has_report, json_query
from corpusmill.report.query.run import Run
from corpusmill.report.read import RunReader

SOURCES = "align/pair_sources.json"
#: Dropped pairs for which the page says why.
MOST = 50


@dataclass(frozen=True)
class PairSource:
    """The preference pairs made from one score. `good` and `bad`: its two thresholds; None if the best part is not above the worst."""

    column: str
    unit: str
    high_is_good: bool
    scored: int
    good: float | None
    bad: float | None
    wanted: int
    pairs: int
    chosen_chars: float | None
    rejected_chars: float | None


@dataclass(frozen=True)
class Alignment:
    """What the page shows of alignment. `dropped`: pairs that failed each rule. `notes`: dropped pairs (id, reason)."""

    sources: list[PairSource]
    dropped: dict[str, int]
    notes: list[tuple[str, str]]
    queries: dict[str, Query]


def read_alignment(run: Run) -> Alignment | None:
    """Reads what the run has of alignment; None if it has nothing. A file that can't be read becomes a warning."""
    sources = _read_sources(run.reader)
    queries = {"sources": json_query("Pairs from scores", SOURCES)}
    dropped, notes = {}, []
    if has_report(run, "align"):
        queries["dropped"] = ask(run, "pairs-dropped", "Pairs that were dropped", """
            SELECT unnest(failed) AS rule, count(*) AS pairs FROM align_report GROUP BY rule ORDER BY rule
        """)  # fmt: skip
        queries["notes"] = ask(run, "pairs-dropped-notes", "Why pairs were dropped", f"""
            SELECT id, coalesce(nullif(note, ''), array_to_string(failed, ', ')) AS note
            FROM align_report
            WHERE len(failed) > 0
            LIMIT {MOST}
        """)  # fmt: skip
        dropped = {row["rule"]: row["pairs"] for row in queries["dropped"].rows}
        notes = [(row["id"], row["note"]) for row in queries["notes"].rows]
    if not (sources or dropped):
        return None
    return Alignment(sources, dropped, notes, queries)


def _read_sources(reader: RunReader) -> list[PairSource]:
    """Reads `align/pair_sources.json`; returns nothing where it is missing or (with a warning) not valid."""
    try:
        return list(TypeAdapter(dict[str, PairSource]).validate_python(reader.json(SOURCES, dict) or {}).values())
    except ValidationError:
        reader.warn(f"{SOURCES}: not a valid file of alignment, so it is left out.")
        return []
