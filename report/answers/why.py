"""`why`: explains what happened to one document in each stage, with every measured value, and which change of the recipe would keep it."""

import shlex
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.names import counted
from corpusmill.pipeline.printed import Printed
from corpusmill.pipeline.safe import safe_line, safe_text
from corpusmill.pipeline.schemas import REPORT
from corpusmill.report.answers.choose import table_rows
from corpusmill.report.answers.marks import MarkedText, dedup_marks, filter_marks, show_marked
from corpusmill.report.answers.why_change import RecipeChange, change, distance, margin
from corpusmill.report.answers.why_find import PassageHolder, Passages, find_in_urls, find_passage, is_text, not_found, resolve, spellings
from corpusmill.report.queries.inside import COLUMNS, RULE, SET, contamination_options, stayed
from corpusmill.report.queries.language_model import lineage
from corpusmill.report.query.run import Run, open_run
from corpusmill.report.read import DATA_STAGES, NO_PAGE, ReportRule, RunReader
from corpusmill.report.tables import cell, limit, number, show_notes, table

#: Columns of dedup that `dedup_facts` puts into words.
DEDUP_FACTS = {
    "cluster_size", "kept_id", "kept_in", "similarity", "verified", "full_cluster",
    *(column for columns in COLUMNS.values() for column in columns if column),
    "contaminated_set", "contaminated_item", "contaminated_field", "contamination", "contamination_passage", "contamination_items",
}  # fmt: skip
PASSAGE = 600
#: The stages with a row for each document, in their order.
REPORTED = ("ingest", "filter", "dedup", "tokens")
#: Columns that are put into words or left out of the table of values.
NOT_VALUES = {*REPORT.names, "source", "offset", "length", "split", "shards", "copies", "reason", *DEDUP_FACTS}
TEXT = 400
#: Terminals of at least this width show all columns of the table of values.
WIDE = 96
#: Documents listed for a passage.
LISTED = 10
#: Records of one URL that are explained; more are only listed.
EXPLAINED = 4


def dedup_facts(reader: RunReader, row: dict[str, Any]) -> Iterator[str]:
    """Yields sentences about a row of the dedup report; none for rows of other stages."""
    if row.get("cluster_size") and row["cluster_size"] > 1:
        yield f"in a cluster of {row['cluster_size']:,} documents"
    if row.get("kept_id") and row["kept_id"] != row["id"]:
        yield from _copy(reader, row)
    if row.get("full_cluster"):
        yield from _left(reader, row)
    yield from _cuts(row)
    if row.get(SET) is not None:
        yield from _contamination(reader, row)


def _copy(reader: RunReader, row: dict[str, Any]) -> Iterator[str]:
    """Says which kept document this one is a copy of, and how that is known."""
    earlier = row.get("kept_in")
    where = f"in the earlier run {safe_line(str(earlier), 120)}" if earlier else _url(reader, row["kept_id"])
    yield f"a copy of {safe_line(row['kept_id'], 40)}, which was kept{f': {where}' if where else ''}"
    known = _known(row)
    if known:
        yield known


def _left(reader: RunReader, row: dict[str, Any]) -> Iterator[str]:
    """Names the full cluster that had no room for the document, and their similarity."""
    full, limit, known = row["full_cluster"], reader.settings("dedup").get("max_cluster"), _known(row)
    where = _url(reader, full)
    yield f"like {safe_line(full, 40)}{f' ({where})' if where else ''}{f': {known}' if known else ''}"
    yield f"that one's cluster was full{f' (max_cluster {limit:,})' if isinstance(limit, int) else ''}, so this one stays"


def _known(row: dict[str, Any]) -> str:
    """Says how a document is known to be similar to another."""
    known = [f"similarity {number(row['similarity'])}"] if row.get("similarity") is not None else []
    known += [f"verified: {safe_line(str(row['verified']), 40)}"] if row.get("verified") is not None else []
    return ", ".join(known)


def _cuts(row: dict[str, Any]) -> Iterator[str]:
    for kind, (cut, characters, pieces) in COLUMNS.items():
        count = row.get(cut)
        if count is not None:
            whole = f" of {number(row[pieces])}" if pieces and row.get(pieces) is not None else ""
            yield f"repeated {kind} cut: {count:,}{whole}{f', {row[characters]:,} characters' if count and row.get(characters) else ''}"


