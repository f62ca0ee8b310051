"""What the page shows of evaluation and benchmarks, with the queries over `evaluate/scores.json` and the tables of the stage."""

from collections.abc import Sequence
from typing import Any

from corpusmill.report.facts.benchmarks import EXAMPLES, Benchmark, Benchmarks
from corpusmill.report.facts.training import Scores, as_number
from corpusmill.report.query.sql import aliases, column, literal
from corpusmill.report.shown.shown import Shown, shown, slug

Sample = tuple[str, list[tuple[str, Any]]]


def scores(found: Scores, most: int) -> Shown:
    """Every score of every model; what is no number is NULL."""
    names = aliases(found.models)
    pivoted = ", ".join(f"any_value(number) FILTER (model = {literal(m)}) AS {name}" for m, name in zip(found.models, names, strict=True))
    sql = f"""
        SELECT score, {pivoted}
        FROM (
          SELECT model.key AS model, replace(substr(leaf.fullkey, 3), '"', '') AS score, TRY_CAST(leaf.atom->>'$' AS DOUBLE) AS number,
            leaf.type, list_position({_list(found.models)}, model.key) * 1000000 + leaf.id AS place
          FROM json_evaluate_scores, json_each(content) model, json_tree(model.value) leaf
          WHERE leaf.type <> 'OBJECT' AND NOT starts_with(leaf.fullkey, '$.tasks.') AND NOT contains(leaf.fullkey, '[')
        )
        GROUP BY score
        HAVING bool_or(type <> 'NULL')
        ORDER BY min(place)
        LIMIT {most}
    """
    rows = [(name, *(as_number(value) for value in values)) for name, values in found.rows[:most]]
    return shown("scores", "Evaluation scores", sql, ("score", *names), rows)


