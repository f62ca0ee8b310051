"""Answers with one document: its text, the decisions of each stage, its copies, its tokens."""

import json
import shlex
from bisect import bisect_left
from collections.abc import Callable
from typing import Any

import pyarrow.compute as pc

from corpusmill.filters.places import Spans
from corpusmill.pipeline.config import parse_json
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.schemas import REPORT
from corpusmill.pipeline.token_shards import split_folders
from corpusmill.report.answers.clusters import diff_object
from corpusmill.report.answers.marks import Mark, dedup_marks, filter_marks, was_cut
from corpusmill.report.answers.raw import COLUMNS as RECORD
from corpusmill.report.answers.raw import blocks
from corpusmill.report.explore.answers import plain
from corpusmill.report.explore.explorer import EXPLORED, Explorer
from corpusmill.report.explore.parameters import OneDocument
from corpusmill.report.explore.selection import Loaded
from corpusmill.report.explore.table import StageTable
from corpusmill.report.explore.thresholds import retry
from corpusmill.report.queries.passages import Comparison, compare
from corpusmill.report.read import ReportRule
from corpusmill.report.tokens.token_sets import find_tokenizer, open_split

#: Characters of a text, copies, and tokens that are shown at most.
TEXT, COPIES, TOKENS = 200_000, 100, 400
#: Places of a rule that are marked at most; blocks of a page, and characters of each.
DRAWN, BLOCKS, BLOCK = 3_000, 2_000, 2_000

Answer = dict[str, Any]


def document(explorer: Explorer, query: OneDocument) -> Answer:
    """Returns a part of one document. Raises BadRequest if there is no such row, InputError if its page can't be read again."""
    return {"story": story, "marks": marks, "page": page}[query.part](explorer, query)


def _opened(explorer: Explorer, query: OneDocument) -> tuple[str, int, Loaded, Answer]:
    """Returns the stage, the row's number, the loaded stage and the row that a key names."""
    loaded, number = explorer.row(query.key)
    return loaded.table.name, number, loaded, _story(loaded.table, number)


def story(explorer: Explorer, query: OneDocument) -> Answer:
    """Returns the document's text, its decisions and values in each stage, its copies and its tokens."""
    stage, number, loaded, row = _opened(explorer, query)
    stories = {stage: row}
    id_, url = row["id"], row["url"]
    stories |= {name: found for name in explorer.present if name != stage and (found := _elsewhere(explorer, name, id_))}
    texts = loaded.texts()
    text, tokens = texts.of(number), _tokens(explorer, id_, stories.get("tokens"))
    return {
        "key": query.key,
        "id": id_,
        "url": url,
        "text": None if text is None else text[:TEXT],
        "cut": text is not None and len(text) > TEXT,
        "text_of": texts.stage,
        "now": _now(explorer, query, stage, number, id_),
        "stages": [_decision(explorer, name, stories[name]) for name in EXPLORED if name in stories],
        "cluster": _cluster(explorer, stories.get("dedup")),
        "tokens": tokens,
        "commands": _commands(explorer, id_, stories, tokens),
    }


def marks(explorer: Explorer, query: OneDocument) -> Answer:
    """Returns the places in the shown text that made the document fail (`answers.marks`), and for a copy the word diff with the document
    that was kept. Offsets count as in JavaScript's strings, in units of UTF-16."""
    stage, number, loaded, row = _opened(explorer, query)
    text, reader = loaded.texts().of(number), explorer.reader
    filtered = row if stage == "filter" else _elsewhere(explorer, "filter", row["id"]) if stage == "ingest" else None
    found: list[Mark] = []
    if text is not None and filtered is not None:
        found = filter_marks(reader.settings("filter"), reader.rules("filter"), filtered, text)
    elif text is not None and stage == "dedup":
        after = reader.texts("dedup", [row["id"]], len(text)).get(row["id"]) if was_cut(row) else None
        found = dedup_marks(row, text, after)
    units = _units(text or "")
    return {
        "marks": [
            {"stage": mark.stage, "rule": mark.rule, "what": mark.what, "count": None if mark.spans is None else len(mark.spans),
             "spans": [[units(begin), units(end)] for begin, end in _drawn(mark.spans)]}
            for mark in found
        ],
        "diff": diff_object(_compared(explorer, stage, number, row)),
    }  # fmt: skip


