"""Examples for instruction tuning: from the user's files, or from tasks on the run's own documents."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.schemas import REPORT, with_columns
from corpusmill.train import tasks
from corpusmill.train.conversation import assistant_turn, read_instruction, read_messages, read_text, user_turn
from corpusmill.train.records import Row, read_records
from corpusmill.train.template import ChatEncoder, Encoded, Message

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

REPORT_COLUMNS = with_columns(
    REPORT,
    [
        pa.field("kind", pa.string()),
        pa.field("held_out", pa.bool_()),
        pa.field("n_tokens", pa.int64()),  # of the whole conversation, before truncation
        pa.field("n_target_tokens", pa.int64()),  # that are learned, after truncation
        pa.field("truncated", pa.bool_()),
    ],
)


@dataclass(frozen=True)
class Example:
    id: str
    url: str | None
    kind: str
    held_out: bool
    messages: list[Message]


@dataclass(frozen=True)
class Prepared:
    """An example as tokens. `failed` says why it is dropped; `tokens` are then None."""

    example: Example
    tokens: Encoded | None
    failed: list[str]
    n_tokens: int
    truncated: bool

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
    """Every example of the user's files, in their order. Whether one is held out depends on its first message."""
    examples = []
    for path in files:
        for place, row in read_records(path):
            messages = example_messages(place, row)
            examples.append(Example(place, None, "file", tasks.is_held_out(messages[0]["content"], held_out), messages))
    return examples


def example_messages(place: str, row: Row) -> list[Message]:
    """The conversation of a row in any of the usual formats. Raises InputError naming `place`."""
    for key in ("messages", "conversations"):
        if row.get(key) is not None:
            return read_messages(place, row[key])
    if row.get("instruction") is not None and row.get("output") is not None:
        return [user_turn(read_instruction(place, row)), assistant_turn(read_text(place, row, "output"))]
    if row.get("prompt") is not None and row.get("completion") is not None:
        if isinstance(row["prompt"], list):
            return read_messages(place, row["prompt"]) + read_messages(place, row["completion"])
        return [user_turn(read_text(place, row, "prompt")), assistant_turn(read_text(place, row, "completion"))]
    raise InputError(
        f"{place}: no example that can be learned from: expected `messages` (or `conversations`), `instruction` and `output`, or "
        f"`prompt` and `completion`; it has {', '.join(sorted(row)) or 'nothing'}."
    )


def prepare(example: Example, encoder: ChatEncoder, context: int) -> Prepared:
    """Tokenises an example and cuts it to what a row of `context` places can hold.

    It is dropped as `empty_answer` where an assistant's turn says nothing, and as `nothing_to_learn` where no target
    is left: with `too_long` beside it where only the cut took the targets away.
    """
    encoded = encoder.encode(example.messages)
    truncated = len(encoded.ids) > context + 1
    tokens = Encoded(encoded.ids[: context + 1], encoded.mask[: context + 1])
    failed = []
    if any(m["role"] == "assistant" and not m["content"].strip() for m in example.messages):
        failed.append("empty_answer")
    if not tokens.mask[1:].any():
        failed.append("nothing_to_learn")
        if truncated and encoded.mask[1:].any():
            failed.append("too_long")
    return Prepared(example, None if failed else tokens, failed, len(encoded.ids), truncated)


def require_learnable(encoder: ChatEncoder) -> None:
    """Refuses a template that marks nothing of the assistant's turns, under which all examples would be empty."""
    if not encoder.encode([user_turn("a"), assistant_turn("b")]).mask.any():
        raise InputError(
            f"{encoder.template.name}: marks nothing that the assistant says, so nothing can be learned "
            "(put its content and end token between {% generation %} and {% endgeneration %})."
        )


def examples_table(examples: Sequence[Example]) -> pa.Table:
    columns = {name: [getattr(example, name) for example in examples] for name in EXAMPLES.names}
    return pa.table(columns, EXAMPLES)


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
        },
        REPORT_COLUMNS,
    )
