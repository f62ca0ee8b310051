"""Makes the answers of the explorer's routes, as values for JSON."""

from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np

from corpusmill.report import machine
from corpusmill.report.explore import parameters, thresholds
from corpusmill.report.explore.explorer import EXPLORED, Explorer
from corpusmill.report.explore.selection import Loaded, number_column
from corpusmill.report.explore.table import ORIGINS, Bools, Codes, Counts, Names, Row, StageTable
from corpusmill.report.explore.thresholds import command, fork_command, next_command, recipe_lines
from corpusmill.report.read import ReportRule

#: Languages, sources and hosts that an answer names at most.
NAMED = 200


def totals(table: StageTable, mask: Bools) -> dict[str, int]:
    """Counts the documents of a mask, those kept, and the characters of their input text."""
    return {"total": int(mask.sum()), "kept": int((mask & table.kept).sum()), "characters": int(table.characters[mask].sum())}


def counts(table: StageTable, mask: Bools) -> dict[str, Any]:
    """Returns the counts that the page shows beside the documents of a filter."""
    fired, alone = table.verdicts.fired(_counts(table.verdict[mask], len(table.verdicts.all)).tolist())
    rules = [{"rule": rule, "fired": f, "alone": a} for rule, f, a in zip(table.verdicts.rules, fired, alone, strict=True)]
    return {**totals(table, mask), "rules": rules, **{f"{origin}s": most(table, origin, mask) for origin in ORIGINS}}


def most(table: StageTable, origin: str, mask: Bools | None = None) -> list[dict[str, Any]]:
    """Returns the most frequent languages, page types, sources or hosts, ties by name; None stands for documents without one."""
    codes, names = table.origins[origin], table.names[origin]
    return _most(codes if mask is None else codes[mask], names)


def _most(codes: Codes, names: Names) -> list[dict[str, Any]]:
    counts = _counts(codes, len(names.values))
    there = np.flatnonzero(counts)
    if len(there) > NAMED:
        least = np.partition(counts[there], -NAMED)[-NAMED]
        there = there[counts[there] >= least]
    found = sorted((-int(counts[code]), names.values[code] or "", code) for code in there.tolist())[:NAMED]
    return [{"value": names.values[code], "rows": -rows} for rows, _, code in found]


def _counts(codes: Codes, size: int) -> Counts:
    return np.bincount(codes, minlength=size).astype(np.int64)


Answer = dict[str, Any]


def dropped_later(explorer: Explorer, table: StageTable, rows: Sequence[Answer]) -> list[Answer | None]:
    """Returns for each row (`id`, `kept`) of a report the later stage that dropped it, with its rules; None if no later stage did.

    Only loaded stages are searched. `copy_of`: the document that dedup kept instead, or None.
    """
    found: dict[str, Answer] = {}
    left = [row["id"] for row in rows if row["kept"]]
    for name in EXPLORED[EXPLORED.index(table.name) + 1 :]:
        if name not in explorer.loaded or not left:
            continue
        later = explorer.loaded[name].table
        numbers = later.numbers_of(left)
        dropped = {id_: number for id_, number in numbers.items() if not later.kept[number]}
        originals = _originals(later, dropped)
        for id_, number in dropped.items():
            failed = [later.verdicts.rules[rule] for rule in later.verdicts.all[int(later.verdict[number])].failed]
            found[id_] = {"stage": name, "failed": failed, "copy_of": originals.get(id_)}
        left = [id_ for id_ in left if id_ not in dropped]
    return [found.get(row["id"]) if row["kept"] else None for row in rows]


def _originals(table: StageTable, dropped: dict[str, int]) -> dict[str, Answer]:
    """Returns for each dropped copy (by id) the document that was kept instead, and the similarity of the two."""
    if not dropped or "kept_id" not in table.columns:
        return {}
    copies = {row.id: row.values for row in table.rows_of(list(dropped.values()))}
    wanted = sorted({values["kept_id"] for values in copies.values() if values["kept_id"]})
    kept = {row.id: row for row in table.rows_of(list(table.numbers_of(wanted).values()))}
    originals = {}
    for id_, values in copies.items():
        if (original := kept.get(values["kept_id"])) is not None and original.id != id_:
            similarity = values.get("similarity")
            originals[id_] = {
                "key": f"{table.name}/{original.number}", "id": original.id, "url": original.url, "similarity": similarity,
            }  # fmt: skip
    return originals