def _drawn(spans: Spans | None) -> Spans:
    """Returns the first spans that lie in the shown beginning of a text."""
    return [(begin, min(end, TEXT)) for begin, end in (spans or ())[:DRAWN] if begin < min(end, TEXT)]


def _units(text: str) -> Callable[[int], int]:
    """Returns the function from a number of characters to a number of UTF-16 units: a character beyond U+FFFF has two."""
    beyond = [place for place, character in enumerate(text) if character > "\uffff"] if not text.isascii() else []
    return lambda place: place + bisect_left(beyond, place)


def _compared(explorer: Explorer, stage: str, number: int, row: Answer) -> Comparison | None:
    """Compares a dropped copy with the kept document. None if there is none in this run, or a text is not there."""
    if "dedup" not in explorer.loaded:
        return None
    loaded = explorer.loaded["dedup"]
    copy = number if stage == "dedup" else next(iter(loaded.table.rows_with("id", row["id"])), None)
    copied = None if copy is None else _story(loaded.table, copy)
    if copied is None or copied["kept"] or copied.get("kept_id") in (None, row["id"]):
        return None
    kept = next((place for place in loaded.table.rows_with("id", copied["kept_id"]) if loaded.table.kept[place]), None)
    texts = [None if place is None else loaded.texts().of(place) for place in (copy, kept)]
    return None if texts[0] is None or texts[1] is None else compare(texts[0], texts[1])


def page(explorer: Explorer, query: OneDocument) -> Answer:
    """Returns the blocks of the document's page, read again from its crawl file. Raises InputError."""
    _, _, _, row = _opened(explorer, query)
    reader = explorer.reader
    rows = reader.rows(reader.find("ingest", "report", "id", [row["id"]])[:1], RECORD)
    if not rows or not rows[0].get("source"):
        raise InputError(f"{row['id']}: ingest has no such document.")
    found = blocks(reader, rows[0])
    left = max(0, len(found) - BLOCKS)
    return {"blocks": [{"text": text[:BLOCK], "kept": kept} for text, kept in found[:BLOCKS]], "left": left}


def _now(explorer: Explorer, query: OneDocument, stage: str, number: int, id_: str) -> bool | None:
    """Whether the filter stage would keep the document under the requested thresholds. None if none are requested, or the document never
    came into that stage."""
    if not query.set_ or "filter" not in explorer.loaded:
        return None
    table = explorer.loaded["filter"].table
    row = number if stage == "filter" else table.numbers_of([id_]).get(id_)
    return None if row is None else bool(retry(table, query.set_).kept[row])


def _story(table: StageTable, number: int) -> Answer:
    """Returns a row of a loaded report, with its decision."""
    (row,), verdict = table.rows_of([number]), table.verdicts.all[int(table.verdict[number])]
    failed = [table.verdicts.rules[rule] for rule in verdict.failed]
    return {"id": row.id, "url": row.url, "kept": verdict.kept, "failed": failed, **row.values}


def _elsewhere(explorer: Explorer, stage: str, id_: str) -> Answer | None:
    """Returns the document's row in the report of another stage; None if it has none."""
    if stage in explorer.loaded:
        table = explorer.loaded[stage].table
        return next((_story(table, number) for number in table.rows_with("id", id_)[:1]), None)
    rows = explorer.reader.rows(explorer.reader.find(stage, "report", "id", [id_])[:1])
    return next(({name: _as_loaded(name, value) for name, value in row.items()} for row in rows), None)


def _as_loaded(name: str, value: Any) -> Any:
    """Returns a value read from a file in the form of a loaded report: lists as JSON text, except the failed rules."""
    if not isinstance(value, list | dict) or name == "failed":
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)


