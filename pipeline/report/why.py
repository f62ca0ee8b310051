"""`why`: what happened to one document in each stage, with every value that was measured."""

import re
from collections.abc import Iterator
from typing import Any

import pyarrow.compute as pc
from rich.console import Console
from rich.text import Text

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.report.histogram import number
from corpusmill.pipeline.report.read import Place, Rule, RunReader
from corpusmill.pipeline.report.safe import safe_line, safe_text
from corpusmill.pipeline.report.tables import cell, table
from corpusmill.pipeline.report.why_dedup import TOLD as DEDUP_TOLD
from corpusmill.pipeline.report.why_dedup import dedup_facts
from corpusmill.pipeline.schemas import REPORT

#: The stages with a row a document, in the order in which a document meets them.
REPORTED = ("ingest", "filter", "dedup", "tokens")
_ID = re.compile(r"[0-9a-f]{4,32}")
#: Columns that the story tells in words rather than in the table of values.
TOLD = {*REPORT.names, "source", "offset", "length", "split", "shards", "copies", "reason", *DEDUP_TOLD}
TEXT = 400
#: The rule of `ingest` for records of a kind that holds no page.
NO_PAGE = "record_type"

Story = list[tuple[Place, dict[str, Any]]]


def why(folder: str, document: str, console: Console) -> None:
    """Explains one document, given by URL, id, or an id's beginning (four characters or more) that no other has.

    Raises InputError where the run knows no such document, or where the beginning fits several.
    """
    reader = RunReader(folder)
    stages = [name for name in REPORTED if reader.stages[name].outputs("report/")]
    if not stages:
        raise InputError(f"{folder}: no stage of this run has a report yet.")
    ids = resolve(reader, stages, document)
    if not ids:
        raise InputError(
            f"{folder}: no document has the URL or id {safe_line(document, 200)!r}; "
            f"corpusmill inspect {folder} --limit 5 shows some (a URL has to be written as the crawl has it)."
        )
    stories = [_story(reader, stages, id_) for id_ in ids]
    pages = [story for story in stories if not _holds_no_page(story)] or stories
    for story in pages:
        _explain(reader, story, console)
    if len(pages) < len(stories):
        others = "; ".join(
            safe_line(str(row.get("reason") or row["id"]), 120) for story in stories if story not in pages for _, row in story
        )
        console.print(Text(f"Also in the crawl under this URL: {others}.", style="dim"))
    unfinished = [name for name, state in reader.stages.items() if state.status == "unfinished"]
    if unfinished:
        console.print(Text(f"Note: {', '.join(unfinished)} not finished, so the story may go on.", style="yellow"))


def resolve(reader: RunReader, stages: list[str], document: str) -> list[str]:
    """The ids of the documents with this URL, this id, or the one id that begins so; empty where there is none."""
    found: dict[str, None] = {}
    for stage in stages:
        for shard in reader.tables(stage, "report", ["id", "url"]):
            mask = pc.or_kleene(pc.equal(shard["id"], document), pc.fill_null(pc.equal(shard["url"], document), False))
            found.update(dict.fromkeys(shard.filter(mask)["id"].to_pylist()))
        if found:
            return list(found)
    if not _ID.fullmatch(document):
        return []
    for stage in stages:
        for shard in reader.tables(stage, "report", ["id"]):
            found.update(dict.fromkeys(shard.filter(pc.starts_with(shard["id"], document))["id"].to_pylist()))
        if found:
            break
    if len(found) > 1:
        some = ", ".join(sorted(found)[:4])
        raise InputError(f"{document}: {len(found):,} documents have an id that begins so ({some}, ...); give more of it.")
    return list(found)


def _story(reader: RunReader, stages: list[str], id_: str) -> Story:
    """The document's rows in the reports of all stages."""
    told: Story = []
    for stage in stages:
        places = reader.find(stage, "report", "id", [id_])
        told += zip(places, reader.rows(places), strict=True)
    return told


def _holds_no_page(story: Story) -> bool:
    """Whether these are records such as requests, which a crawl keeps beside each page under the page's URL."""
    return all(place.stage == "ingest" and row.get("failed") == [NO_PAGE] for place, row in story)


