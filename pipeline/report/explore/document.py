"""One document: its text, what each stage decided about it, its copies, its tokens."""

import shlex
from typing import Any

import pyarrow.compute as pc

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.report.explore.answers import plain
from corpusmill.pipeline.report.explore.asked import OneDocument, Unfit, shown
from corpusmill.pipeline.report.explore.explorer import EXPLORED, Explorer
from corpusmill.pipeline.report.read import Place, Rule
from corpusmill.pipeline.report.token_sets import find_tokenizer, open_split, split_folders
from corpusmill.pipeline.schemas import REPORT

#: Characters of a text, copies, and tokens that are shown.
TEXT, COPIES, TOKENS = 200_000, 100, 400

Answer = dict[str, Any]


def document(explorer: Explorer, query: OneDocument) -> Answer:
    """Raises Unfit where there is no such row."""
    stage, _, digits = query.key.partition("/")
    loaded = explorer.stage(stage)
    if not digits.isascii() or not digits.isdigit() or int(digits) >= loaded.table.rows:
        raise Unfit(f"There is no document {shown(query.key)}.", 404)
    number = int(digits)
    (row,) = loaded.table.rows_of([number])
    text = loaded.texts.of(number)
    stories = {stage: explorer.reader.row(loaded.table.place(number))}
    stories |= {name: found for name in explorer.present if name != stage and (found := _elsewhere(explorer, name, row.id))}
    tokens = _tokens(explorer, row.id, stories.get("tokens"))
    return {
        "key": query.key,
        "id": row.id,
        "url": row.url,
        "text": None if text is None else text[:TEXT],
        "cut": text is not None and len(text) > TEXT,
        "text_of": loaded.texts.stage,
        "stages": [_decision(explorer, name, stories[name]) for name in EXPLORED if name in stories],
        "cluster": _cluster(explorer, stories.get("dedup")),
        "tokens": tokens,
        "commands": _commands(explorer, row.id, stories, tokens),
    }


def _elsewhere(explorer: Explorer, stage: str, id_: str) -> Answer | None:
    """The document's row in the report of another stage, where it has one."""
    if stage in explorer.loaded:
        table = explorer.loaded[stage].table
        places = [table.place(number) for number in table.rows_with("id", id_)[:1]]
    else:
        places = explorer.reader.find(stage, "report", "id", [id_])[:1]
    return next(iter(explorer.reader.rows(places)), None)


def _decision(explorer: Explorer, stage: str, row: Answer) -> Answer:
    rules = explorer.loaded[stage].table.rules if stage in explorer.loaded else explorer.reader.rules(stage)
    failed = list(row.get("failed") or [])
    values = [
        {"name": name, "value": plain(value), "rules": [_judged(rule, value, failed) for rule in rules if rule.column == name]}
        for name, value in row.items()
        if name not in REPORT.names and name != "reason" and value is not None
    ]
    return {"name": stage, "kept": bool(row.get("kept")), "failed": failed, "reason": plain(row.get("reason")), "values": values}


def _judged(rule: Rule, value: Any, failed: list[str]) -> Answer:
    told = {"rule": rule.rule, "comparison": rule.comparison, "threshold": plain(rule.threshold)}
    return {**told, "failed": rule.rule in failed}


def _cluster(explorer: Explorer, row: Answer | None) -> Answer | None:
    """The document and its copies, the kept one first, as the report of dedup has them."""
    if row is None or (row.get("cluster_size") or 1) < 2 or not row.get("kept_id"):
        return None
    name = row["kept_id"]
    places: list[tuple[int | None, Place]] = []
    if "dedup" in explorer.loaded and "kept_id" in explorer.loaded["dedup"].table.columns:
        table = explorer.loaded["dedup"].table
        places += [(number, table.place(number)) for number in table.rows_with(table.columns["kept_id"].sql, name)[:COPIES]]
    else:
        places += [(None, place) for place in explorer.reader.find("dedup", "report", "kept_id", [name])[:COPIES]]
    rows = explorer.reader.rows([place for _, place in places], ["id", "url", "kept", "similarity"])
    members = [
        {
            "key": None if number is None else f"dedup/{number}", "id": member["id"], "url": member.get("url"),
            "kept": member["kept"], "similarity": plain(member.get("similarity")),
        }
        for (number, _), member in zip(places, rows, strict=True)
    ]  # fmt: skip
    members.sort(key=lambda member: not member["kept"])
    return {"id": name, "size": row["cluster_size"], "kept_id": name, "rows": members}


def _tokens(explorer: Explorer, id_: str, row: Answer | None) -> Answer | None:
    """The first tokens of the document; None where it has none, or they can't be read."""
    root = explorer.reader.storage
    if row is None or not row.get("shards") or row.get("split") not in split_folders(root):
        return None
    split, shard = row["split"], int(row["shards"][0])
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
    """What to type on a terminal to see more."""
    said = [["why", explorer.folder, id_]]
    if "ingest" in stories:
        said.append(["raw", explorer.folder, id_])
    if (stories.get("dedup", {}).get("cluster_size") or 1) > 1:
        said.append(["clusters", explorer.folder, "--id", id_])
    if tokens is not None:
        split = [] if tokens["split"] == "train" else ["--split", tokens["split"]]
        said.append(["trace", explorer.folder, "--shard", str(tokens["shard"]), "--token", str(tokens["first"]), *split])
    return [shlex.join(["corpusmill", *words]) for words in said]
