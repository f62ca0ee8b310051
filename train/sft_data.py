"""Examples for instruction tuning: from the user's files, or from tasks on the run's own documents."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.safe import safe_line
from corpusmill.pipeline.schemas import REPORT, with_columns
from corpusmill.train import tasks
from corpusmill.train.conversation import assistant_turn, first_question, read_instruction, read_messages, read_text, user_turn
from corpusmill.train.records import BadRow, Row, read_rows
from corpusmill.train.template import ChatEncoder, Encoded, Message, TemplateRefusal

MESSAGES = pa.list_(pa.struct([pa.field("role", pa.string()), pa.field("content", pa.string())]))

#: What `sft/data/examples.parquet` holds: each example and the document (or file and line) it came from.
EXAMPLES = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("url", pa.string()),
        pa.field("kind", pa.string(), nullable=False),  # title, continuation, heading; file where the user gave it
        pa.field("held_out", pa.bool_(), nullable=False),  # only measured, never learned
        pa.field("messages", MESSAGES, nullable=False),
    ]
)

#: What `sft/dropped/examples.parquet` holds: the same of the examples that can't be learned from, and why. A row that is no example
#: has no messages.
DROPPED = with_columns(EXAMPLES, [pa.field("failed", pa.list_(pa.string())), pa.field("note", pa.string())])

REPORT_COLUMNS = with_columns(
    REPORT,
    [
        pa.field("kind", pa.string()),
        pa.field("held_out", pa.bool_()),
        pa.field("n_tokens", pa.int64()),  # of the whole conversation, before truncation
        pa.field("n_target_tokens", pa.int64()),  # that are learned, after truncation
        pa.field("truncated", pa.bool_()),
        pa.field("note", pa.string()),  # why it was dropped, where a sentence says more than the rule's name
    ],
)


@dataclass(frozen=True)
class Example:
    """`bad` says what is wrong with a row of a file that is no example; it then has no messages."""

    id: str
    url: str | None
    kind: str
    held_out: bool
    messages: list[Message]
    bad: BadRow | None = None


@dataclass(frozen=True)
class Prepared:
    """An example as tokens. `failed` says why it is dropped; `tokens` are then None. `encoded` is the whole, before it is cut."""

    example: Example
    tokens: Encoded | None
    failed: list[str]
    encoded: Encoded
    truncated: bool
    note: str | None = None

    @property
    def n_tokens(self) -> int:
        return len(self.encoded.ids)

    @property
    def n_targets(self) -> int:
        return int(self.tokens.mask[1:].sum()) if self.tokens else 0


def build_examples(
    tables: Iterable[pa.Table], salt: str, limit: int, per_document: int, max_chars: int, held_out: Callable[[str], bool]
) -> list[Example]:
    """At most `limit` tasks, and `per_document` of one document, in the order of their hashes."""
    built = tasks.choose(tables, salt, limit, per_document, lambda source: tasks.instructions(source, max_chars))
    return [
        Example(task.source.id, task.source.url, task.kind, held_out(task.source.id), [user_turn(task.prompt), assistant_turn(task.answer)])
        for task in built
    ]


def read_examples(files: Sequence[str], held_out: float) -> list[Example]:
    """Every row of the user's files, in their order. Whether one is held out depends on its first question.

    A row that is no example comes with the reason. Raises InputError where a whole file has no example.
    """
    examples = []
    for path in files:
        rows = [_example(place, row, held_out) for place, row in read_rows(path)]
        bad = [row.bad for row in rows if row.bad]
        if len(bad) == len(rows):
            raise InputError(str(bad[0]) if len(rows) == 1 else f"{path}: none of its {len(rows)} rows is an example; {bad[0]}")
        examples += rows
    return examples


def _example(place: str, row: Row | BadRow, held_out: float) -> Example:
    try:
        if isinstance(row, BadRow):
            raise row
        messages = example_messages(place, row)
    except BadRow as bad:
        return Example(place, None, "file", False, [], bad)
    return Example(place, None, "file", tasks.is_held_out(first_question(messages), held_out), messages)


def example_messages(place: str, row: Row) -> list[Message]:
    """The conversation of a row in any of the usual formats. Raises BadRow naming `place`."""
    for key in ("messages", "conversations", "conversation"):
        if row.get(key) is not None:
            return read_messages(place, row[key])
    if row.get("instruction") is not None and row.get("output") is not None:
        return [user_turn(read_instruction(place, row)), assistant_turn(read_text(place, row, "output"))]
    if row.get("prompt") is not None and row.get("completion") is not None:
        return _turns(place, row, "prompt", user_turn) + _turns(place, row, "completion", assistant_turn)
    raise BadRow(
        f"{place}: no example that can be learned from: expected `messages` (or `conversations`), `instruction` and `output`, or "
        f"`prompt` and `completion`; it has {safe_line(', '.join(sorted(row)), 200) or 'nothing'}."
    )


def _turns(place: str, row: Row, key: str, turn: Callable[[str], Message]) -> list[Message]:
    """A field that is text, one turn, or messages."""
    return read_messages(place, row[key]) if isinstance(row[key], list) else [turn(read_text(place, row, key))]


def prepare(example: Example, encoder: ChatEncoder, context: int) -> Prepared:
    """Tokenises an example and cuts it to what a row of `context` places can hold. Why one is dropped:

    what BadRow calls it    the row is no example
    `template_refused`      the template does not take it
    `no_answer`             nothing in it is the assistant's
    `empty_answer`          an assistant's turn says nothing
    `too_long`              the targets lie behind the model's context
    `nothing_to_learn`      there is no target
    """
    none = Encoded(np.zeros(0, np.int32), np.zeros(0, np.bool_))
    if example.bad:
        return Prepared(example, None, [example.bad.rule], none, False, str(example.bad))
    try:
        encoded = encoder.encode(example.messages)
    except TemplateRefusal as refusal:
        return Prepared(example, None, ["template_refused"], none, False, str(refusal))
    truncated = len(encoded.ids) > context + 1
    tokens = Encoded(encoded.ids[: context + 1], encoded.mask[: context + 1])
    answers = [message["content"] for message in example.messages if message["role"] == "assistant"]
    failed = ["empty_answer"] if any(not answer.strip() for answer in answers) else [] if answers else ["no_answer"]
    if answers and not failed and not tokens.mask[1:].any():
        failed = ["too_long" if truncated and encoded.mask[1:].any() else "nothing_to_learn"]
    return Prepared(example, None if failed else tokens, failed, encoded, truncated)


def examples_table(examples: Sequence[Example]) -> pa.Table:
    columns = {name: [getattr(example, name) for example in examples] for name in EXAMPLES.names}
    return pa.table(columns, EXAMPLES)


def dropped_table(prepared: Sequence[Prepared]) -> pa.Table:
    dropped = [p for p in prepared if p.failed]
    columns = {name: [getattr(p.example, name) for p in dropped] for name in EXAMPLES.names}
    return pa.table({**columns, "failed": [p.failed for p in dropped], "note": [p.note for p in dropped]}, DROPPED)


def report_table(prepared: Sequence[Prepared]) -> pa.Table:
    """One row for every example: REPORT's columns and what was counted."""
    chars = [sum(len(m["content"]) for m in p.example.messages) for p in prepared]
    return pa.table(
        {
            "id": [p.example.id for p in prepared],
            "url": [p.example.url for p in prepared],
            "kept": [not p.failed for p in prepared],
            "failed": [p.failed for p in prepared],
            "chars_in": chars,
            "chars_out": [0 if p.failed else count for p, count in zip(prepared, chars, strict=True)],
            "kind": [p.example.kind for p in prepared],
            "held_out": [p.example.held_out for p in prepared],
            "n_tokens": [p.n_tokens for p in prepared],
            "n_target_tokens": [p.n_targets for p in prepared],
            "truncated": [p.truncated for p in prepared],
            "note": [p.note for p in prepared],
        },
        REPORT_COLUMNS,
    )