def _contamination(reader: RunReader, row: dict[str, Any]) -> Iterator[str]:
    """Says which item was found, what happened to it, and in which passage."""
    item = f"item {row.get('contaminated_item')} of {safe_line(str(row[SET]), 80)}"
    field, share, items = row.get("contaminated_field"), row.get("contamination"), len(row.get("contamination_items") or [None])
    done = "dropped for it" if RULE in (row.get("failed") or []) else stayed(contamination_options(reader).get("action", ""))
    found = f", {share:.1%} of its words" if share is not None else ""
    yield f"holds {item}{f' ({safe_line(field, 40)})' if field else ''}{found}: {done}"
    if items > 1:
        yield f"and {items - 1:,} more {'item' if items == 2 else 'items'} of evaluation sets"
    if row.get("contamination_passage"):
        yield f"the passage: {safe_line(row['contamination_passage'], PASSAGE)}"


def _url(reader: RunReader, id_: str) -> str:
    """Returns the URL of an input document of the dedup stage; empty where it has none."""
    return safe_line(reader.urls("dedup", [id_]).get(id_, ""), 300)


@dataclass
class Explanation:
    """A stage's row about the document. `facts`: sentences. `values`: the measured values by column, each with the rules on it."""

    stage: str
    row: dict[str, Any]
    facts: list[str]
    values: dict[str, tuple[Any, list[ReportRule]]]
    change: RecipeChange | None
    commands: list[str] = field(default_factory=list)
    meanings: dict[str, str] = field(default_factory=dict)  # by rule: the reason for which it drops a document, in words

    def as_json(self) -> dict[str, Any]:
        row, failed = self.row, self.row.get("failed") or []
        checks = [
            {
                **{key: each for key, each in asdict(rule).items() if key != "share" or each},  # only the rules that keep a share have one
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
    """What the run has about one id: its rows by stage (several where the crawl holds it twice), and the beginning of its text."""

    id: str
    url: str | None
    explanations: list[Explanation]
    text: str
    marked: list[MarkedText] = field(default_factory=list)  # only where they are asked for

    @property
    def holds_no_page(self) -> bool:
        """Whether these are records such as requests, which a crawl stores under the URL of a page."""
        return all(explanation.stage == "ingest" and explanation.row.get("failed") == [NO_PAGE] for explanation in self.explanations)

    def as_json(self) -> dict[str, Any]:
        marked = {"marked": [one.as_json() for one in self.marked]} if self.marked else {}
        stages = [explanation.as_json() for explanation in self.explanations]
        return {"id": self.id, "url": self.url, "stages": stages, "text": self.text, **marked}


@dataclass(repr=False)
class Explained(Printed):
    """What a run says about a document: its story in each stage; or the documents with a passage, of which one has to be chosen."""

    run: str
    query: str
    passages: Passages | None
    documents: list[Story]
    notes: list[str]
    stale: str | None  # a sentence about stale stages

    def as_json(self) -> dict[str, Any]:
        stories = [story.as_json() for story in self.documents]
        return {"stale": self.stale, "query": self.query, "passages": _as_json(self.passages), "documents": stories, "notes": self.notes}

    def show(self, console: Console) -> None:
        if self.passages is not None:
            show_passages(self.run, self.passages, LISTED, console)
        show_story(self.run, self.documents, self.notes, console)


def explain(folder: str, document: str, in_texts: bool = False, marks: bool = False) -> Explained:
    """Explains one document, given by URL, id, the beginning of an id (four characters or more), a piece of its URL, or a passage of its
    text. Where several have the piece or passage, lists them.

    `in_texts`: search only for a passage. `marks`: with the places in its text that made it fail. Raises InputError if nothing is named, if
    the run has no such document, or if several ids begin so.
    """
    if not document.strip():
        raise InputError("why: name a document: its URL, its id, or a passage of its text.")
    with open_run(folder) as run:
        reader = run.reader
        stages = [name for name in REPORTED if reader.stages[name].outputs("report/")]
        if not stages:
            raise InputError(f"{folder}: no stage of this run has a report yet.")
        ids, passages = _search(run, stages, document, in_texts)
        if passages is not None:
            _add_outcomes(run, stages, passages)
        stories = [story for id_ in ids if (story := _story(run, stages, id_)) is not None]
        pages = [story for story in stories if not story.holds_no_page] or stories
        for story in pages if marks else ():
            story.marked = list(_marked(run, story))
        notes = _notes(reader, [story for story in stories if story not in pages], pages)
        notes += [f"{safe_line(sentence, 600)}." for story in pages if (sentence := lineage(run, story.id))]
        return Explained(folder, document, passages, pages, notes, reader.stale.sentence if reader.stale else None)


def _search(run: Run, stages: list[str], document: str, in_texts: bool) -> tuple[list[str], Passages | None]:
    """Returns the ids to explain, or a list to choose from: documents with the passage, or too many records of one URL."""
    ids = [] if in_texts else resolve(run, stages, document)
    if len(ids) > EXPLAINED:
        rows = table_rows(run, f"{stages[0]}_report", stages[0], REPORT.names)
        rows.add("list_contains(?, id) AND failed != [?]", ids, NO_PAGE)
        ids = list(dict.fromkeys(row["id"] for row in rows.read(("id",), "", 0))) or ids[:EXPLAINED]
        if len(ids) > EXPLAINED:
            return [], Passages("", len(ids), [PassageHolder(id_, document, "", "", "") for id_ in ids[:LISTED]])
    if ids:
        return ids, None
    if not in_texts and not any(map(str.isspace, document)):
        if (found := find_in_urls(run, stages, document, LISTED)).holders:
            return ([found.holders[0].id] if found.count == 1 else []), found
        if "." in document and (offered := spellings(run, stages, document, near=False)):  # perhaps a URL without its scheme
            raise not_found(run, stages, document, offered)
    passages = find_passage(run, document, LISTED) if in_texts or is_text(document) else None
    if passages is None or not passages.holders:
        raise not_found(run, stages, document)
    return ([passages.holders[0].id] if passages.count == 1 else []), passages


def _add_outcomes(run: Run, stages: list[str], passages: Passages) -> None:
    """Adds to each listed document its outcome: kept to the end, or dropped in which stage by which rules."""
    holders = passages.holders or []
    for stage in stages:
        rows = table_rows(run, f"{stage}_report", stage, REPORT.names) if f"{stage}_report" in run.tables else None
        if rows is not None:
            rows.add("list_contains(?, id)", [holder.id for holder in holders])
            found = {row["id"]: row for row in rows.read(("id", "kept", "failed"), " ORDER BY kept", 0)}  # of equal ids, the kept row
            for holder in holders:
                row = found.get(holder.id)
                if row is not None:
                    rules = safe_line(", ".join(row["failed"] or []), 200)
                    holder.outcome = f"kept by {stage}" if row["kept"] else f"dropped by {stage}: {rules}"


def _as_json(passages: Passages | None) -> dict[str, Any] | None:
    return None if passages is None else {**asdict(passages), "holders": [asdict(holder) for holder in passages.holders or []]}


def _story(run: Run, stages: list[str], id_: str) -> Story | None:
    """Reads the document's rows in the reports of all stages; None if no report has one."""
    explanations = [
        _explanation(run, stage, row) for stage in stages if f"{stage}_report" in run.tables for row in _rows(run, f"{stage}_report", id_)
    ]
    url = next((one.row["url"] for one in explanations if one.row.get("url")), None)
    return Story(id_, url, explanations, _text(run, id_, explanations)) if explanations else None


def _rows(run: Run, table: str, id_: str, columns: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Returns the rows of an id in a table, with all columns or some."""
    rows = table_rows(run, table, table)
    if "id" not in rows.columns or not set(columns) <= set(rows.columns):
        return []
    rows.add("id = ?", id_)
    return list(rows.read(columns or rows.columns, "", 1_000_000))


def _explanation(run: Run, stage: str, row: dict[str, Any]) -> Explanation:
    rules = run.rules(stage)
    values = {n: (v, [rule for rule in rules if rule.column == n]) for n, v in row.items() if n not in NOT_VALUES and v is not None}
    made = Explanation(stage, row, list(_facts(run.reader, row)), values, change(run, stage, row), meanings=run.meanings(stage))
    if (row.get("cluster_size") or 1) > 1 or row.get("kept_in"):
        what = "its copies" if row.get("kept") else "the two word by word"
        made.commands.append(f"{what}: corpusmill clusters {safe_line(run.reader.storage.root, 200)} --id {safe_line(row['id'], 40)}")
    if stage == "tokens" and row.get("shards"):
        first = first_token(run, row)
        split = "" if row.get("split") == "train" else f" --split {safe_line(str(row.get('split')), 40)}"
        if first is not None:
            root = safe_line(run.reader.storage.root, 200)
            made.commands.append(f"its first token: corpusmill trace {root} --shard {row['shards'][0]} --token {first}{split}")
    return made


def _notes(reader: RunReader, others: list[Story], pages: list[Story]) -> list[str]:
    notes = []
    if others:
        reasons = "; ".join(
            safe_line(str(explanation.row.get("reason") or explanation.row["id"]), 120)
            for story in others
            for explanation in story.explanations
        )
        notes.append(f"also in the crawl under this URL: {reasons}.")
    for story in pages:
        records = max(sum(explanation.stage == stage for explanation in story.explanations) for stage in REPORTED)
        if records > 1:
            notes.append(f"{safe_line(story.id, 40)}: the crawl holds this page {records:,} times, byte for byte under one URL.")
    unfinished = [name for name, state in reader.stages.items() if state.status == "unfinished"]
    if unfinished:
        notes.append(f"{', '.join(unfinished)} not finished, so later decisions may be missing.")
    return [*notes, *(safe_line(warning, 400) for warning in reader.warnings)]


def _facts(reader: RunReader, row: dict[str, Any]) -> Iterator[str]:
    """Yields sentences for the columns that are not measured values."""
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


def _text(run: Run, id_: str, explanations: list[Explanation]) -> str:
    """Returns the beginning of the document's text from the last stage that kept it and can be read."""
    kept = {one.stage for one in explanations if one.row.get("kept")}
    for stage in ("dedup", "filter", "ingest"):
        if stage in kept and f"{stage}_documents" in run.tables:
            for row in _rows(run, f"{stage}_documents", id_, ("text",)):
                return (row["text"] or "")[: 4 * TEXT]
    return ""


def _marked(run: Run, story: Story) -> Iterator[MarkedText]:
    """Yields the input text of each stage that decided about the text, with its marks; none for a stage that left it as it was."""
    texts = {}
    for stage in DATA_STAGES:
        table = f"{stage}_documents"
        rows = (_rows(run, table, story.id, ("text", "plain")) or _rows(run, table, story.id, ("text",))) if table in run.tables else []
        texts[stage] = (rows[0].get("plain") or rows[0]["text"]) if rows else None  # the filter measures the text without marks
    for before, stage in pairwise(DATA_STAGES):
        row, text = next((one.row for one in story.explanations if one.stage == stage), None), texts[before]
        if row is not None and text is not None:
            filtered = stage == "filter"
            marks = (
                filter_marks(run.reader.settings(stage), run.rules(stage), row, text) if filtered else dedup_marks(row, text, texts[stage])
            )
            if marks:
                yield MarkedText(stage, before, text, marks)


def show_passages(run: str, passages: Passages, listed: int, console: Console) -> None:
    """Prints a numbered list of the documents with a passage; for a single document the place in its text."""
    holders = passages.holders or []
    heading = f"{counted(passages.count, 'document')} with this in the URL:"
    if passages.stage:
        holds = "holds" if passages.count == 1 else "hold"
        heading = f"{counted(passages.count, 'document')} {holds} this text as the stage {passages.stage} wrote it:"
    console.print(Text(heading, style="bold"))
    for place, holder in enumerate(holders, 1):
        head = f"{place:>2}. {safe_line(holder.url or '(no URL)', 300)}"
        console.print(Text(head))
        console.print(_indented(Text(f"id {safe_line(holder.id, 40)}, {safe_line(holder.outcome, 300)}", style="dim"), 4))
        if holder.passage:
            console.print(_indented(_snippet(holder), 4))
    if passages.count > listed:
        longer = " (a longer passage finds fewer)" if passages.stage else ""
        console.print(Text(f"and {passages.count - listed:,} more{longer}.", style="dim"))
    if passages.count > 1:
        texts = "" if passages.stage else " (--text searches the texts)"
        console.print(Text(f"Why one of them: corpusmill why {shlex.quote(safe_line(run, 300))} ID{texts}", style="dim"), soft_wrap=True)
    else:
        console.print()


def _indented(shown: Text | Table, columns: int) -> Padding:
    return Padding(shown, (0, 0, 0, columns), expand=False)


def _snippet(holder: PassageHolder) -> Text:
    before, passage, after = (safe_line(f"|{part}|", 240)[1:-1] for part in (holder.before, holder.passage, holder.after))
    return Text(before) + Text(f"⟦{passage}⟧", style="bold reverse") + Text(after)


def show_story(run: str, stories: list[Story], notes: list[str], console: Console) -> None:
    """Prints each document stage by stage, then the notes."""
    for story in stories:
        _explain(run, story, console)
    show_notes(notes, console, limit=500)


def _explain(run: str, story: Story, console: Console) -> None:
    console.print(Text(safe_line(story.url or "(no URL)", 400), style="bold"))
    console.print(Text(f"id {safe_line(story.id, 40)}", style="dim"))
    for explanation in story.explanations:
        same = [other for other in story.explanations if other.stage == explanation.stage]
        console.print()
        _print_explanation(explanation, f", record {same.index(explanation) + 1} of {len(same)}" if len(same) > 1 else "", console)
    for marked in story.marked:
        console.print()
        show_marked(marked, console)
    if story.text and not story.marked:
        console.print()
        console.print(Text("The text begins:", style="bold"))
        console.print(Text(safe_text(story.text, TEXT)))
        root = shlex.quote(safe_line(run, 300))
        console.print(Text(f"All of it: corpusmill raw {root} {safe_line(story.id, 40)} --part text", style="dim"), soft_wrap=True)
    console.print()


def _print_explanation(explanation: Explanation, which: str, console: Console) -> None:
    row = explanation.row
    kept = bool(row.get("kept"))
    head = Text(f"{explanation.stage}{which}: ", style="bold") + Text("kept" if kept else "dropped", style="green" if kept else "red")
    head.append(f"  {number(row.get('chars_in') or 0)} characters in, {number(row.get('chars_out') or 0)} out", style="dim")
    console.print(head)
    for name in row.get("failed") or []:
        console.print(_indented(Text(f"failed {safe_line(name, 80)}{_reason(name, explanation)}", style="red"), 2))
        if name in explanation.meanings:
            console.print(_indented(Text(safe_line(explanation.meanings[name], 300)), 4))
    for line in explanation.facts:
        console.print(_indented(Text(line), 2))
    if explanation.change is not None:
        _show_change(explanation.change, console)
    for line in explanation.commands:
        console.print(Text(f"  {line}", style="dim"), soft_wrap=True)
    if explanation.values:
        _print_values(explanation, console)


def _reason(name: str, explanation: Explanation) -> str:
    broken = [(rule, value) for value, rules in explanation.values.values() for rule in rules if rule.rule == name]
    parts = [
        f"{safe_line(rule.column, 60)} is {safe_line(number(value), 60)}, and fails if {limit(rule)}{_by(rule, value)}"
        for rule, value in broken
    ]
    return f": {'; '.join(parts)}" if parts else ""


def _by(rule: ReportRule, value: object) -> str:
    far = distance(rule, value)
    return "" if far is None else f" (by {number(far)})"


def _show_change(change: RecipeChange, console: Console) -> None:
    """Prints the change that would keep the document: a command to copy, and how many more documents it keeps."""
    if change.command:
        console.print(Text("  to keep it: ") + Text(safe_line(change.command, 4000), style="cyan"), soft_wrap=True)
    if change.others is not None:
        others = {0: "brings back no other document", 1: "also brings back 1 more document"}.get(
            change.others, f"also brings back {change.others:,} more documents"
        )
        console.print(_indented(Text(f"which {others} of this run; with --dry-run it says so and changes nothing", style="dim"), 4))
    for key, value in change.settings.items() if not change.command else ():
        console.print(_indented(Text(f"to keep it: {safe_line(key, 120)}: {safe_line(str(value), 200)}"), 2))
    for sentence in change.sentences:
        console.print(_indented(Text(f"to keep it: {safe_line(sentence, 500)}"), 2))


def _print_values(explanation: Explanation, console: Console) -> None:
    """Prints the measured values, the rules on them, and how far they are from failing."""
    decided = any(rules for _, rules in explanation.values.values())
    wide = console.width >= WIDE
    made = table("", "value", ">measured", *(["fails if"] if decided else []), *(["room"] if decided and wide else []))
    failed = explanation.row.get("failed") or []
    for name, (value, rules) in explanation.values.items():
        limits = "\n".join(f"{limit(rule)} ({safe_line(rule.rule, 60)})" for rule in rules)
        margins = "\n".join(margin(rule, value, rule.rule in failed) for rule in rules)
        line = [cell(name, 40), cell(value, 40), Text(limits), Text(margins)][: len(made.columns)]
        made.add_row(*line, style="red" if any(rule.rule in failed for rule in rules) else None)
    if decided:
        made.columns[2].no_wrap = False
    console.print(_indented(made, 2))


def first_token(run: Run, row: dict[str, Any]) -> int | None:
    """Returns the number of a document's first token in the first shard that has it; None if the index lacks it. `row`: a row of the
    report."""
    index = f"tokens_{row.get('split')}"
    found = run.rows(f"SELECT first FROM {index} WHERE id = $id LIMIT 1", id=row["id"]) if index in run.tables else []
    return found[0][0] if found else None
