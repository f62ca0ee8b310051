"""What the page shows of the run's time and memory, with the query."""

from collections.abc import Mapping, Sequence
from typing import Any

from corpusmill.report.shown.shown import Shown, shown

COLUMNS = ("stage", "phase", "seconds", "tasks", "rows_a_second", "mb_a_second", "peak_mb")


def times(stages: Sequence[Mapping[str, Any]]) -> Shown:
    """Of `stage_times`."""
    sql = """
        SELECT stage, phase, seconds, tasks, rows_in / nullif(seconds, 0) AS rows_a_second,
          bytes_in / nullif(seconds, 0) / 1e6 AS mb_a_second, peak_mb
        FROM (
          SELECT content->>'stage' AS stage, content->>'phase' AS phase, min(line) AS first,
            coalesce(sum((content->>'seconds')::DOUBLE), 0) AS seconds, coalesce(sum((content->>'tasks')::BIGINT), 0) AS tasks,
            nullif(sum((content->>'rows_in')::BIGINT), 0) AS rows_in, nullif(sum((content->>'bytes_in')::BIGINT), 0) AS bytes_in,
            coalesce(max((content->>'peak_mb')::DOUBLE), 0) AS peak_mb
          FROM json_metrics
          GROUP BY ALL
        )
        ORDER BY first
    """
    return shown("times", "Time and memory by stage and phase", sql, COLUMNS, map(_row, stages))


def _row(of: Mapping[str, Any]) -> tuple[Any, ...]:
    seconds = of["seconds"]
    rows, size = (of[name] / seconds if seconds and of[name] else None for name in ("rows_in", "bytes_in"))
    return of["stage"], of["phase"], seconds, of["tasks"], rows, None if size is None else size / 1e6, of["peak_mb"]
