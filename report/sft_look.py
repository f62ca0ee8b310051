"""`corpusmill sft inspect`: shows which tokens of each example instruction tuning learns."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
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
from corpusmill.train.options import row_length
from corpusmill.train.sft import Example, prepare
from corpusmill.train.template import ChatEncoder, load_chat
from corpusmill.train.tuning import DROPPED_FILE, EXAMPLES_FILE

# ---- examples and their tokens -----------------------------------------------------------------------

LEARNED, GIVEN, CUT = "learned", "given", "cut"


@dataclass(frozen=True)
class Piece:
    """A token of an example, or consecutive ones of one state (`id` -1). A token that is not whole characters has the tokenizer's internal
    spelling as its `text`."""

    text: str
    special: bool
    state: str
    id: int = -1


@dataclass(frozen=True)
class ShownExample:
    """An example and the state of each of its tokens. `stretches`: its text, in pieces."""

    example: Example
    tokens: list[Piece]
    stretches: list[Piece]

    def count(self, state: str) -> int:
        return sum(token.state == state for token in self.tokens)


@dataclass(frozen=True)
class ExampleSet:
    """The examples of a run, with their encoder. `dropped`: those that can't be learned."""

    name: str
    encoder: ChatEncoder
    context: int
    examples: list[Example]
    dropped: list[Example]

    def show(self, example: Example) -> ShownExample:
        """The first token of a sequence is never a target, and a row of `context` places has one more token as its last target."""
        prepared = prepare(example, self.encoder, self.context)
        tokenizer, special = self.encoder.tokenizer, {number: name for name, number in self.encoder.special_ids.items()}
        tokens = []
        for place, (number, learned) in enumerate(zip(prepared.encoded.ids.tolist(), prepared.encoded.mask.tolist(), strict=True)):
            text = special.get(number) or tokenizer.decode([number], skip_special_tokens=False)
            written = tokenizer.id_to_token(number) or "" if "\ufffd" in text else text
            state = CUT if place > self.context else LEARNED if prepared.tokens is not None and learned and place else GIVEN
            tokens.append(Piece(written, number in special, state, number))
        stretches = []
        for _, group in groupby(enumerate(tokens), key=lambda item: (item[0] if item[1].special else -1, item[1].state)):
            members = [token for _, token in group]
            text = tokenizer.decode([token.id for token in members], skip_special_tokens=False)
            stretches.append(replace(members[0], text=members[0].text if members[0].special else text, id=-1))
        return ShownExample(prepared, tokens, stretches)


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


def choose(
    source: ExampleSet, count: int, identifier: str | None = None, held_out: bool = False, dropped: bool = False
) -> list[ShownExample]:
    """Returns at most `count` examples: by an id or its beginning, the held-out ones, the dropped ones, or the first."""
    found: Iterable[ShownExample]
    if identifier is not None:
        known = [*source.examples, *source.dropped]
        exact = [example for example in known if example.id == identifier]
        found = map(source.show, exact or [example for example in known if example.id.startswith(identifier)])
    elif dropped:
        found = map(source.show, source.dropped)
    else:
        found = (source.show(example) for example in source.examples if example.held_out is held_out)
    chosen = list(islice(found, count))
    if not chosen:
        what = f"example with the id {identifier!r}" if identifier is not None else "dropped example" if dropped else "such example"
        raise InputError(f"{source.name}: there is no {what}.")
    return chosen


# ---- on a terminal -----------------------------------------------------------------------------------
#
# In colours, or with marks where the terminal has no colours.

STYLES = {LEARNED: "bold green", GIVEN: "", CUT: "red strike"}
SPECIAL = " reverse"
MARKS = {LEARNED: ("{+", "+}"), GIVEN: ("", ""), CUT: ("[-", "-]")}
MEANINGS = {LEARNED: "learned", GIVEN: "given, not learned", CUT: "cut off, longer than the context"}
_LOOKALIKE = re.compile(r"<(?=[|｜])")


def show(source: ExampleSet, shown: list[ShownExample], console: Console, tokens: bool = False) -> None:
    """Prints a legend, how many examples there are, and each of the `shown` ones; with `tokens` also a line for each token."""
    coloured = console.color_system is not None and not console.no_color
    console.print(_legend(coloured))
    total, held_out = len(source.examples), sum(example.held_out for example in source.examples)
    counts = f"{total - held_out:,} examples to learn from, {held_out:,} held out, {len(source.dropped):,} dropped"
    console.print(Text(safe_line(f"{len(shown):,} of {source.name}: {counts}; context {source.context:,}", 400)))
    for one in shown:
        example, cut = one.example, one.count(CUT)
        parts = [example.kind, "held out" if example.held_out else "", f"{len(one.tokens):,} tokens", f"{one.count(LEARNED):,} learned"]
        parts.append(f"{cut:,} cut off" if cut else "")
        console.print()
        console.print(Text(safe_line(example.id, 200), style="bold"), Text(", ".join(filter(None, parts))))
        if failed := ", ".join(example.failed):
            note = f" ({safe_line(example.note, 400)})" if example.note else ""
            console.print(Text(f"dropped: {failed}{note}", style="yellow"))
        if one.stretches:
            text = _coloured(one.stretches) if coloured else _marked(one.stretches)
            if text.plain.endswith("\n"):
                text.right_crop(1)
            console.print(text)
        for place, token in enumerate(one.tokens if tokens else ()):
            line = f"{place:5d} {token.id:7d}  {'special' if token.special else '':7s}  {token.state:7s}  {quoted(token.text)}"
            console.print(Text(line, style=STYLES[token.state] if coloured else ""))


def _legend(coloured: bool) -> Text:
    legend = Text()
    for state, meaning in MEANINGS.items():
        before, after = ("", "") if coloured else MARKS[state]
        legend.append(f"{before}{meaning}{after}", style=STYLES[state] if coloured else "").append("  ")
    return legend.append("<|special token|>", style=SPECIAL if coloured else "")


def _coloured(stretches: list[Piece]) -> Text:
    text = Text()
    for stretch in stretches:
        text.append(safe_text(stretch.text), style=STYLES[stretch.state] + (SPECIAL if stretch.special else ""))
    return text


def _marked(stretches: list[Piece]) -> Text:
    """Returns text with marks as in `git diff --word-diff`. Text that only looks like a special token gets a backslash."""
    parts, state = [], GIVEN
    for stretch in stretches:
        if stretch.state != state:
            parts += [MARKS[state][1], MARKS[stretch.state][0]]
            state = stretch.state
        text = safe_text(stretch.text)
        parts.append(text if stretch.special else _LOOKALIKE.sub(r"<\\", text))
    return Text("".join([*parts, MARKS[state][1]]))
