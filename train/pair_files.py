"""Preference pairs from the user's files."""

from collections.abc import Sequence
from typing import Any

from corpusmill.pipeline.errors import InputError
from corpusmill.train import tasks
from corpusmill.train.conversation import assistant_turn, read_instruction, read_messages, read_text, user_turn
from corpusmill.train.preference_data import Pair
from corpusmill.train.records import Row, read_records
from corpusmill.train.template import Message


def read_pairs(files: Sequence[str], held_out: float) -> list[Pair]:
    """Every pair of the user's files, in their order. Whether one is held out depends on its first message."""
    pairs = []
    for path in files:
        for place, row in read_records(path):
            prompt, chosen, rejected = pair_messages(place, row)
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
