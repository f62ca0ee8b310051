"""`why`: what happened to one document in each stage, with every value that was measured, and what would have to change."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.safe import safe_line
from corpusmill.pipeline.schemas import REPORT
from corpusmill.report.answers.choose import table_rows
from corpusmill.report.answers.why_change import Change, change, distance
from corpusmill.report.answers.why_dedup import TOLD as DEDUP_TOLD
from corpusmill.report.answers.why_dedup import dedup_facts
from corpusmill.report.answers.why_find import Holder, Passages, find_passage, is_text, not_found, resolve, spellings
from corpusmill.report.answers.why_view import show_passages, show_story
from corpusmill.report.facts.histogram import number
from corpusmill.report.machine import as_json
from corpusmill.report.query.run import Run, open_run
from corpusmill.report.read import Rule, RunReader
from corpusmill.report.tokens.token_place import first_token

#: The stages with a row a document, in the order in which a document meets them.
REPORTED = ("ingest", "filter", "dedup", "tokens")
#: Columns that the story tells in words rather than in the table of values.
TOLD = {*REPORT.names, "source", "offset", "length", "split", "shards", "copies", "reason", *DEDUP_TOLD}
TEXT = 400
#: Documents listed that hold a passage.
LISTED = 10
#: Records of one URL that are explained; of more there is a list.
EXPLAINED = 4
#: The rule of `ingest` for records of a kind that holds no page.
NO_PAGE = "record_type"


@dataclass
class Told:
    """One stage's row about the document: `facts` are sentences, `values` the measured ones with the rules that look at them."""

    stage: str
    row: dict[str, Any]
    facts: list[str]
    values: dict[str, tuple[Any, list[Rule]]]
    change: Change | None
    commands: list[str] = field(default_factory=list)
    meanings: dict[str, str] = field(default_factory=dict)  # by rule: what a document fails it for, in words

    def as_json(self) -> dict[str, Any]:
        row, failed = self.row, self.row.get("failed") or []
        checks = [
            {
                **{key: each for key, each in asdict(rule).items() if key != "share" or each},  # few rules keep one
                "value": value, "failed": rule.rule in failed, "distance": distance(rule, value),
                "meaning": self.meanings.get(rule.rule),
            }
            for value, rules in self.values.values() for rule in rules
        ]  # fmt: skip
        return {
            "stage": self.stage, "kept": row.get("kept"), "failed": failed, "facts": self.facts, "row": row, "checks": checks,
            "change": asdict(self.change) if self.change else None, "commands": self.commands,
        }  # fmt: skip


@dataclass
class Story:
    """What is known of one id: its rows stage by stage (several of one where the crawl has it twice), and how its text begins."""

    id: str
    url: str | None
    told: list[Told]
    text: str

    @property
    def holds_no_page(self) -> bool:
        """Whether these are records such as requests, which a crawl keeps beside each page under the page's URL."""
        return all(told.stage == "ingest" and told.row.get("failed") == [NO_PAGE] for told in self.told)

    def as_json(self) -> dict[str, Any]:
        return {"id": self.id, "url": self.url, "stages": [told.as_json() for told in self.told], "text": self.text}


def why(folder: str, document: str, console: Console, in_texts: bool = False, form: str = "text") -> None:
    """Explains one document, given by URL, id, an id's beginning (four characters or more), or a passage of its text.

    `in_texts`: look for a passage only. `form` is `text` or `json`. Raises InputError where the run knows no such document, or where the
    beginning of an id fits several.
    """
    with open_run(folder) as run:
        _why(run, folder, document, console, in_texts, form)


def _why(run: Run, folder: str, document: str, console: Console, in_texts: bool, form: str) -> None:
    reader = run.reader
    stages = [name for name in REPORTED if reader.stages[name].outputs("report/")]
    if not stages:
        raise InputError(f"{folder}: no stage of this run has a report yet.")
    ids, passages = _search(run, stages, document, in_texts)
    if passages is not None:
        _tell_outcomes(run, stages, passages)
    stories = [story for id_ in ids if (story := _story(run, stages, id_)) is not None]
    pages = [story for story in stories if not story.holds_no_page] or stories
    notes = _notes(reader, [story for story in stories if story not in pages], pages)
    if form == "json":
        found = {"query": document, "passages": _as_json(passages), "documents": [story.as_json() for story in pages], "notes": notes}
        print(as_json({"stale": reader.stale.sentence if reader.stale else None, **found}, 2))
        return
    if passages is not None:
        show_passages(folder, passages, LISTED, console)
    show_story(folder, pages, notes, console)


def _search(run: Run, stages: list[str], document: str, in_texts: bool) -> tuple[list[str], Passages | None]:
    """The ids to explain, or a list to choose from: documents that hold the passage, or the many that have the URL."""
    reader = run.reader
    ids = [] if in_texts else resolve(reader, stages, document)
    if len(ids) > EXPLAINED:
        rows = table_rows(run, f"{stages[0]}_report", stages[0], REPORT.names)
        rows.add("list_contains(?, id) AND failed != [?]", ids, NO_PAGE)
        ids = list(dict.fromkeys(row["id"] for row in rows.read(("id",), "", 0))) or ids[:EXPLAINED]
        if len(ids) > EXPLAINED:
            return [], Passages("", len(ids), [Holder(id_, document, "", "", "") for id_ in ids[:LISTED]])
    if ids:
        return ids, None
    if not in_texts and not any(map(str.isspace, document)) and "." in document:  # perhaps a URL without its beginning
        offered = spellings(reader, stages, document, near=False)
        if offered:
            raise not_found(reader, stages, document, offered)
    passages = find_passage(reader, document, LISTED) if in_texts or is_text(document) else None
    if passages is None or not passages.holders:
        raise not_found(reader, stages, document)
    return ([passages.holders[0].id] if passages.count == 1 else []), passages