#: Characters of a text in a row of a table.
SHORT = 1000
#: Warnings of tasks that an answer holds.
FIRST_WARNINGS = 100


def run(explorer: Explorer) -> Answer:
    """Describes the run and its loaded stages."""
    loaded = [explorer.loaded[name] for name in explorer.present if name in explorer.loaded]
    for stage in loaded:
        stage.description = stage.description or _stage(stage.table)
    return {
        "name": explorer.folder,
        "stale": explorer.reader.stale.sentence if explorer.reader.stale else None,
        "warnings": explorer.reader.warnings,
        "loading": explorer.loading,
        "present": explorer.present,
        "stages": [stage.description for stage in loaded],
    }


def _stage(table: StageTable) -> Answer:
    fired, alone = table.fired
    rules = {rule.rule: rule for rule in table.rules}
    columns = [
        {
            "name": c.name, "kind": c.kind, "low": plain(c.low), "high": plain(c.high), "missing": c.missing, "whole": c.whole,
        }
        for c in table.columns.values()
    ]  # fmt: skip
    return {
        "name": table.name,
        "status": table.status,
        "rows": table.rows,
        "kept": int(table.kept.sum()),
        "columns": columns,
        "rules": [
            {**_rule(table, name, rules.get(name)), "fired": fired[n], "alone": alone[n]} for n, name in enumerate(table.verdicts.rules)
        ],
        **{f"{origin}s": most(table, origin) for origin in ORIGINS},
    }


def _rule(table: StageTable, name: str, rule: ReportRule | None) -> Answer:
    meaning = table.meanings.get(name, "")
    if rule is None:
        none = {"step": "", "column": "", "comparison": "", "threshold": None, "slider": False, "low": None, "high": None}
        return {"rule": name, "meaning": meaning, **none}
    column, slider = table.columns.get(rule.column), thresholds.has_slider(table, rule)
    edges = column.bins.edges if slider and column is not None and column.bins is not None else None
    return {
        "step": rule.step, "rule": rule.rule, "meaning": meaning,
        "column": rule.column, "comparison": rule.comparison, "threshold": plain(rule.threshold),
        "slider": slider, "low": None if edges is None else plain(edges[0]), "high": None if edges is None else plain(edges[-1]),
    }  # fmt: skip


def status(explorer: Explorer) -> Answer:
    """Returns the run's status, as `corpusmill status RUN --json` prints it; `first_warnings` are those of its tasks."""
    with explorer.status_lock:
        answer: Answer = plain(explorer.status.read())
        stages = explorer.status.reader.stages.values()
        warnings = (f"{stage.name}: {text}" for stage in stages for task in stage.tasks for text in task.warnings)
        answer["first_warnings"] = [plain(text) for text in islice(warnings, FIRST_WARNINGS)]
    return answer


def documents(explorer: Explorer, query: parameters.DocumentsAsked) -> Answer:
    stage = explorer.stage(query.stage)
    search = stage.search(query)
    if search is None:
        mask = stage.mask(query)
        rows = stage.orders.page(mask, query.order, query.descending, query.offset, query.limit)
        progress = None
    else:
        given = int(query.cursor or 0)
        search.go_on(given + query.limit)
        mask = search.mask()
        rows = search.hits[given : given + query.limit]
        progress = search.progress(given + len(rows))
    now = thresholds.retry(stage.table, query.set_).kept if query.set_ else None
    found = document_rows(explorer, stage.table, rows, now)
    return {**totals(stage.table, mask), "rows": found, "search": progress}


def _mask(stage: Loaded, query: parameters.Filter) -> tuple[Bools, Answer]:
    """Returns the rows of a filter (for a search in texts, those found so far), and how far the search is."""
    search = stage.search(query)
    if search is None:
        return stage.mask(query), {"search": None}
    return search.mask(), {"search": search.progress(0)}