def samples(found: Sequence[Sample], most: int) -> Shown:
    """What is a number in the samples."""
    models = list(dict.fromkeys(model for model, _ in found))
    sql = f"""
        SELECT sample, model, replace(substr(leaf.fullkey, 3), '"', '') AS name, (leaf.atom->>'$')::DOUBLE AS "value"
        FROM (
          SELECT model.key AS model, each.value AS said,
            row_number() OVER (ORDER BY list_position({_list(models)}, model.key), each.id) AS sample
          FROM json_evaluate_samples, json_each(content) model, json_each(model.value) each
        ), json_tree(said) leaf
        WHERE sample <= {most} AND leaf.type IN ('UBIGINT', 'BIGINT', 'DOUBLE')
        ORDER BY sample, leaf.id
    """
    rows = [
        (number, model, name, value)
        for number, (model, said) in enumerate(found[:most], 1)
        for name, value in said
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    return shown("samples", "Numbers of the samples", sql, ("sample", "model", "name", "value"), rows)


def benchmarks(found: Benchmarks, models: Sequence[str]) -> Shown:
    """Each metric of each task. `models` are all of `evaluate/scores.json`, in their order."""
    names = aliases(found.models)
    sql = f"""\
SELECT task, metric,
  {_pivoted(found.models)},
  arg_min(chance, place) AS chance, arg_min(items, place) AS items, arg_min(total, place) AS total, arg_min(shots, place) AS shots,
  arg_min(cut, place) AS cut, arg_min(found, place) AS found
FROM (
  SELECT *, arg_min(metric_first, place) OVER (PARTITION BY key) AS best, min(place) OVER (PARTITION BY key) AS begin
  FROM ({_scores(models)})
)
GROUP BY key, task, metric, best, begin
ORDER BY begin, metric <> best, metric"""
    columns = ["task", "metric", *(part for name in names for part in (name, f"{name}_error"))]
    columns += ["chance", "items", "total", "shots", "cut", "found"]
    rows = [row for task in found.tasks for row in _task(task, found.models)]
    return shown("benchmarks", "Benchmarks", sql, columns, rows)


def _task(task: Benchmark, models: Sequence[str]) -> list[tuple[Any, ...]]:
    counts = (task.chance, task.items, task.total, task.shots, task.cut, task.found)
    return [(task.title, metric, *_pairs(of, models), *counts) for metric, of in task.scores.items()]


def _pairs(of: dict[str, Any], models: Sequence[str]) -> list[float | None]:
    """The score and its error of each model."""
    return [value for model in models for value in ((of[model].value, of[model].error) if model in of else (None, None))]


def _scores(models: Sequence[str]) -> str:
    """A row a model, task and metric."""
    count = "coalesce(({0}->>'{1}')::BIGINT, 0) AS {1}"
    own = ", ".join(count.format("task.value", name) for name in ("items", "total", "shots", "cut"))
    overlap = ", ".join(count.format("task.value->'overlap'", name) for name in ("found", "searched", "documents"))
    return f"""
    SELECT model.key AS model, task.key AS key, coalesce(task.value->>'title', task.key) AS task, task.value->>'metric' AS metric_first,
      metric.key AS metric, (metric.value->>'value')::DOUBLE AS value, (metric.value->>'stderr')::DOUBLE AS error,
      (task.value->>'chance')::DOUBLE AS chance, {own}, {overlap},
      list_position({_list(models)}, model.key) * 1000000 + task.id AS place
    FROM json_evaluate_scores, json_each(content) model, json_each(model.value->'tasks') task, json_each(task.value->'metrics') metric
    WHERE (metric.value->>'value') IS NOT NULL
  """


def parts(task: Benchmark, models: Sequence[str], most: int) -> Shown:
    """The parts of a task, the weakest first."""
    names = aliases(models)
    sql = f"""\
SELECT part,
  {_pivoted(models)}
FROM (
  SELECT model.key AS model, part.key AS part, (score->>'value')::DOUBLE AS value, (score->>'stderr')::DOUBLE AS error
  FROM json_evaluate_scores, json_each(content) model, json_each(model.value->'tasks') task, json_each(task.value->'groups') part,
    (SELECT part.value->'metrics'->(task.value->>'metric') AS score)
  WHERE task.key = {literal(task.name)} AND (score->>'value') IS NOT NULL
)
GROUP BY part
ORDER BY avg(value), part
LIMIT {most}"""
    columns = ("part", *(part for name in names for part in (name, f"{name}_error")))
    rows = [(name, *_pairs(of, models)) for name, of in task.weakest()[:most]]
    return shown(f"parts-{slug(task.name)}", f"{task.title}: its parts", sql, columns, rows)


def overlap(task: Benchmark, models: Sequence[str]) -> Shown:
    """What of a task stands in the run's documents, and the scores without it."""
    sql = f"""\
SELECT model, (task->'overlap'->>'found')::BIGINT AS found, (task->'overlap'->>'documents')::BIGINT AS documents,
  (task->>'total')::BIGINT AS total, (task->>'total')::BIGINT - (task->'overlap'->>'searched')::BIGINT AS not_looked_for,
  (task->'overlap'->'without'->(task->>'metric')->>'value')::DOUBLE AS score_without,
  (task->'overlap'->'without'->(task->>'metric')->>'stderr')::DOUBLE AS error
FROM (
  SELECT model.key AS model, task.value AS task
  FROM json_evaluate_scores, json_each(content) model, json_each(model.value->'tasks') task
  WHERE task.key = {literal(task.name)}
)
WHERE model IN ({", ".join(literal(model) for model in models)})
ORDER BY list_position({_list(models)}, model)"""
    counts = (task.found, task.documents, task.total, task.total - task.searched)
    here = [model for model in models if model in task.scores[task.metric]]
    rows = [(model, *counts, *_pairs(task.without, [model])) for model in here]
    columns = ("model", "found", "documents", "total", "not_looked_for", "score_without", "error")
    return shown(f"overlap-{slug(task.name)}", f"{task.title}: items in the corpus", sql, columns, rows)


def leaks(task: Benchmark) -> Shown:
    """The items of which most was found."""
    table = column(f"evaluate_benchmarks_overlap_{task.name}")
    sql = f"SELECT item, share, documents FROM {table} ORDER BY share DESC, item LIMIT {EXAMPLES}"
    rows = [(leak.item, leak.share, leak.documents) for leak in task.leaks]
    return shown(f"leaks-{slug(task.name)}", f"{task.title}: the items of which most was found", sql, ("item", "share", "documents"), rows)


def _pivoted(models: Sequence[str]) -> str:
    """The score and its error of each model as columns."""
    named = zip(models, aliases(models), strict=True)
    each = "any_value(value) FILTER (model = {0}) AS {1}, any_value(error) FILTER (model = {0}) AS {1}_error"
    return ",\n  ".join(each.format(literal(model), name) for model, name in named)


def _list(names: Sequence[str]) -> str:
    return "[" + ", ".join(literal(name) for name in names) + "]"