def _tell_outcomes(run: Run, stages: list[str], passages: Passages) -> None:
    """Says of each holder whether it is kept to the end, or in which stage it was dropped by which rules."""
    holders = passages.holders or []
    for stage in stages:
        rows = table_rows(run, f"{stage}_report", stage, REPORT.names) if f"{stage}_report" in run.tables else None
        if rows is not None:
            rows.add("list_contains(?, id)", [holder.id for holder in holders])
            found = {row["id"]: row for row in rows.read(("id", "kept", "failed"), " ORDER BY kept", 0)}  # of equal ids the kept one
            for holder in holders:
                row = found.get(holder.id)
                if row is not None:
                    rules = safe_line(", ".join(row["failed"] or []), 200)
                    holder.outcome = f"kept by {stage}" if row["kept"] else f"dropped by {stage}: {rules}"


def _as_json(passages: Passages | None) -> dict[str, Any] | None:
    return None if passages is None else {**asdict(passages), "holders": [asdict(holder) for holder in passages.holders or []]}


def _story(run: Run, stages: list[str], id_: str) -> Story | None:
    """The document's rows in the reports of all stages; None where there is none that can be read."""
    told = [_told(run, stage, row) for stage in stages if f"{stage}_report" in run.tables for row in _rows(run, f"{stage}_report", id_)]
    url = next((one.row["url"] for one in told if one.row.get("url")), None)
    return Story(id_, url, told, _text(run, id_, told)) if told else None


def _rows(run: Run, table: str, id_: str, columns: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """The rows of an id in a table, all of their columns or some."""
    rows = table_rows(run, table, table)
    if "id" not in rows.columns or not set(columns) <= set(rows.columns):
        return []
    rows.add("id = ?", id_)
    return list(rows.read(columns or rows.columns, "", 1_000_000))


def _told(run: Run, stage: str, row: dict[str, Any]) -> Told:
    rules = run.rules(stage)
    values = {n: (v, [rule for rule in rules if rule.column == n]) for n, v in row.items() if n not in TOLD and v is not None}
    made = Told(stage, row, list(_facts(run.reader, row)), values, change(run, stage, row), meanings=run.meanings(stage))
    if (row.get("cluster_size") or 1) > 1 or row.get("kept_in"):
        what = "its copies" if row.get("kept") else "the two word by word"
        made.commands.append(f"{what}: corpusmill clusters {safe_line(run.reader.storage.root, 200)} --id {safe_line(row['id'], 40)}")
    if stage == "tokens" and row.get("shards"):
        first = first_token(run.reader, row)
        split = "" if row.get("split") == "train" else f" --split {safe_line(str(row.get('split')), 40)}"
        if first is not None:
            root = safe_line(run.reader.storage.root, 200)
            made.commands.append(f"its first token: corpusmill trace {root} --shard {row['shards'][0]} --token {first}{split}")
    return made


def _notes(reader: RunReader, others: list[Story], pages: list[Story]) -> list[str]:
    notes = []
    if others:
        reasons = "; ".join(safe_line(str(told.row.get("reason") or told.row["id"]), 120) for story in others for told in story.told)
        notes.append(f"also in the crawl under this URL: {reasons}.")
    for story in pages:
        records = max(sum(told.stage == stage for told in story.told) for stage in REPORTED)
        if records > 1:
            notes.append(f"{safe_line(story.id, 40)}: the crawl holds this page {records:,} times, byte for byte under one URL.")
    unfinished = [name for name, state in reader.stages.items() if state.status == "unfinished"]
    if unfinished:
        notes.append(f"{', '.join(unfinished)} not finished, so the story may go on.")
    return [*notes, *(safe_line(warning, 400) for warning in reader.warnings)]


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
        where = f"split {safe_line(row['split'], 40)}, shard{'s' if several else ''} {shards}"
        times = f", {len(row['shards'])} times" if several else ""
        yield f"its tokens: {count}{times}, in {where}"


def _record(row: dict[str, Any]) -> str:
    text = safe_line(str(row["source"]), 300)
    if row.get("offset") is not None:
        text += f", offset {row['offset']}"
    return text + (f", length {row['length']}" if row.get("length") is not None else "")


def _text(run: Run, id_: str, told: list[Told]) -> str:
    """The beginning of the document's text as the last stage that kept it wrote it; else as an earlier one did."""
    kept = {one.stage for one in told if one.row.get("kept")}
    for stage in ("dedup", "filter", "ingest"):
        if stage in kept and f"{stage}_documents" in run.tables:
            for row in _rows(run, f"{stage}_documents", id_, ("text",)):
                return (row["text"] or "")[: 4 * TEXT]
    return ""
