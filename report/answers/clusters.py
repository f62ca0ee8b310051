"""`clusters`: shows groups of copies with the differences to the kept document."""

from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.printed import Printed
from corpusmill.pipeline.recipe import stage_command
from corpusmill.pipeline.safe import safe_line
from corpusmill.report.answers.why_find import resolve
from corpusmill.report.queries.duplicates import (
    LISTS,
    Cluster,
    Member,
    choose_clusters,
    evidence,
    find_clusters,
    has_clusters,
    policy,
    read_members,
)
from corpusmill.report.queries.passages import Comparison, Passage
from corpusmill.report.query.run import Run
from corpusmill.report.read import RunReader
from corpusmill.report.tables import number

#: Clusters shown of one list, or of each of the three lists.
ONE, EACH = 10, 3
#: Removed documents shown of a cluster, and how many of them are compared with the kept one: in a list, then for one asked cluster.
MEMBERS, COMPARED = 4, 1
MEMBERS_ASKED, COMPARED_ASKED = 20, 3
#: Marks around words where the terminal has no colour.
MARKS = {"removed": ("[-", "-]"), "added": ("{+", "+}")}
STYLES = {"removed": "red strike", "added": "green"}


@dataclass(repr=False)
class ClusterLists(Printed):
    """Clusters by list (largest, doubtful, random, or asked for those of one document), with what is said about all of them."""

    lists: dict[str, list[Cluster]]
    reader: RunReader
    document: str | None

    def as_json(self) -> list[dict[str, Any]]:
        return [as_object(name, cluster) for name, members in self.lists.items() for cluster in members]

    def show(self, console: Console) -> None:
        _print_notes(self.reader, console)
        if self.document is not None and not self.lists["asked"]:
            console.print(Text(f"{safe_line(self.document, 200)}: in no cluster: no document of the run counts as a copy of it."))
        else:
            settings = self.reader.settings("dedup")
            print_lists(self.lists, policy(settings), settings.get("threshold"), console)


def find(folder: str, which: str | None, limit: int | None, seed: int, document: str | None) -> ClusterLists:
    """Finds clusters: the list `which` (largest, doubtful, random), a few of each list, or those of one document (URL or id).

    Raises InputError if the run has no cluster tables or no such document.
    """
    reader = RunReader(folder)
    size = limit or (EACH if which is None else ONE)
    if not reader.stages["dedup"].outputs("clusters/"):
        raise InputError(f"{folder}: no clusters here yet, since the stage dedup has not run (run: {stage_command(folder, 'dedup')}).")
    with Run(reader) as run:
        run.hold(["dedup_clusters"])
        if document is not None:
            ids = _ids(run, folder, document)
            found = find_clusters(run, ids)[:size]
            read = read_members(run, {"asked": found}, limit or MEMBERS_ASKED, COMPARED_ASKED, ids)
        else:
            names = [name for name in LISTS if which in (None, name) and has_clusters(run)]
            read = read_members(run, {name: choose_clusters(run, name, size, seed) for name in names}, MEMBERS, COMPARED)
    lists = {name: read[name][0] if name in read else [] for name in (["asked"] if document is not None else names)}
    return ClusterLists(lists, reader, document)


def one_list(largest: bool, doubtful: bool, random: bool, document: str | None) -> str | None:
    """Returns the list that was asked for, if any. Raises InputError where options exclude each other."""
    options = {"--largest": largest, "--doubtful": doubtful, "--random": random, "--id": document is not None}
    chosen = [name for name, on in options.items() if on]
    if len(chosen) > 1:
        raise InputError(f"clusters: {chosen[0]} and {chosen[1]} exclude each other.")
    return chosen[0].removeprefix("--") if chosen and document is None else None


def _print_notes(reader: RunReader, console: Console) -> None:
    for sentence in reader.warnings:
        console.print(Text(f"Warning: {safe_line(sentence, 400)}", style="yellow"), soft_wrap=True)
    if reader.stages["dedup"].status == "unfinished":
        console.print(Text("Note: the stage dedup has not finished.", style="yellow"))


def _ids(run: Run, folder: str, document: str) -> set[str]:
    """Returns the ids of the documents with this URL, id or beginning of an id. A document of an earlier run counts where it is kept for
    copies."""
    stages = [name for name in ("ingest", "filter", "dedup") if run.reader.stages[name].outputs("report/")]
    ids = resolve(run, stages, document) or ([document] if find_clusters(run, {document}) else [])
    if not ids:
        raise InputError(f"{folder}: no document has the URL or id {safe_line(document, 200)!r}.")
    return set(ids)


