"""What instruction tuning learns of each example, for people: `corpusmill sft inspect`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice

from corpusmill.pipeline.cache import local_model
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.shards import read_table
from corpusmill.pipeline.storage import Storage
from corpusmill.report.read import RunReader
from corpusmill.train.chat_folder import choose_chat
from corpusmill.train.checkpoint import read_architecture
from corpusmill.train.packing import Packed, pack
from corpusmill.train.sft import DROPPED_FILE, EXAMPLES_FILE
from corpusmill.train.sft_data import Example, prepare, read_examples
from corpusmill.train.template import ChatEncoder, Encoded

LEARNED, GIVEN, CUT = "learned", "given", "cut"


@dataclass(frozen=True)
class Token:
    """`text` is the tokenizer's own writing where the token is no whole character."""

    id: int
    text: str
    special: bool
    state: str


@dataclass(frozen=True)
class Stretch:
    """Tokens of one state that follow each other, or one special token."""

    text: str
    special: bool
    state: str


@dataclass(frozen=True)
class Shown:
    """An example and what becomes of each of its tokens. `failed` and `note` say why it is dropped, `begin` where in its row it begins."""

    example: Example
    failed: list[str]
    note: str | None
    tokens: list[Token]
    stretches: list[Stretch]
    begin: int | None = None

    def count(self, state: str) -> int:
        return sum(token.state == state for token in self.tokens)


@dataclass(frozen=True)
class Source:
    """The examples of a run, or the rows of files beside a model folder, with what they are encoded by.

    `dropped` are those of a run that can't be learned from; None where nobody has looked yet.
    """

    name: str
    encoder: ChatEncoder
    context: int
    examples: list[Example]
    dropped: list[Example] | None
    reasons: dict[str, tuple[list[str], str | None]] = field(default_factory=dict)  # of rows that are no example, by id

    def show(self, example: Example, begin: int | None = None) -> Shown:
        prepared = prepare(example, self.encoder, self.context)
        failed, note = self.reasons.get(example.id, (prepared.failed, prepared.note))
        tokens = _tokens(prepared.tokens is not None, prepared.encoded, self.encoder, self.context)
        return Shown(example, failed, note, tokens, _stretches(tokens, self.encoder), begin)

    def pack(self, held_out: bool) -> tuple[Packed, list[Example]]:
        """The rows that are trained on, or measured, and the examples that their members are."""
        found = [(e, prepare(e, self.encoder, self.context).tokens) for e in self.examples if e.held_out is held_out]
        kept = [(example, tokens) for example, tokens in found if tokens is not None]
        if not kept:
            raise InputError(f"{self.name}: there are no {'held-out ' if held_out else ''}examples that could be packed.")
        return pack([tokens for _, tokens in kept], self.context), [example for example, _ in kept]


def source_of_run(folder: str) -> Source:
    """The examples of a run's stage `sft`, under the template of its model, or of its recipe where the model is not there yet."""
    run, stage = Storage(folder), Storage(folder).child("sft")
    section = RunReader(folder).description.get("recipe", {}).get("sft") or {}
    if not stage.exists(EXAMPLES_FILE):
        raise InputError(f"{folder}: the run has no examples of instruction tuning yet; corpusmill sft {folder} makes them.")
    model, template = stage.child("model"), "keep"
    if not model.exists("config.json"):
        model = Storage(section["model"]) if section.get("model") else run.child("pretrain/model")
        template = section.get("template", "keep")
    rows = read_table(stage, DROPPED_FILE).to_pylist() if stage.exists(DROPPED_FILE) else []
    why = [(row["id"], (row.pop("failed"), row.pop("note"))) for row in rows]
    reasons = {identifier: reason for (identifier, reason), row in zip(why, rows, strict=True) if not row["messages"]}
    examples = [Example(**row) for row in read_table(stage, EXAMPLES_FILE).to_pylist()]
    here = local_model(model.root)
    context, dropped = read_architecture(here).context, [Example(**row) for row in rows]
    return Source(folder, choose_chat(Storage(str(here)), template), context, examples, dropped, reasons)


def source_of_files(model: str, files: Sequence[str], template: str) -> Source:
    """The examples of files as they would be learned by a model."""
    here = local_model(model)
    context = read_architecture(here).context
    return Source(", ".join(files), choose_chat(Storage(str(here)), template), context, read_examples(files, 0.0), None)


def choose(
    source: Source, count: int, identifier: str | None = None, row: int | None = None, held_out: bool = False, dropped: bool = False
) -> list[Shown]:
    """At most `count` examples: by an id or its beginning, by number (from 1), the held-out ones, those that are dropped, or the first."""
    found: Iterable[Shown]
    if row is not None:
        if row > len(source.examples):
            raise InputError(f"{source.name}: has no example {row:,}; there are {len(source.examples):,}.")
        found = [source.show(source.examples[row - 1])]
    elif identifier is not None:
        known = [*source.examples, *(source.dropped or [])]
        exact = [example for example in known if example.id == identifier]
        found = map(source.show, exact or [example for example in known if example.id.startswith(identifier)])
    elif dropped:
        found = (shown for shown in map(source.show, source.examples if source.dropped is None else source.dropped) if shown.failed)
    else:
        found = (source.show(example) for example in source.examples if example.held_out is held_out)
    chosen = list(islice(found, count))
    if not chosen:
        what = f"example with the id {identifier!r}" if identifier is not None else "dropped example" if dropped else "such example"
        raise InputError(f"{source.name}: there is no {what}.")
    return chosen


def choose_row(source: Source, row: int, held_out: bool) -> tuple[list[Shown], int, int]:
    """The examples that share a packed row (from 1), in their order; how many rows there are; how many of its places are padding."""
    packed, examples = source.pack(held_out)
    if row > packed.n_rows:
        raise InputError(f"{source.name}: has no packed row {row:,}; there are {packed.n_rows:,}.")
    shown, begin = [], 0
    for number in packed.members[row - 1]:
        shown.append(source.show(examples[number], begin))
        begin += len(shown[-1].tokens) - shown[-1].count(CUT) - 1
    return shown, packed.n_rows, source.context - begin


def _tokens(kept: bool, encoded: Encoded, encoder: ChatEncoder, context: int) -> list[Token]:
    """The first token of a sequence is never a target, and a row of `context` places holds one token more as its last target."""
    special = {number: name for name, number in encoder.special_ids.items()}
    tokens = []
    for place, (number, learned) in enumerate(zip(encoded.ids.tolist(), encoded.mask.tolist(), strict=True)):
        text = special.get(number) or encoder.tokenizer.decode([number], skip_special_tokens=False)
        written = encoder.tokenizer.id_to_token(number) or "" if "\ufffd" in text else text
        state = CUT if place > context else LEARNED if kept and learned and place else GIVEN
        tokens.append(Token(number, written, number in special, state))
    return tokens


def _stretches(tokens: Sequence[Token], encoder: ChatEncoder) -> list[Stretch]:
    stretches = []
    for (_, state), group in groupby(enumerate(tokens), key=lambda item: (item[0] if item[1].special else -1, item[1].state)):
        members = [token for _, token in group]
        text = encoder.tokenizer.decode([token.id for token in members], skip_special_tokens=False)
        stretches.append(Stretch(members[0].text if members[0].special else text, members[0].special, state))
    return stretches