def _explain(reader: RunReader, told: Story, console: Console) -> None:
    id_ = told[0][1]["id"]
    url = next((row["url"] for _, row in told if row.get("url")), None)
    console.print(Text(safe_line(url or "(no URL)", 400), style="bold"))
    console.print(Text(f"id {id_}", style="dim"))
    for place, row in told:
        console.print()
        _tell(reader, place, row, console)
    text = _text(reader, id_)
    if text:
        console.print()
        console.print(Text("The text begins:", style="bold"))
        console.print(Text(safe_text(text, TEXT)))
    console.print()


def _tell(reader: RunReader, place: Place, row: dict[str, Any], console: Console) -> None:
    kept = bool(row.get("kept"))
    head = Text(f"{place.stage}: ", style="bold") + Text("kept" if kept else "dropped", style="green" if kept else "red")
    head.append(f"  {number(row.get('chars_in') or 0)} characters in, {number(row.get('chars_out') or 0)} out", style="dim")
    console.print(head)
    rules = reader.rules(place.stage)
    for name in row.get("failed") or []:
        console.print(Text(f"  failed {safe_line(name, 80)}{_reason(name, row, rules)}", style="red"))
    for line in _facts(reader, row):
        console.print(Text(f"  {line}"))
    if (row.get("cluster_size") or 1) > 1 or row.get("kept_in"):
        what = "its copies" if kept else "the two word by word"
        console.print(Text(f"  {what}: corpusmill clusters {reader.storage.root} --id {row['id']}", style="dim"), soft_wrap=True)
    values = [(name, value) for name, value in row.items() if name not in TOLD and value is not None]
    if values:
        _print_values(values, rules, console)


def limit(rule: Rule) -> str:
    """A rule's threshold in a few characters: `< 20`."""
    return safe_line(f"{rule.comparison} {number(rule.threshold)}", 80)


def _reason(name: str, row: dict[str, Any], rules: list[Rule]) -> str:
    broken = [rule for rule in rules if rule.rule == name and row.get(rule.column) is not None]
    parts = [f"{safe_line(rule.column, 60)} is {safe_line(number(row[rule.column]), 60)}, and fails if {limit(rule)}" for rule in broken]
    return f": {'; '.join(parts)}" if parts else ""


def _facts(reader: RunReader, row: dict[str, Any]) -> Iterator[str]:
    """What is not a measured value, in words."""
    if row.get("reason"):
        yield safe_line(str(row["reason"]), 1000)
    if row.get("source") is not None:
        yield f"from {_record(row)}"
    yield from dedup_facts(reader, row)
    if row.get("split") is not None and row.get("shards"):
        shards, count = ", ".join(map(str, row["shards"])), number(row.get("tokens") or 0)
        several = len(row["shards"]) > 1
        where = f"split {row['split']}, shard{'s' if several else ''} {shards}"
        times = f", {len(row['shards'])} times" if several else ""
        yield f"its tokens: {count}{times}, in {where}"


def _record(row: dict[str, Any]) -> str:
    text = safe_line(str(row["source"]), 300)
    if row.get("offset") is not None:
        text += f", offset {row['offset']}"
    return text + (f", length {row['length']}" if row.get("length") is not None else "")


def _print_values(values: list[tuple[str, Any]], rules: list[Rule], console: Console) -> None:
    made = table("", "value", ">measured", "fails if")
    for name, value in values:
        limits = "; ".join(f"{limit(rule)} ({rule.rule})" for rule in rules if rule.column == name)
        made.add_row(cell(name, 40), cell(value, 40), cell(limits, 300))
    made.columns[2].no_wrap = False
    from rich.padding import Padding

    console.print(Padding(made, (0, 0, 0, 2)))


def _text(reader: RunReader, id_: str) -> str:
    """The beginning of the document's text as the last stage that has it wrote it."""
    for stage in ("dedup", "filter", "ingest"):
        texts = reader.texts(stage, [id_], 4 * TEXT) if reader.stages[stage].outputs("data/") else {}
        if texts:
            return texts[id_]
    return ""
