"""What the page shows of trainings, with the queries over their logs and figures."""

from collections.abc import Sequence
from typing import Any

from corpusmill.report.facts.training import FIGURES, POINTS, SPEED, SPEED_POINTS, Curve, Group, Training, as_number
from corpusmill.report.query.sql import aliases, field
from corpusmill.report.shown.shown import Shown, shown, slug

#: What is logged of the interval of a score, by the score.
BANDS = {"validation_bits_per_byte": ("validation_low", "validation_high")}


def steps(of: Training) -> Shown:
    """How many steps, and how fast they were."""
    columns: list[str] = ["steps"]
    row: list[float | None] = [of.steps]
    sql = f"SELECT (SELECT count(*) FROM {_log(of.stage)}) AS steps"
    if of.speed is not None:
        columns += ["tokens_per_second", "gflops_per_second", "mfu", "waited", "memory_gb", "cuda_gb"]
        row += [of.speed.tokens_per_second, _billions(of.speed.flops_per_second), of.speed.mfu, of.speed.waited]
        row += [_billions(of.speed.memory_bytes), _billions(of.speed.cuda_bytes)]
        sql += f""",
  median({_number("tokens_per_second")}) AS tokens_per_second, median({_number("flops_per_second")}) / 1e9 AS gflops_per_second,
  median({_number("mfu")}) AS mfu, sum({_number("waited")}) / nullif(sum({_number("seconds")}), 0) AS waited,
  max({_number("memory_bytes")}) / 1e9 AS memory_gb, max({_number("cuda_bytes")}) / 1e9 AS cuda_gb
FROM {_log(of.stage, "speed")}"""
    return shown(f"{of.stage}-steps", f"{of.stage}: steps and speed", sql, columns, [row])


def _billions(value: float | None) -> float | None:
    return None if value is None else value / 1e9


def curve(of: Curve, training: Training) -> Shown:
    """The points that are drawn, of a score with its interval."""
    if of.name == SPEED:
        return _speed(of)
    names = [of.name, *(name for name in BANDS.get(of.name, ()) if training.curve(name))]
    known = aliases(names)
    others = [dict(zip(found.steps, found.values, strict=True)) for name in names[1:] if (found := training.curve(name))]
    values = ", ".join(f"{_number(name)} AS {alias}" for name, alias in zip(names, known, strict=True))
    sql = f"""
        SELECT step, {", ".join(known)}
        FROM (
          SELECT *, row_number() OVER (ORDER BY line) - 1 AS place, count(*) OVER () AS points
          FROM (SELECT line, {_step()}, {values} FROM {_log(of.stage)})
          WHERE isfinite({known[0]})
        )
        WHERE place % ceil(points / {POINTS}) = 0 OR place = points - 1
        ORDER BY line
    """
    rows = [(step, value, *(other.get(step) for other in others)) for step, value in zip(of.steps, of.values, strict=True)]
    return shown(f"{of.stage}-{slug(of.name)}", f"{of.stage}: {of.name}", sql, ("step", *known), rows)


def _speed(of: Curve) -> Shown:
    """Each point is the last of some steps, with the median of all of them."""
    sql = f"""
        SELECT max(step) AS step, median({SPEED}) AS {SPEED}
        FROM (
          SELECT {_step()}, {_number(SPEED)} AS {SPEED},
            (row_number() OVER (ORDER BY line) - 1) // ceil(count(*) OVER () / {SPEED_POINTS})::BIGINT AS point
          FROM {_log(of.stage, "speed")}
        )
        GROUP BY point
        HAVING count({SPEED}) > 0
        ORDER BY step
    """
    return shown(f"{of.stage}-speed", f"{of.stage}: tokens a second", sql, ("step", SPEED), zip(of.steps, of.values, strict=True))


def skips(of: Training) -> Shown:
    """The steps that are marked in the curve of the loss."""
    skipped = "coalesce(content->>'skipped', '') NOT IN ('', 'false', '0')"
    sql = f"SELECT {_step()} FROM {_log(of.stage)} WHERE {skipped} ORDER BY line LIMIT {POINTS}"
    return shown(f"{of.stage}-skipped", f"{of.stage}: skipped steps", sql, ("step",), [(step,) for step in of.skips])


def groups(of: Training, kind: str, most: int) -> Shown:
    """Validation by language, source or host."""
    by = f"json_{of.stage}_metrics, json_each(content->'validation'->'by'->{field(kind)})"
    values = ["(value->>'bits_per_byte')::DOUBLE"]
    values += [f"(value->>'{name}')::DOUBLE" for name in ("low", "high", "documents", "utf8_bytes")]
    if not of.finished:
        last = f"SELECT max(line) FROM {_log(of.stage)} WHERE json_type(content->'validation_by') = 'OBJECT'"
        by = f"json_{of.stage}_logs_train, json_each(content->'validation_by'->{field(kind)})\nWHERE line = ({last})"
        values = ["TRY_CAST(value->>'$' AS DOUBLE)", *["NULL"] * 4]
    columns = ("name", "bits_per_byte", "low", "high", "documents", "utf8_bytes")
    named = ", ".join(f"{value} AS {name}" for value, name in zip(values, columns[1:], strict=True))
    sql = f"SELECT key AS name, {named}\nFROM {by}\nORDER BY id\nLIMIT {most}"
    title = f"{of.stage}: validation by {kind}"
    return shown(f"{of.stage}-validation-{slug(kind)}", title, sql, columns, [_group(group) for group in of.groups[kind][:most]])


def _group(of: Group) -> tuple[Any, ...]:
    return of.name, of.bits, of.low, of.high, of.documents, of.utf8_bytes


def figures(title: str, leaves: Sequence[tuple[str, Any]], most: int) -> Shown:
    """The figures that a stage left of itself; what is no number is NULL."""
    stage = FIGURES[title].partition("/")[0]
    sql = f"""
        SELECT replace(substr(fullkey, 3), '"', '') AS name, TRY_CAST(atom->>'$' AS DOUBLE) AS value
        FROM json_{stage}_metrics, json_tree(content)
        WHERE type <> 'OBJECT' AND NOT starts_with(fullkey, '$.validation.by.') AND NOT contains(fullkey, '[')
        ORDER BY id
        LIMIT {most}
    """
    rows = [(name, as_number(value)) for name, value in leaves[:most]]
    return shown(f"{stage}-figures", f"{title}: figures", sql, ("name", "value"), rows)


def _log(stage: str, name: str = "train") -> str:
    return f"json_{stage}_logs_{name}"


def _step() -> str:
    return "(content->>'step')::BIGINT AS step"


def _number(name: str) -> str:
    """A logged value, which may be text (`nan`)."""
    return f"TRY_CAST(content->>{field(name)} AS DOUBLE)"
