"""Makes tables of a run's own records.

```
stages     stage, status (complete, unfinished), tasks, files, bytes
tasks      stage, task, rows_in, kept, dropped, bytes_in, counts, failed (maps), warnings (a list), config, code
outputs    stage, task, path, bytes, sha256: the files that tasks have written, paths relative to the stage
rules      stage, step, rule, column, comparison, threshold (JSON, because some are lists), meaning
settings   stage, option (task_mb, steps.0.gopher_quality.short), value (JSON): the recipe with all defaults
versions   library, version
metrics    a row a phase of a stage: stage, phase, seconds, worker_seconds, tasks, rows_in, bytes_in, workers, peak_mb, ...
STAGE_log  a training, step by step: step, loss, lr, grad_norm, ...; STAGE_speed: its tokens per second
```
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import pyarrow as pa

from corpusmill.pipeline.watch.log import LOG, METRICS
from corpusmill.report.read import TRAINED, RunReader, read_meanings

_STRING, _INT = pa.string(), pa.int64()
_NOT_FINITE = ("nan", "inf", "-inf", "infinity", "-infinity")
_LARGEST = 1 << 63


def find_records(reader: RunReader) -> dict[str, Callable[[], pa.Table]]:
    """Returns a function for each table that the run can have, by the table's name; it makes the table."""
    found: dict[str, Callable[[], pa.Table]] = {
        "stages": partial(_stages, reader),
        "tasks": partial(_tasks, reader),
        "outputs": partial(_outputs, reader),
        "rules": partial(_rules, reader),
        "settings": partial(_settings, reader),
        "versions": partial(_versions, reader),
    }
    files = {"metrics": METRICS, "log": LOG}
    for stage in TRAINED:
        files |= {f"{stage}_log": f"{stage}/logs/train.jsonl", f"{stage}_speed": f"{stage}/logs/speed.jsonl"}
    for name, path in files.items():
        if reader.has_lines(path):
            found[name] = partial(_lines, reader, path)
    return found


def _table(rows: Iterable[dict[str, Any]], *fields: tuple[str, pa.DataType]) -> pa.Table:
    return pa.Table.from_pylist([{name: _text(value) for name, value in row.items()} for row in rows], pa.schema(fields))


def _text(value: Any) -> Any:
    """Returns a text that UTF-8 can hold. JSON may have halves of surrogate pairs, which become `\\ud800`."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _stages(reader: RunReader) -> pa.Table:
    rows = []
    for stage in reader.stages.values():
        if stage.status != "missing":
            files = [output for task in stage.tasks for output in task.outputs]
            counts = {"tasks": len(stage.tasks), "files": len(files), "bytes": sum(file.bytes for file in files)}
            rows.append({"stage": stage.name, "status": stage.status, **counts})
    return _table(rows, ("stage", _STRING), ("status", _STRING), ("tasks", _INT), ("files", _INT), ("bytes", _INT))


def _tasks(reader: RunReader) -> pa.Table:
    numbers = ("rows_in", "kept", "dropped", "bytes_in")
    rows = (
        {**{name: getattr(task, name) for name in ("task", *numbers, "warnings", "config", "code")}, "stage": stage.name,
         "counts": list(task.counts.items()), "failed": list(task.failed.items())}
        for stage in reader.stages.values() for task in stage.tasks
    )  # fmt: skip
    return _table(
        rows, ("stage", _STRING), ("task", _STRING), *((name, _INT) for name in numbers),
        ("counts", pa.map_(_STRING, _INT)), ("failed", pa.map_(_STRING, _INT)), ("warnings", pa.list_(_STRING)), ("config", _STRING),
        ("code", _STRING),
    )  # fmt: skip


def _outputs(reader: RunReader) -> pa.Table:
    rows = (
        {"stage": stage.name, "task": task.task, "path": output.path, "bytes": output.bytes, "sha256": output.sha256}
        for stage in reader.stages.values() for task in stage.tasks for output in task.outputs
    )  # fmt: skip
    return _table(rows, ("stage", _STRING), ("task", _STRING), ("path", _STRING), ("bytes", _INT), ("sha256", _STRING))


def _rules(reader: RunReader) -> pa.Table:
    names = ("step", "rule", "column", "comparison")
    rows = (
        {
            "stage": stage, **{name: getattr(rule, name) for name in names}, "threshold": json.dumps(rule.threshold),
            "meaning": meanings.get(rule.rule),
        }
        for stage in reader.present() for meanings in [read_meanings(reader, stage)] for rule in reader.rules(stage)
    )  # fmt: skip
    return _table(rows, *((name, _STRING) for name in ("stage", *names, "threshold", "meaning")))


def _settings(reader: RunReader) -> pa.Table:
    recipe = reader.description.get("recipe")
    sections = recipe.items() if isinstance(recipe, dict) else ()
    rows = (
        {"stage": stage, "option": option, "value": json.dumps(value, ensure_ascii=False)}
        for stage, section in sections for option, value in _options(section)
    )  # fmt: skip
    return _table(rows, ("stage", _STRING), ("option", _STRING), ("value", _STRING))


def _options(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the leaves of nested mappings and lists, by their dotted path."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if inner is None or (path and not value):
        yield path, value
        return
    for name, part in inner:
        yield from _options(part, f"{path}.{name}" if path else str(name))


def _versions(reader: RunReader) -> pa.Table:
    versions = reader.description.get("versions")
    found = versions.items() if isinstance(versions, dict) else ()
    return _table(({"library": name, "version": str(version)} for name, version in found), ("library", _STRING), ("version", _STRING))


def _lines(reader: RunReader, path: str) -> pa.Table:
    """Returns a file of JSON lines as a table, with a column for each name in them. A line that is not an object is left out with a
    warning."""
    rows = reader.json_lines(path)
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({_text(name): _column([row.get(name) for row in rows]) for name in names} or {"line": pa.array([], _INT)})


def _column(values: list[Any]) -> pa.Array:
    """Returns a column of one type: booleans, whole numbers, floats (a loss may be the text nan) or texts; JSON for mixed and all other
    values."""
    present = [value for value in values if value is not None]
    if all(isinstance(value, bool) for value in present):
        return pa.array(values, pa.bool_())
    if all(_is_int(value) for value in present):
        return pa.array(values, _INT)
    if all(_is_number(value) for value in present):
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    if all(isinstance(value, str) for value in present):
        return pa.array([_text(value) for value in values], _STRING)
    return pa.array([None if value is None else json.dumps(value) for value in values], _STRING)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -_LARGEST <= value < _LARGEST


def _is_number(value: Any) -> bool:
    if isinstance(value, str):
        return value.lower() in _NOT_FINITE
    return isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool) and abs(value) < math.ldexp(1.0, 1023))
