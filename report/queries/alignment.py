"""Reads which preference pairs alignment dropped, for the page."""

from dataclasses import dataclass

from corpusmill.report.queries.ask import Query, ask, has_report
from corpusmill.report.query.run import Run

#: Dropped pairs for which the page says why.
MOST = 50


@dataclass(frozen=True)
class Alignment:
    """What the page shows of alignment. `dropped`: pairs that failed each rule. `notes`: dropped pairs (id, reason)."""

    dropped: dict[str, int]
    notes: list[tuple[str, str]]
    queries: dict[str, Query]


def read_alignment(run: Run) -> Alignment | None:
    """Reads what the run has of alignment; None if no pair was dropped."""
    if not has_report(run, "align"):
        return None
    queries = {
        "dropped": ask(run, "pairs-dropped", "Pairs that were dropped", """
            SELECT unnest(failed) AS rule, count(*) AS pairs FROM align_report GROUP BY rule ORDER BY rule
        """),
        "notes": ask(run, "pairs-dropped-notes", "Why pairs were dropped", f"""
            SELECT id, coalesce(nullif(note, ''), array_to_string(failed, ', ')) AS note
            FROM align_report
            WHERE len(failed) > 0
            LIMIT {MOST}
        """),
    }  # fmt: skip
    dropped = {row["rule"]: row["pairs"] for row in queries["dropped"].rows}
    notes = [(row["id"], row["note"]) for row in queries["notes"].rows]
    return Alignment(dropped, notes, queries) if dropped else None
