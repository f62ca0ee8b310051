"""`trace`: goes from a token of a shard back to its text, its document, and the crawl's record."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rich.console import Console
from rich.text import Text

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.safe import quoted, safe_line
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_bytes import TokenBytes
from corpusmill.pipeline.token_shards import TokenAddress, TokenShards
from corpusmill.report.read import RunReader
from corpusmill.report.sources import other_run
from corpusmill.report.tables import cell, show_notes, table
from corpusmill.report.tokens.token_sets import find_tokenizer, open_split

#: Bytes shown before and after, at most.
CONTEXT = 240


@dataclass(frozen=True)
class Around:
    """A token in its text. `characters`: the whole characters that hold the token's bytes; `before` and `after`: the text around them."""

    before: str
    characters: str
    after: str
    first: int  # the byte of the text at which the token begins
    raw: bytes  # the token's own bytes

    @property
    def partial(self) -> bool:
        """Whether the token begins or ends inside a character."""
        return self.characters.encode("utf-8", "replace") != self.raw


def around(text: bytes, first: int, size: int, context: int = CONTEXT) -> Around:
    """Returns the `size` bytes of UTF-8 at `first`, with up to `context` bytes on both sides. Bytes that are not UTF-8 become U+FFFD."""
    low, high = _boundary(text, first, -1), _boundary(text, first + size, 1) if size else first
    begin, end = _boundary(text, max(0, low - context), 1), _boundary(text, min(len(text), high + context), -1)
    parts = (text[begin:low], text[low:high], text[high:end])
    before, characters, after = (part.decode("utf-8", "replace") for part in parts)
    return Around(before, characters, after, first, text[first : first + size])


def _boundary(text: bytes, place: int, direction: int) -> int:
    """Returns the nearest beginning of a character, at `place` or before (-1) or after it (+1). The text's end counts as one."""
    while 0 < place < len(text) and text[place] & 0xC0 == 0x80:
        place += direction
    return place


@dataclass(frozen=True)
class Traced:
    """A traced token. `notes`: sentences about problems."""

    split: str
    shard: int
    token: int
    id: int
    special: str | None  # the name of a special token
    around: Around | None  # None where the run's tokenizer is missing or another one
    document: TokenAddress
    run: str | None  # that holds the document; None where it is no longer there
    batch: Mapping[str, Any] | None = None  # the place in training from which the token was asked
    notes: list[str] = field(default_factory=list)
    stale: str | None = None  # the sentence about stale stages of the document's run

    def as_json(self) -> dict[str, Any]:
        """Returns one object with all fields, `bytes` in hexadecimal digits."""
        found = self.around
        return {
            "stale": self.stale,
            "split": self.split, "shard": self.shard, "token": self.token, "batch": dict(self.batch) if self.batch else None,
            "id": self.id, "special": self.special,
            "text": None if found is None else {
                "bytes": found.raw.hex(), "first_byte": found.first, "characters": found.characters, "partial": found.partial,
                "before": found.before, "after": found.after,
            },
            "document": {name: value for name, value in vars(self.document).items() if name != "shard"},
            "run": self.run, "notes": self.notes,
        }  # fmt: skip


def trace(folder: str, shard: int, token: int, split: str = "train", batch: Mapping[str, Any] | None = None,
          notes: Sequence[str] = ()) -> Traced:  # fmt: skip
    """Traces token number `token` of shard number `shard`. Raises InputError if there is no such token."""
    root, remarks = Storage(folder), list(notes)
    shards = open_split(root, split)
    address = shards.locate(shard, token)
    home = _home(folder, shards.shards[shard].run, remarks)
    table, reason = find_tokenizer(root, shards.description)
    remarks += [f"{reason}, so the text is not shown."] if table is None else []
    number = int(shards.tokens(shard)[token])
    found = None if table is None else _around(home, shards, table, address, token, remarks)
    special = None if table is None else table.special.get(number)
    if home and (written := _rewritten(home, address)):
        remarks.append(written)
    remarks += home.warnings if home else []
    stale = home.stale.sentence if home and home.stale else None
    return Traced(split, shard, token, number, special, found, address, home.storage.root if home else None, batch, remarks, stale)


def _home(folder: str, run: str | None, notes: list[str]) -> RunReader | None:
    """Returns the run that holds a shard's documents; None, with a note, where it is no longer there."""
    if run is None:
        return RunReader(folder)
    try:
        return RunReader(other_run(Storage(folder), run).root)
    except InputError as error:
        notes.append(f"this shard was appended from another run, whose documents and reports can't be read: {error}")
        return None