def _decision(explorer: Explorer, stage: str, row: Answer) -> Answer:
    rules = explorer.loaded[stage].table.rules if stage in explorer.loaded else explorer.reader.rules(stage)
    failed = list(row.get("failed") or [])
    values = [
        {"name": name, "value": plain(value), "rules": [_judged(rule, value, failed) for rule in rules if rule.column == name]}
        for name, value in row.items()
        if name not in REPORT.names and name != "reason" and value is not None
    ]
    return {"name": stage, "kept": bool(row.get("kept")), "failed": failed, "reason": plain(row.get("reason")), "values": values}


def _judged(rule: ReportRule, value: Any, failed: list[str]) -> Answer:
    check = {"rule": rule.rule, "comparison": rule.comparison, "threshold": plain(rule.threshold)}
    return {**check, "failed": rule.rule in failed}


def _cluster(explorer: Explorer, row: Answer | None) -> Answer | None:
    """Returns the document and its copies, the kept one first, from the report of dedup."""
    if row is None or (row.get("cluster_size") or 1) < 2 or not row.get("kept_id"):
        return None
    name = row["kept_id"]
    members = _members(explorer, name)
    members.sort(key=lambda member: not member["kept"])
    return {"id": name, "size": row["cluster_size"], "kept_id": name, "rows": members}


def _members(explorer: Explorer, kept_id: str) -> list[Answer]:
    """Returns documents of a cluster, in the order of the report."""
    if "dedup" in explorer.loaded:
        table = explorer.loaded["dedup"].table
        numbers = table.rows_with(table.columns["kept_id"].sql, kept_id)[:COPIES]
        rows = [{**row.values, "id": row.id, "url": row.url, "kept": bool(table.kept[row.number])} for row in table.rows_of(numbers)]
        keys: list[str | None] = [f"dedup/{number}" for number in numbers]
    else:
        rows = explorer.reader.rows(explorer.reader.find("dedup", "report", "kept_id", [kept_id])[:COPIES])
        keys = [None for _ in rows]
    return [
        {"key": key, **{name: row.get(name) for name in ("id", "url", "kept")}, "similarity": plain(row.get("similarity"))}
        for key, row in zip(keys, rows, strict=True)
    ]


def _tokens(explorer: Explorer, id_: str, row: Answer | None) -> Answer | None:
    """Returns the first tokens of the document; None if it has none, or they can't be read."""
    root = explorer.reader.storage
    if row is None or not row.get("shards") or row.get("split") not in split_folders(root):
        return None
    split, shard = row["split"], int(parse_json(row["shards"])[0])
    try:
        shards = open_split(root, split)
        index = shards.index(shard)
        at = pc.index(index["id"], id_).as_py()
        if at < 0:
            return None
        first, count = index["first"][at].as_py(), index["tokens"][at].as_py()
        table, _ = find_tokenizer(root, shards.description)
        ids = shards.tokens(shard)[first : first + min(count, TOKENS)]
    except InputError as error:
        explorer.reader.warn(str(error))
        return None
    texts = [None if table is None else table.text(ids[place : place + 1]) for place in range(len(ids))]
    pieces = [{"id": int(number), "text": text} for number, text in zip(ids, texts, strict=True)]
    return {"split": split, "shard": shard, "first": first, "count": count, "pieces": pieces}


def _commands(explorer: Explorer, id_: str, stories: dict[str, Answer], tokens: Answer | None) -> list[str]:
    """Returns terminal commands that show more about the document."""
    commands = [["why", explorer.folder, id_]]
    if "ingest" in stories:
        commands.append(["raw", explorer.folder, id_])
    if (stories.get("dedup", {}).get("cluster_size") or 1) > 1:
        commands.append(["clusters", explorer.folder, "--id", id_])
    if tokens is not None:
        split = [] if tokens["split"] == "train" else ["--split", tokens["split"]]
        commands.append(["trace", explorer.folder, "--shard", str(tokens["shard"]), "--token", str(tokens["first"]), *split])
    return [shlex.join(["corpusmill", *words]) for words in commands]
