"""`trace`: from a token of a shard back to its text, its document, the crawl's record, and the values that let it through."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_bytes import TokenBytes
from corpusmill.pipeline.token_shards import TokenAddress, TokenShards
from corpusmill.report.read import DATA_STAGES, Rule, RunReader
from corpusmill.report.sources import other_run
from corpusmill.report.tokens.around import Around, around
from corpusmill.report.tokens.token_sets import find_tokenizer, open_split

#: The stages whose reports say something about a document, the one that made its tokens last.
REPORTED = (*DATA_STAGES, "tokens")


@dataclass(frozen=True)
class Traced:
    """All that is known of one token. `notes` are sentences about what is not as it should be."""

    split: str
    shard: int
    token: int
    id: int
    special: str | None  # the token's name where it is no text
    around: Around | None  # none where the tokenizer is missing or another one
    document: TokenAddress
    values: dict[str, dict[str, Any]]  # the document's row in the report of each stage
    rules: dict[str, list[Rule]]  # the thresholds of those stages
    batch: Mapping[str, Any] | None = None  # where in training it was asked for
    notes: list[str] = field(default_factory=list)
    stale: str | None = None  # which stages of the document's run are

    def as_json(self) -> dict[str, Any]:
        """One object with everything, `bytes` in hexadecimal digits."""
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
            "values": self.values, "notes": self.notes,
        }  # fmt: skip


def trace(folder: str, shard: int, token: int, split: str = "train", batch: Mapping[str, Any] | None = None,
          notes: Sequence[str] = ()) -> Traced:  # fmt: skip
    """What is known of token number `token` of shard number `shard`. Raises InputError where there is no such token."""
    root, said = Storage(folder), list(notes)
    shards = open_split(root, split)
    address = shards.locate(shard, token)
    home = _home(folder, shards.shards[shard].run, said)
    table, reason = find_tokenizer(root, shards.description)
    said += [f"{reason}, so the text is not shown."] if table is None else []
    number = int(shards.tokens(shard)[token])
    found = None if table is None else _around(home, shards, table, address, token, said)
    special = None if table is None else table.special.get(number)
    values = {stage: row for stage in REPORTED if home and (row := _report_row(home, stage, address, split))}
    rules = {stage: home.rules(stage) for stage in values} if home else {}
    said += home.warnings if home else []
    stale = home.stale.sentence if home and home.stale else None
    return Traced(split, shard, token, number, special, found, address, values, rules, batch, said, stale)


def _home(folder: str, run: str | None, notes: list[str]) -> RunReader | None:
    """The run in which the documents of a shard lie, where that is still there."""
    if run is None:
        return RunReader(folder)
    try:
        return RunReader(other_run(Storage(folder), run).root)
    except InputError as error:
        notes.append(f"this shard was appended from another run, whose documents and reports can't be read: {error}")
        return None


def _around(
    home: RunReader | None, shards: TokenShards, table: TokenBytes, address: TokenAddress, token: int, notes: list[str]
) -> Around | None:
    """The token in its document's text: the bytes of the tokens before it say where. That the document has this text is checked."""
    ids = shards.tokens(address.shard)[address.first : address.first + address.tokens]
    if int(ids.max()) >= len(table.sizes):
        notes.append("this document's tokens hold ids beyond the vocabulary (corpusmill tokens verify says more).")
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


def _report_row(reader: RunReader, stage: str, address: TokenAddress, split: str) -> dict[str, Any] | None:
    """The document's row in a stage's report; of several with its id the one of its record and split, where the report says that."""
    if not reader.stages[stage].outputs("report/"):
        return None
    rows = reader.rows(reader.find(stage, "report", "id", [address.id]))
    rows = [row for row in rows if row.get("split") == split] or rows
    wanted = (address.source, address.offset)
    return next((row for row in rows if (row.get("source"), row.get("offset")) == wanted), rows[0] if rows else None)
