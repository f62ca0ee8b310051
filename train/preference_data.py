"""Pairs of a preferred and a rejected completion: from the user's files, or from the run's own documents."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.schemas import REPORT, with_columns
from corpusmill.train import tasks
from corpusmill.train.conversation import assistant_turn, read_instruction, read_messages, read_text, user_turn
from corpusmill.train.records import Row, read_records
from corpusmill.train.sft_data import MESSAGES
from corpusmill.train.template import ChatEncoder, Encoded, Message

#: What `align/data/pairs.parquet` holds: each pair and the document (or file and line) it came from.
PAIRS = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("url", pa.string()),
        pa.field("kind", pa.string(), nullable=False),  # what was rejected: other, repeated, shuffled; file where the user gave it
        pa.field("held_out", pa.bool_(), nullable=False),
        pa.field("prompt", MESSAGES, nullable=False),
        pa.field("chosen", MESSAGES, nullable=False),
        pa.field("rejected", MESSAGES, nullable=False),
    ]
)

REPORT_COLUMNS = with_columns(
    REPORT,
    [
        pa.field("kind", pa.string()),
        pa.field("held_out", pa.bool_()),
        pa.field("n_chosen_tokens", pa.int64()),  # of the completion alone
        pa.field("n_rejected_tokens", pa.int64()),
    ],
)


@dataclass(frozen=True)
class Pair:
    id: str
    url: str | None
    kind: str
    held_out: bool
    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]


NOTHING = Encoded(np.zeros(0, np.int32), np.zeros(0, np.bool_))


@dataclass(frozen=True)
class PreparedPair:
    """A pair as tokens: prompt and completion together, the mask on the completion. `failed` says why it is dropped.

    A side is NOTHING where a row of the user's has but one completion.
    """

    pair: Pair
    chosen: Encoded
    rejected: Encoded
    failed: list[str]


# ---- from documents ---------------------------------------------------------------------------------


def build_pairs(
    tables: Iterable[pa.Table], salt: str, limit: int, per_document: int, max_chars: int, held_out: Callable[[str], bool]
) -> list[Pair]:
    """At most `limit` pairs, and `per_document` of one document: a true continuation against a false one of its length.

    False is another document's continuation (of the next one in the order of hashes), or the true one with its
    first words repeated or its words shuffled; which of them, a hash decides.
    """
    built = tasks.choose(tables, salt, limit, per_document, lambda source: tasks.continuation_tasks(source, max_chars))
    pairs = []
    for place, task in enumerate(built):
        kind, rejected = _rejected(task, _other(built, place))
        turns = [user_turn(task.prompt)], [assistant_turn(task.answer)], [assistant_turn(rejected)]
        pairs.append(Pair(task.source.id, task.source.url, kind, held_out(task.source.id), *turns))
    return pairs


def _other(built: Sequence[tasks.Task], place: int) -> str:
    """The answer of the next task of another document; its own where there is no other."""
    following = (built[(place + step) % len(built)] for step in range(1, len(built)))
    return next((task.answer for task in following if task.source.id != built[place].source.id), built[place].answer)


def _rejected(task: tasks.Task, other: str) -> tuple[str, str]:
    choice = tasks.hash_of("rejected", task.source.id + task.prompt) % 4
    if choice < 2:
        return "other", tasks.cut(other, max(len(task.answer), 1))
    if choice == 2:
        return "repeated", _repeat(task.answer)
    return "shuffled", _shuffle(task.answer, task.source.id)


def _repeat(text: str) -> str:
    """The first words over and over, in the length of the text: how a model that is stuck writes."""
    first = text[: max(8, len(text) // 6)]
    first = (first[: first.rfind(" ")] if " " in first else first) + " "
    return (first * (len(text) // len(first) + 1))[: len(text)]


def _shuffle(text: str, identifier: str) -> str:
    """The words in an order that their hashes decide; the characters where the script has no spaces."""
    words = text.split()
    units, glue = (words, " ") if len(words) > 8 else (list(text), "")
    order = sorted(range(len(units)), key=lambda place: tasks.hash_of(identifier, f"{place} {units[place]}"))
    return glue.join(units[place] for place in order)


# ---- from files -------------------------------------------------------------------------------------


def read_pairs(files: Sequence[str], held_out: float, singles: bool = False) -> list[Pair]:
    """Every pair of the user's files, in their order. Whether one is held out depends on its first message. With `singles` a row
    may also be a completion with a label: a pair without its other side."""
    pairs = []
    for path in files:
        for place, row in read_records(path):
            read = single_messages if singles and row.get("completion") is not None else pair_messages
            prompt, chosen, rejected = read(place, row)
            pairs.append(Pair(place, None, "file", tasks.is_held_out(prompt[0]["content"], held_out), prompt, chosen, rejected))
    return pairs


def pair_messages(place: str, row: Row) -> tuple[list[Message], list[Message], list[Message]]:
    """Prompt, chosen and rejected of a row. The prompt is `prompt` (text or messages), `instruction` with `input`, or
    what `chosen` and `rejected` begin with where they are whole conversations. Raises InputError naming `place`."""
    missing = [key for key in ("chosen", "rejected") if row.get(key) is None]
    if missing:
        raise InputError(
            f"{place}: no pair: `{missing[0]}` is missing (expected `prompt`, `chosen` and `rejected`); "
            f"it has {', '.join(sorted(row)) or 'nothing'}."
        )
    chosen, rejected = (_completion(place, row, key) for key in ("chosen", "rejected"))
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    prompt = _prompt(place, row, chosen[:shared])
    return prompt, chosen[shared:], rejected[shared:]


def single_messages(place: str, row: Row) -> tuple[list[Message], list[Message], list[Message]]:
    """The same of a row with one `completion`: it is chosen where its `label` is true, else rejected; the other side is empty."""
    completion, label = _completion(place, row, "completion"), row.get("label")
    if not isinstance(label, bool):
        raise InputError(f"{place}: `label` is {'missing' if label is None else f'a {type(label).__name__}'}, expected true or false.")
    prompt = _prompt(place, row, [])
    return (prompt, completion, []) if label else (prompt, [], completion)


def _completion(place: str, row: Row, key: str) -> list[Message]:
    value: Any = row[key]
    return read_messages(f"{place}, {key}", value) if isinstance(value, list) else [assistant_turn(read_text(place, row, key))]


def _prompt(place: str, row: Row, shared: list[Message]) -> list[Message]:
    if shared:
        return shared
    if isinstance(row.get("prompt"), list):
        return read_messages(f"{place}, prompt", row["prompt"])
    if row.get("prompt") is not None:
        return [user_turn(read_text(place, row, "prompt"))]
    if row.get("instruction") is not None:
        return [user_turn(read_instruction(place, row))]
    raise InputError(f"{place}: no pair: it has neither `prompt` nor `instruction`, and the completions share no first message.")


# ---- tokens and tables ------------------------------------------------------------------------------


def prepare_pair(pair: Pair, encoder: ChatEncoder, context: int) -> PreparedPair:
    """Tokenises a pair. It is dropped as `equal`, as `empty` (a completion that says nothing) or as `too_long` (a
    side that does not fit into `context` places whole: half a completion is not what was preferred)."""
    chosen, rejected = (_encode(pair, side, encoder) if side else NOTHING for side in (pair.chosen, pair.rejected))
    given = [(side, tokens) for side, tokens in ((pair.chosen, chosen), (pair.rejected, rejected)) if side]
    failed = []
    if np.array_equal(chosen.ids, rejected.ids):
        failed.append("equal")
    if not all(any(m["content"].strip() for m in side) for side, _ in given):
        failed.append("empty")
    if max(len(tokens.ids) for _, tokens in given) > context + 1:
        failed.append("too_long")
    if not all(tokens.mask.any() for _, tokens in given):
        failed.append("nothing_to_learn")
    return PreparedPair(pair, chosen, rejected, failed)


def _encode(pair: Pair, completion: list[Message], encoder: ChatEncoder) -> Encoded:
    prompt = encoder.encode(pair.prompt, add_generation_prompt=True)
    whole = encoder.encode([*pair.prompt, *completion])
    begin = len(prompt.ids)
    if not np.array_equal(whole.ids[:begin], prompt.ids):
        raise InputError(f"{encoder.template.name}: writes a prompt differently once it is answered, so completions can't be compared.")
    mask = whole.mask.copy()
    mask[:begin] = False
    return Encoded(whole.ids, mask)


def pairs_table(pairs: Sequence[Pair]) -> pa.Table:
    return pa.table({name: [getattr(pair, name) for pair in pairs] for name in PAIRS.names}, PAIRS)


def pairs_from_table(table: pa.Table) -> list[Pair]:
    return [Pair(**row) for row in table.to_pylist()]


def report_table(prepared: Sequence[PreparedPair]) -> pa.Table:
    """One row for every pair: REPORT's columns and what was counted."""
    chars = [sum(len(m["content"]) for m in (*p.pair.prompt, *p.pair.chosen, *p.pair.rejected)) for p in prepared]
    return pa.table(
        {
            "id": [p.pair.id for p in prepared],
            "url": [p.pair.url for p in prepared],
            "kept": [not p.failed for p in prepared],
            "failed": [p.failed for p in prepared],
            "chars_in": chars,
            "chars_out": [0 if p.failed else count for p, count in zip(prepared, chars, strict=True)],
            "kind": [p.pair.kind for p in prepared],
            "held_out": [p.pair.held_out for p in prepared],
            "n_chosen_tokens": [int(p.chosen.mask.sum()) for p in prepared],
            "n_rejected_tokens": [int(p.rejected.mask.sum()) for p in prepared],
        },
        REPORT_COLUMNS,
    )
