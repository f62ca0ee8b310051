"""`corpusmill sft inspect`: shows which tokens of each example instruction tuning learns."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, islice

from rich.console import Console
from rich.text import Text

from corpusmill.pipeline.cache import local_model
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.recipe import stage_command
from corpusmill.pipeline.safe import quoted, safe_line, safe_text
from corpusmill.pipeline.shards import read_table
from corpusmill.pipeline.storage import Storage
from corpusmill.report.read import RunReader
from corpusmill.train.checkpoint import read_architecture
from corpusmill.train.data import Packed
from corpusmill.train.options import row_length
from corpusmill.train.sft import Example, pack_examples, prepare, read_examples
from corpusmill.train.template import ChatEncoder, Encoded, load_chat
from corpusmill.train.tuning import DROPPED_FILE, EXAMPLES_FILE

# ---- examples and their tokens -----------------------------------------------------------------------

LEARNED, GIVEN, CUT = "learned", "given", "cut"


@dataclass(frozen=True)
class Token:
    """A token of an example. `text` is the tokenizer's internal spelling where the token is not whole characters."""

    id: int
    text: str
    special: bool
    state: str


@dataclass(frozen=True)
class TokenSpan:
    """Consecutive tokens of one state, or one special token."""

    text: str
    special: bool
    state: str


@dataclass(frozen=True)
class ShownExample:
    """An example and the state of each of its tokens. `begin`: its first place in a packed row."""

    example: Example
    tokens: list[Token]
    stretches: list[TokenSpan]
    begin: int | None = None

    def count(self, state: str) -> int:
        return sum(token.state == state for token in self.tokens)


@dataclass(frozen=True)
class ExampleSet:
    """The examples of a run, or the rows of files for a model folder, with their encoder.

    `dropped`: examples of a run that can't be learned; None if they are unknown.
    """

    name: str
    encoder: ChatEncoder
    context: int
    examples: list[Example]
    dropped: list[Example] | None

    def show(self, example: Example, begin: int | None = None) -> ShownExample:
        prepared = prepare(example, self.encoder, self.context)
        tokens = _tokens(prepared.tokens is not None, prepared.encoded, self.encoder, self.context)
        return ShownExample(prepared, tokens, _stretches(tokens, self.encoder), begin)

    def pack(self, held_out: bool) -> tuple[Packed, list[Example]]:
        """Packs the training (or held-out) examples into rows; returns the rows, and the examples in the packing's order."""
        packed, kept = pack_examples(self.examples, held_out, self.encoder, self.context)
        if not kept:
            raise InputError(f"{self.name}: there are no {'held-out ' if held_out else ''}examples that could be packed.")
        return packed, kept


def source_of_run(folder: str) -> ExampleSet:
    """Returns the examples of a run's stage `sft`, with the chat template of its model, or of its recipe where there is no model yet."""
    run, stage = Storage(folder), Storage(folder).child("sft")
    section = RunReader(folder).description.get("recipe", {}).get("sft") or {}
    if not stage.exists(EXAMPLES_FILE):
        raise InputError(f"{folder}: the run has no examples of instruction tuning yet (run: {stage_command(folder, 'sft')}).")
    model, template = stage.child("model"), "keep"
    if not model.exists("config.json"):
        model = Storage(section["model"]) if section.get("model") else run.child("pretrain/model")
        template = section.get("template", "keep")
    dropped = [Example(**row) for row in read_table(stage, DROPPED_FILE).to_pylist()] if stage.exists(DROPPED_FILE) else []
    examples = [Example(**row) for row in read_table(stage, EXAMPLES_FILE).to_pylist()]
    here = local_model(model.root)
    context = row_length(section.get("context"), read_architecture(here).context, "sft.context")
    return ExampleSet(folder, load_chat(Storage(str(here)), template), context, examples, dropped)


def source_of_files(model: str, files: Sequence[str], template: str) -> ExampleSet:
    """Returns the examples of files as a model would learn them."""
    here = local_model(model)
    context = row_length(None, read_architecture(here).context, "sft.context")
    return ExampleSet(", ".join(files), load_chat(Storage(str(here)), template), context, read_examples(files, 0.0), None)


def choose(
    source: ExampleSet, count: int, identifier: str | None = None, row: int | None = None, held_out: bool = False, dropped: bool = False
) -> list[ShownExample]:
    """Returns at most `count` examples: by an id or its beginning, by number (from 1), the held-out ones, the dropped ones, or the
    first."""
    found: Iterable[ShownExample]
    if row is not None:
        if row > len(source.examples):
            raise InputError(f"{source.name}: has no example {row:,}; there are {len(source.examples):,}.")
        found = [source.show(source.examples[row - 1])]
    elif identifier is not None:
        known = [*source.examples, *(source.dropped or [])]
        exact = [example for example in known if example.id == identifier]
        found = map(source.show, exact or [example for example in known if example.id.startswith(identifier)])
    elif dropped:
        found = (shown for shown in map(source.show, source.examples if source.dropped is None else source.dropped) if shown.example.failed)
    else:
        found = (source.show(example) for example in source.examples if example.held_out is held_out)
    chosen = list(islice(found, count))
    if not chosen:
        what = f"example with the id {identifier!r}" if identifier is not None else "dropped example" if dropped else "such example"
        raise InputError(f"{source.name}: there is no {what}.")
    return chosen


def choose_row(source: ExampleSet, row: int, held_out: bool) -> tuple[list[ShownExample], int, int]:
    """Returns the examples in a packed row (from 1), in order; the number of rows; and the row's places of padding."""
    packed, examples = source.pack(held_out)
    if row > packed.n_rows:
        raise InputError(f"{source.name}: has no packed row {row:,}; there are {packed.n_rows:,}.")
    shown, begin = [], 0
    for number in packed.members[row - 1]:
        shown.append(source.show(examples[number], begin))
        begin += len(shown[-1].tokens) - shown[-1].count(CUT) - 1
    return shown, packed.n_rows, source.context - begin


