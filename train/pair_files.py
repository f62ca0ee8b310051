"""Preference pairs from the user's files."""

from collections.abc import Sequence
from typing import Any

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.safe import safe_line
from corpusmill.train import tasks
from corpusmill.train.conversation import assistant_turn, first_question, read_instruction, read_messages, read_text, user_turn
from corpusmill.train.preference_data import Pair
from corpusmill.train.records import BadRow, Row, read_rows
from corpusmill.train.template import Message


def read_pairs(files: Sequence[str], held_out: float, singles: bool = False) -> list[Pair]:
    """Every row of the user's files, in their order. Whether one is held out depends on its first question. With `singles` a row
    may also be a completion with a label: a pair without its other side.

    A row that is no pair comes with the reason. Raises InputError where a whole file has no pair.
    """
    pairs = []
    for path in files:
        rows = [_pair(place, row, held_out, singles) for place, row in read_rows(path)]
        bad = [row.bad for row in rows if row.bad]
        if len(bad) == len(rows):
            raise InputError(str(bad[0]) if len(rows) == 1 else f"{path}: none of its {len(rows)} rows is a pair; {bad[0]}")
        pairs += rows
    return pairs


def _pair(place: str, row: Row | BadRow, held_out: float, singles: bool) -> Pair:
    try:
        if isinstance(row, BadRow):
            raise row
        read = single_messages if singles and row.get("completion") is not None else pair_messages
        prompt, chosen, rejected = read(place, row)
    except BadRow as bad:
        rule = "no_pair" if bad.rule == "no_example" else bad.rule
        return Pair(place, None, "file", False, [], [], [], bad=BadRow(str(bad), rule))
    return Pair(place, None, "file", tasks.is_held_out(first_question(prompt), held_out), prompt, chosen, rejected)


def pair_messages(place: str, row: Row) -> tuple[list[Message], list[Message], list[Message]]:
    """Prompt, chosen and rejected of a row. The prompt is `prompt` (text or messages) or `instruction` with `input`, then
    the turns that `chosen` and `rejected` both begin with, which may have it in them. Raises BadRow naming `place`."""
    missing = [key for key in ("chosen", "rejected") if row.get(key) is None]
    if missing:
        raise BadRow(
            f"{place}: no pair: `{missing[0]}` is missing (expected `prompt`, `chosen` and `rejected`); "
            f"it has {safe_line(', '.join(sorted(row)), 200) or 'nothing'}."
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
        raise BadRow(f"{place}: `label` is {'missing' if label is None else f'a {type(label).__name__}'}, expected true or false.")
    prompt = _prompt(place, row, [])
    return (prompt, completion, []) if label else (prompt, [], completion)


def _completion(place: str, row: Row, key: str) -> list[Message]:
    value: Any = row[key]
    return read_messages(f"{place}, {key}", value) if isinstance(value, list) else [assistant_turn(read_text(place, row, key))]


def _prompt(place: str, row: Row, shared: list[Message]) -> list[Message]:
    given = _given(place, row)
    if not given and not shared:
        raise BadRow(f"{place}: no pair: it has neither `prompt` nor `instruction`, and the completions share no first message.")
    within = any(shared[begin : begin + len(given)] == given for begin in range(len(shared)))
    return shared if within else given + shared


def _given(place: str, row: Row) -> list[Message]:
    if isinstance(row.get("prompt"), list):
        return read_messages(f"{place}, prompt", row["prompt"])
    if row.get("prompt") is not None:
        return [user_turn(read_text(place, row, "prompt"))]
    if row.get("instruction") is not None:
        return [user_turn(read_instruction(place, row))]
    return []
