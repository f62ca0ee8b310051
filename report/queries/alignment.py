"""Reads which preference pairs alignment dropped, for the page."""

from corpusmill.report.queries.ask import Query, ask, has_report
from corpusmill.report.query.run import Run

#: Dropped pairs for which the page says why.
MOST = 50


def read_alignment(run: Run) -> dict[str, Query] | None:
    """Reads the pairs that failed each rule (`dropped`), and dropped pairs with a reason (`notes`); None if no pair was dropped."""
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
    return queries if queries["dropped"].rows else None
