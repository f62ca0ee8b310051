"""Preference pairs from the user's files."""

from collections.abc import Sequence
from typing import Any

from corpusmill.pipeline.errors import InputError
from corpusmill.train import tasks
from corpusmill.train.conversation import assistant_turn, read_instruction, read_messages, read_text, user_turn
from corpusmill.train.preference_data import Pair
from corpusmill.train.records import Row, read_records
from corpusmill.train.template import Message


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