def _tokens(kept: bool, encoded: Encoded, encoder: ChatEncoder, context: int) -> list[Token]:
    """Returns an example's tokens with their states. The first token of a sequence is never a target, and a row of `context` places has one
    more token as its last target."""
    special = {number: name for name, number in encoder.special_ids.items()}
    tokens = []
    for place, (number, learned) in enumerate(zip(encoded.ids.tolist(), encoded.mask.tolist(), strict=True)):
        text = special.get(number) or encoder.tokenizer.decode([number], skip_special_tokens=False)
        written = encoder.tokenizer.id_to_token(number) or "" if "\ufffd" in text else text
        state = CUT if place > context else LEARNED if kept and learned and place else GIVEN
        tokens.append(Token(number, written, number in special, state))
    return tokens


def _stretches(tokens: Sequence[Token], encoder: ChatEncoder) -> list[TokenSpan]:
    stretches = []
    for (_, state), group in groupby(enumerate(tokens), key=lambda item: (item[0] if item[1].special else -1, item[1].state)):
        members = [token for _, token in group]
        text = encoder.tokenizer.decode([token.id for token in members], skip_special_tokens=False)
        stretches.append(TokenSpan(members[0].text if members[0].special else text, members[0].special, state))
    return stretches


# ---- on a terminal -----------------------------------------------------------------------------------
#
# In colours, or with marks where the terminal has no colours.

STYLES = {LEARNED: "bold green", GIVEN: "", CUT: "red strike"}
SPECIAL = " reverse"
MARKS = {LEARNED: ("{+", "+}"), GIVEN: ("", ""), CUT: ("[-", "-]")}
MEANINGS = {LEARNED: "learned", GIVEN: "given, not learned", CUT: "cut off, longer than the context"}
_LOOKALIKE = re.compile(r"<(?=[|｜])")


def show(shown: list[ShownExample], head: list[str], console: Console, tokens: bool = False) -> None:
    """Prints a legend, the lines of `head`, and each example; with `tokens` also a line for each token."""
    coloured = console.color_system is not None and not console.no_color
    console.print(_legend(coloured))
    for line in head:
        console.print(Text(safe_line(line, 400)))
    for one in shown:
        console.print()
        console.print(Text(safe_line(one.example.id, 200), style="bold"), Text(_counts(one)))
        if failed := ", ".join(one.example.failed):
            note = f" ({safe_line(one.example.note, 400)})" if one.example.note else ""
            console.print(Text(f"dropped: {failed}{note}", style="yellow"))
        if one.stretches:
            text = _coloured(one.stretches) if coloured else _marked(one.stretches)
            if text.plain.endswith("\n"):
                text.right_crop(1)
            console.print(text)
        if tokens:
            for place, token in enumerate(one.tokens):
                line = f"{place:5d} {token.id:7d}  {'special' if token.special else '':7s}  {token.state:7s}  {quoted(token.text)}"
                console.print(Text(line, style=STYLES[token.state] if coloured else ""))


def head(source: ExampleSet, shown: list[ShownExample]) -> str:
    """Returns the line above the examples."""
    total, held_out = len(source.examples), sum(example.held_out for example in source.examples)
    if source.dropped is None:
        counts = f"{total:,} rows"
    else:
        counts = f"{total - held_out:,} examples to learn from, {held_out:,} held out, {len(source.dropped):,} dropped"
    return f"{len(shown):,} of {source.name}: {counts}; context {source.context:,}"


def packed_head(row: int, rows: int, padding: int, source: ExampleSet, shown: list[ShownExample], held_out: bool) -> str:
    """Returns the line above a packed row."""
    of = f"Row {row:,} of {rows:,}{' held-out ones' if held_out else ''}"
    examples = "1 example" if len(shown) == 1 else f"{len(shown):,} examples that do not see each other"
    return f"{of}: {source.context:,} places, {examples}, {padding:,} places of padding"


def _counts(one: ShownExample) -> str:
    learned, cut = one.count(LEARNED), one.count(CUT)
    parts = [one.example.kind, "held out" if one.example.held_out else "", f"{len(one.tokens):,} tokens", f"{learned:,} learned"]
    parts.append(f"{cut:,} cut off" if cut else "")
    if one.begin is not None:
        parts.append(f"places {one.begin:,} to {one.begin + len(one.tokens) - cut - 2:,}")
    return ", ".join(filter(None, parts))


def _legend(coloured: bool) -> Text:
    legend = Text()
    for state, meaning in MEANINGS.items():
        before, after = ("", "") if coloured else MARKS[state]
        legend.append(f"{before}{meaning}{after}", style=STYLES[state] if coloured else "").append("  ")
    return legend.append("<|special token|>", style=SPECIAL if coloured else "")


def _coloured(stretches: list[TokenSpan]) -> Text:
    text = Text()
    for stretch in stretches:
        text.append(safe_text(stretch.text), style=STYLES[stretch.state] + (SPECIAL if stretch.special else ""))
    return text


def _marked(stretches: list[TokenSpan]) -> Text:
    """Returns text with marks as in `git diff --word-diff`. Text that only looks like a special token gets a backslash."""
    parts, state = [], GIVEN
    for stretch in stretches:
        if stretch.state != state:
            parts += [MARKS[state][1], MARKS[stretch.state][0]]
            state = stretch.state
        text = safe_text(stretch.text)
        parts.append(text if stretch.special else _LOOKALIKE.sub(r"<\\", text))
    return Text("".join([*parts, MARKS[state][1]]))