def document_rows(explorer: Explorer, table: StageTable, numbers: list[int], now: Bools | None) -> list[Answer]:
    """Returns rows of a report. `now`: the decision about each row under other thresholds."""
    rows = [_row(table, row) for row in table.rows_of(numbers)]
    for row, number, later in zip(rows, numbers, dropped_later(explorer, table, rows), strict=True):
        row["later"] = later
        row["now"] = None if now is None else bool(now[number])
    return rows


def _row(table: StageTable, row: Row) -> Answer:
    verdict = table.verdicts.all[int(table.verdict[row.number])]
    origins = {o: table.names[o].values[int(table.origins[o][row.number])] for o in ("language", "source")}
    return {
        "key": f"{table.name}/{row.number}", "id": row.id, "url": row.url, "kept": verdict.kept,
        "failed": [table.verdicts.rules[rule] for rule in verdict.failed], **origins,
        "chars_in": int(table.characters[row.number]), "values": {name: plain(value) for name, value in row.values.items()},
    }  # fmt: skip


def summary(explorer: Explorer, query: parameters.Filter) -> Answer:
    stage = explorer.stage(query.stage)
    mask, progress = _mask(stage, query)
    return {**counts(stage.table, mask), **progress}


def histogram(explorer: Explorer, query: parameters.OneColumn) -> Answer:
    """Counts a column's values in a filter's rows. The bin edges come from the whole report, so that they stay when the filter changes."""
    stage = explorer.stage(query.stage)
    column = number_column(stage.table, query.column)
    assert column.bins is not None
    mask, progress = _mask(stage, query)
    edges = np.array(column.bins.edges)
    values, kept = stage.table.array(column.name)[mask].astype(float), stage.table.kept[mask]
    counts = {
        name: np.histogram(values[some & ~np.isnan(values)], edges)[0].tolist() for name, some in (("kept", kept), ("dropped", ~kept))
    }
    return {
        "column": column.name, "edges": edges.tolist(), **counts, "below": int((values < edges[0]).sum()),
        "above": int((values > edges[-1]).sum()), "missing": int(np.isnan(values).sum()), "logarithmic": column.bins.logarithmic,
        "whole": column.whole,
        "rules": [_rule(stage.table, rule.rule, rule) for rule in stage.table.rules if rule.column == column.name], **progress,
    }  # fmt: skip


def retuned(explorer: Explorer, query: parameters.Thresholds) -> Answer:
    table = explorer.stage(query.stage).table
    effects = thresholds.effects(table, thresholds.retry(table, query.set_))
    line, note = command(explorer.reader, explorer.folder, table, query.set_)
    stale, going_on = next_command(explorer.reader, explorer.folder)
    fork = fork_command(explorer.folder, query.set_) if line and not note else None
    return {
        **effects, "recipe": recipe_lines(query.set_), "command": line, "note": note, "fork": fork, "stale": stale, "next": going_on,
    }  # fmt: skip


def changed(explorer: Explorer, query: parameters.Changed) -> Answer:
    """Returns documents that other thresholds would bring back or drop, in the order of the report."""
    stage = explorer.stage(query.stage)
    after, before = thresholds.retry(stage.table, query.set_).kept, stage.table.kept
    mask = after & ~before if query.which == "gained" else before & ~after
    rows = stage.orders.page(mask, "place", False, query.offset, query.limit)
    return {"total": int(mask.sum()), "rows": document_rows(explorer, stage.table, rows, after)}


def place(explorer: Explorer, query: parameters.PlaceAsked) -> Answer:
    """Returns the key of a document in the report of a stage. Raises BadRequest if it is not there."""
    number = explorer.stage(query.stage).table.numbers_of([query.id]).get(query.id)
    if number is None:
        raise parameters.BadRequest(f"The report of {query.stage} has no document {parameters.shown(query.id)}.", 404)
    return {"key": f"{query.stage}/{number}"}


def plain(value: Any) -> Any:
    """Returns a value as JSON types, with long texts cut."""
    return machine.plain(value, SHORT)