def print_lists(lists: dict[str, list[Cluster]], kept_as: str, threshold: float | None, console: Console) -> None:
    """Prints each list with its title and its numbered clusters."""
    if kept_as:
        console.print(Text(f"Of each cluster {kept_as} is kept; ties go by id.", style="dim"))
    removed, added = _marked("removed", "only in the removed copy", console), _marked("added", "only in the kept document", console)
    console.print(Text.assemble(("In a comparison: ", "dim"), removed, (", ", "dim"), added))
    for name, members in lists.items():
        if name in LISTS:
            near = f" (threshold {number(threshold)})" if name == "doubtful" and threshold is not None else ""
            console.print()
            console.print(Text(f"{LISTS[name]}{near}", style="bold"))
            if not members:
                console.print(Text("none: no near copies were found" if name == "doubtful" else "none: no document has a copy"))
        for place, cluster in enumerate(members, 1):
            console.print()
            print_cluster(place, cluster, kept_as, console)


def print_cluster(place: int, cluster: Cluster, kept_as: str, console: Console) -> None:
    """Prints the kept document, some of its copies, and the differences of those that were compared."""
    console.print(Text(f"Cluster {place}: {cluster.size:,} documents", style="bold"))
    if cluster.kept is not None:
        _print_member(Text("kept", style="green"), cluster.kept, f", {kept_as}" if kept_as else "", None, console)
    else:
        line = Text("   ") + Text("kept", style="green") + Text(f"    id {safe_line(cluster.kept_id, 40)}, ")
        line.append(f"in the earlier run {safe_line(str(cluster.kept_in), 120)}" if cluster.kept_in else "which is not in the tables")
        console.print(line)
    for member, comparison in cluster.removed:
        _print_member(Text("removed", style="red"), member, f", {evidence(member)}", cluster.kept, console)
        if comparison is not None:
            for line in compared(comparison, console).wrap(console, max(20, console.width - 11)):
                line.rstrip()
                console.print(Text(" " * 11) + line, soft_wrap=True)
    if cluster.copies > len(cluster.removed):
        more = cluster.copies - len(cluster.removed)
        console.print(Text(f"   and {more:,} more {'copy' if more == 1 else 'copies'}", style="dim"))


def _print_member(head: Text, member: Member, more: str, kept: Member | None, console: Console) -> None:
    head.pad_right(8 - len(head))
    lines = Text(safe_line(member.url or "(no URL)", 300))
    if member.characters is None:
        lines = Text("(its shard is not there any more)", style="dim")
    lines.append(f"\nid {safe_line(member.id, 40)}{more}", style="dim")
    size = "" if member.characters is None else f"{member.characters:,} characters, "
    source = "the same crawl file" if kept is not None and kept.source == member.source else safe_line(member.source, 300)
    lines.append(f"\n{size}from {source}", style="dim")
    for place, line in enumerate(lines.split("\n")):
        begin = Text("   ") + head if place == 0 else Text(" " * 11)
        console.print(begin + line, soft_wrap=True)


def compared(comparison: Comparison, console: Console) -> Text:
    """Returns the passages of a comparison as text. Words of only one document are coloured, or in marks where the console has no
    colour."""
    if comparison.same:
        return Text(f"the same {comparison.equal:,} words{_cut(comparison)}", style="dim")
    text = Text()
    for passage in comparison.passages:
        text += Text(" " if text else "") + _shown(passage, console)
    counts = f"{comparison.equal:,} equal words, {comparison.removed:,} only in the removed copy, {comparison.added:,} only in the kept one"
    return text + Text(f"\n{counts}{_cut(comparison)}", style="dim")


def _cut(comparison: Comparison) -> str:
    return "; too long, so only the beginnings were compared" if comparison.cut else ""


def _shown(passage: Passage, console: Console) -> Text:
    if passage.kind == "left out":
        return Text(f"… {passage.text} …", style="dim")
    return Text(passage.text) if passage.kind == "equal" else _marked(passage.kind, passage.text, console)


def _marked(kind: str, text: str, console: Console) -> Text:
    if console.color_system is None or console.no_color:
        return Text(f"{MARKS[kind][0]}{text}{MARKS[kind][1]}")
    return Text(text, style=STYLES[kind])


def as_object(list_: str, cluster: Cluster) -> dict[str, Any]:
    """Returns a cluster for JSON. `list` is largest, doubtful, random or asked; `diff` is null if the documents were not compared."""
    removed = [
        {**_member(member), "similarity": member.similarity, "verified": member.verified, "diff": diff_object(comparison)}
        for member, comparison in cluster.removed
    ]
    return {
        "list": list_, "kept_id": cluster.kept_id, "kept_in": cluster.kept_in, "size": cluster.size, "copies": cluster.copies,
        "kept": _member(cluster.kept) if cluster.kept else None, "removed": removed,
    }  # fmt: skip


def _member(member: Member) -> dict[str, Any]:
    names = ("id", "url", "source", "shard", "row", "characters")
    return {name: getattr(member, name) for name in names}


def diff_object(comparison: Comparison | None) -> dict[str, Any] | None:
    """Returns a word diff for JSON; None if the documents were not compared."""
    if comparison is None:
        return None
    passages = [{"kind": p.kind, "text": p.text, "words": p.words} for p in comparison.passages]
    counts = {"equal": comparison.equal, "removed": comparison.removed, "added": comparison.added, "cut": comparison.cut}
    return {**counts, "passages": passages}