def _rewritten(home: RunReader, address: TokenAddress) -> str:
    """Returns a sentence where a model wrote the document: its address in the crawl is that of the document which it rewrote."""
    row = home.at(address.data_file, [address.data_row], ["rewritten_from", "rewritten_as", "rewritten_by"]).get(address.data_row) or {}
    if row.get("rewritten_from") is None:
        return ""
    by, kind = safe_line(row["rewritten_by"] or "?", 100), safe_line(row["rewritten_as"] or "?", 60)
    parent = safe_line(row["rewritten_from"], 40)
    return f"this text is not of the crawl: the model {by} wrote it ({kind}) from the document {parent}, whose address this is."


def _around(
    home: RunReader | None, shards: TokenShards, table: TokenBytes, address: TokenAddress, token: int, notes: list[str]
) -> Around | None:
    """Returns the token in its document's text. The bytes of the tokens before it give the place; checks that the document has this
    text."""
    ids = shards.tokens(address.shard)[address.first : address.first + address.tokens]
    if int(ids.max()) >= len(table.sizes):
        notes.append("this document's tokens hold ids beyond the vocabulary (corpusmill verify says more).")
        return None
    encoded, begin = table.join(ids), address.text_begin
    row = home.at(address.data_file, [address.data_row], ["id", "text"]).get(address.data_row) if home else None
    if home and row is None:
        notes.append(f"{address.data_file} has no row {address.data_row} any more, so the text shown is that of the tokens alone.")
    elif row and (row.get("id") != address.id or (row.get("text") or "").encode()[begin : begin + address.utf8_bytes] != encoded):
        notes.append(f"{address.data_file}, row {address.data_row}, holds another text now: what is shown is that of the tokens.")
    place = token - address.first
    found = around(encoded, int(table.sizes[ids[:place]].sum()), int(table.sizes[ids[place]]))
    return replace(found, first=begin + found.first)


def show_trace(traced: Traced, as_json: bool, console: Console) -> None:
    """Prints one JSON object (ASCII: control characters are escaped), or the text and a table."""
    if as_json:
        print(json.dumps(traced.as_json(), indent=2, default=str))
        return
    if traced.batch:
        batch = traced.batch
        console.print(Text(f"Step {batch['step']:,}, row {batch['row']:,}, position {batch['position']:,} of the context:", style="bold"))
    console.print(Text(f"Token {traced.token:,} of shard {traced.shard} ({traced.split}): ", style="bold"), _marked(traced), sep="")
    made = table("", "what", "where")
    for name, value in _facts(traced).items():
        made.add_row(name, cell(value, 400))
    made.columns[1].no_wrap = False
    console.print(made)
    if traced.run is not None:
        command = shlex.join(["corpusmill", "why", safe_line(traced.run, 300), traced.document.id])
        console.print(Text(f"What each stage measured of it: {command}", style="dim"), soft_wrap=True)
    show_notes(traced.notes, console)


def _marked(traced: Traced) -> Text:
    """Returns the text around the token on one line; ⟦ and ⟧ enclose the characters that hold the token."""
    found = traced.around
    if found is None:
        return Text(f"id {traced.id}")
    inside = traced.special or found.characters
    before, inside, after = (safe_line(f"|{part}|", 2000)[1:-1] for part in (found.before, inside, found.after))
    return Text(before) + Text(f"⟦{inside}⟧", style="bold reverse") + Text(after)


def _facts(traced: Traced) -> dict[str, str]:
    address, found = traced.document, traced.around
    record = f"{address.source or '(not known)'}" + (f", offset {address.offset}" if address.offset is not None else "")
    facts = {}
    if traced.batch:
        facts["order"] = ", ".join(
            f"{name.replace('_', ' ')} {value:,}" for name, value in traced.batch.items() if name not in ("step", "row", "position")
        )
    facts["token"] = f"id {traced.id}"
    if traced.special:
        facts["token"] += f", {traced.special}"
    elif found is not None:
        part = "a part of " if found.partial else ""
        facts["token"] += f", bytes {found.raw.hex(' ')}: {part}{quoted(found.characters, 120)}"
    facts["place"] = f"number {traced.token - address.first:,} of the document's {address.tokens:,} tokens" + (
        "" if found is None else f", byte {found.first:,} of {address.text_begin + address.utf8_bytes:,}"
    )
    repeated = f", copy {address.copy + 1} of it in the mixture" if address.copy else ""
    return facts | {
        "document": address.id + repeated,
        "URL": address.url or "(none)",
        "crawl file": record + (f", length {address.length}" if address.length is not None else ""),
        "text": f"{address.data_file}, row {address.data_row}",
    }
