"""Reads the user's files: rows of JSONL, a JSON array or Parquet, as conversations, preferences and prompts.

A file that can't be read raises InputError. A row that can't be read becomes a `BadRow` with the reason; reading goes on.
"""

import hashlib
import io
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from corpusmill.pipeline.config import parse_json
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.safe import safe_line
from corpusmill.train.template import Message, assistant_turn, read_file

# ---- rows --------------------------------------------------------------------------------------------

UserRow = dict[str, Any]
#: Rows with their places: `FILE:LINE`, or `FILE, row N` (from 1) where a row is not a line.
Rows = Iterator[tuple[str, "UserRow | BadRow"]]

COMPRESSED = {".gz": "gzip", ".zst": "zstd"}


class BadRow(InputError):
    """A row that can't be used. The message names its place; `rule` is the name of the reason in reports, None if it has no layout."""

    def __init__(self, sentence: str, rule: str | None = None):
        super().__init__(sentence)
        self.rule = rule


#: What a row holds, with names: the messages of a conversation, or the prompt, the chosen and the rejected completion.
Read = list[tuple[str, tuple[list[Message], ...]]]
#: A reader of rows, in any layout. It raises BadRow, which names the place that it is given.
Layout = Callable[[str, UserRow], Read]


def read_rows(path: str) -> Rows:
    """Yields every row of a file.

    The name decides the format: `.jsonl` (or `.ndjson`), `.json` or `.parquet`, also with `.gz` or `.zst` appended. Raises InputError.
    """
    name, content = _file_content(path)
    given: Iterable[tuple[str, Any]]
    if name.endswith((".jsonl", ".ndjson")):
        given = ((f"{path}:{number}", line) for number, line in enumerate(io.BytesIO(content), 1) if line.strip())
    elif name.endswith((".json", ".parquet")):
        try:
            rows = _parse(path, content) if name.endswith(".json") else pq.read_table(io.BytesIO(content), use_threads=False).to_pylist()
        except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: not a readable Parquet file ({error}).") from error
        if not isinstance(rows, list):
            raise InputError(f"{path}: a .json file of examples is one array (a file with an example a line is named .jsonl).")
        given = ((f"{path}, row {number}", row) for number, row in enumerate(rows, 1))
    else:
        raise InputError(f"{path}: the name does not tell the format (expected .jsonl, .json or .parquet, perhaps with .gz or .zst).")
    for place, row in given:
        try:
            row = _parse(place, row) if isinstance(row, bytes) else row
        except BadRow as bad:
            yield place, bad
        else:
            named = isinstance(row, dict)
            yield place, row if named else BadRow(f"{place}: expected an object with named fields, not {type(row).__name__}.")


def read_layout(path: str, layout: Layout) -> Iterator[tuple[str, "tuple[list[Message], ...] | BadRow"]]:
    """Yields what `layout` finds in every row of a file, in order, with names; for a bad row its place and the reason."""
    for place, row in trees(read_rows(path)):
        try:
            if isinstance(row, BadRow):
                raise row
            yield from layout(place, row)
        except BadRow as reason:
            yield place, reason


def read_prompts(path: str) -> list[str]:
    """Returns all prompts of a file: `prompt` of its rows, or the lines of a text file without the empty ones. Raises InputError, which
    names file and line."""
    name, content = _file_content(path)
    if not name.endswith((".jsonl", ".ndjson", ".json", ".parquet")):
        try:
            return [line.removesuffix("\r") for line in content.decode("utf-8-sig").split("\n") if line.strip()]
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: byte {error.start} is not UTF-8.") from error
    found = []
    for place, row in read_rows(path):
        if isinstance(row, BadRow):
            raise row
        if "prompt" not in row:
            raise InputError(f"{place}: has no `prompt`.")
        found.append(_text(place, "prompt", row["prompt"]))
    return found


def file_ref(path: str) -> FileRef:
    """Returns a user's file as a task's input; its fingerprint is the sha256 of its content."""
    content = read_file(path)
    return FileRef(path, hashlib.sha256(content).hexdigest(), len(content))


def _file_content(path: str) -> tuple[str, bytes]:
    """Returns a file's name without the ending of its compression, and what it holds."""
    content, ending = read_file(path), next(filter(path.endswith, COMPRESSED), "")
    if ending:
        try:
            content = pa.CompressedInputStream(pa.BufferReader(content), COMPRESSED[ending]).read()  # all members, all frames
        except OSError as error:
            raise InputError(f"{path}: not a whole {COMPRESSED[ending]} file ({error}).") from error
    if not content.strip():
        raise InputError(f"{path}: the file is empty.")
    return path.removesuffix(ending), content


def _parse(place: str, content: bytes) -> Any:
    try:
        return parse_json(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise BadRow(f"{place}: byte {error.start} is not UTF-8.", "invalid_utf8") from error
    except ValueError as error:  # also a number of thousands of digits
        raise BadRow(f"{place}: not JSON that can be read ({error}).", "not_json") from error


# ---- messages ----------------------------------------------------------------------------------------
#
# Turns may come in any order, even two user turns in a row, or an assistant that begins. Conversations with tools are refused: there is no
# rule to write their turns as text, and an answer that depends on a tool can't be learned without it.

_ROLES = {
    "system": "system", "developer": "system", "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant", "bot": "assistant",
}  # fmt: skip
_TOOLS = {"tool", "function", "ipython", "function_call", "function_response", "observation", "tool_call", "tool_response"}


def first_question(messages: Sequence[Message]) -> str:
    """Returns the user's first turn, or else the first turn. Its hash decides whether an example is held out, so equal questions are on one
    side of the split, and a system message that all conversations share has no effect."""
    return next((message["content"] for message in messages if message["role"] == "user"), messages[0]["content"])


def _messages(place: str, value: Any) -> list[Message]:
    """Reads messages with the names of OpenAI (`role`, `content`), ShareGPT (`from`, `value`) or OpenAssistant (`role`, `text`)."""
    if not isinstance(value, list) or not value:
        raise BadRow(f"{place}: expected a list of messages with `role` and `content`.")
    return [_message(f"{place}, message {number}", item) for number, item in enumerate(value, 1)]


def _message(place: str, item: Any) -> Message:
    if not isinstance(item, dict):
        raise BadRow(f"{place}: {_kind(item)}, expected an object with `role` and `content`.")
    names = ("from", "value") if item.get("from") is not None else ("role", "text" if "text" in item else "content")
    role, content = item.get(names[0]), item.get(names[1])
    name = role if isinstance(role, str) else ""
    if name in _TOOLS or item.get("tool_calls") or item.get("function_call"):
        raise BadRow(f"{place}: a turn of a tool or a call of one, which can't be learned from here.", "tool_turn")
    if name not in _ROLES:
        raise BadRow(f"{place}: the role {safe_line(repr(role), 60)} is not known (expected one of {', '.join(_ROLES)}).", "unknown_role")
    return {"role": _ROLES[name], "content": _text(place, names[1], content)}


def _turns(place: str, row: UserRow, key: str, role: str) -> list[Message]:
    """Reads a field with a list of messages; where a text is a turn of this `role` ("": there is none), also with one message, a text, or a
    transcript as Anthropic writes them (https://github.com/anthropics/hh-rlhf)."""
    value = row[key]
    if not role or isinstance(value, list):
        return _messages(f"{place}, {key}" if role else place, value)
    if isinstance(value, dict):
        return [_message(f"{place}, {key}", value)]
    text = _text(place, key, value)
    if text.startswith("\n\nHuman:"):
        parts = re.split(r"\n\n(Human|Assistant):", text)[1:]
        turns: list[Message] = [
            {"role": _ROLES[who.lower()], "content": said.strip()} for who, said in zip(parts[::2], parts[1::2], strict=True)
        ]
        return turns[:-1] if key == "prompt" and turns[-1] == assistant_turn("") else turns  # the speaker whose turn is to come
    if key == "instruction" and row.get("input") not in (None, ""):  # Alpaca
        text = "\n\n".join(filter(None, (text, _text(place, "input", row["input"]))))
    return [{"role": role, "content": text}]


def _text(place: str, key: str, value: Any) -> str:
    """Returns a text: a string, or OpenAI's list of parts if all are text."""
    if isinstance(value, list) and value:
        texts = [part.get("text") for part in value if isinstance(part, dict) and part.get("type", "text") == "text"]
        found = [text for text in texts if isinstance(text, str)]
        if len(found) < len(value):
            raise BadRow(f"{place}: `{key}` has parts that are no text, which can't be learned from here.")
        value = "".join(found)
    if not isinstance(value, str):
        raise BadRow(f"{place}: `{key}` is {_kind(value)}, expected text.")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # JSON can hold it
        raise BadRow(f"{place}: character {error.start} is half of a surrogate pair, which is not Unicode text.") from error
    return value


def _kind(value: Any) -> str:
    return "missing" if value is None else f"a {type(value).__name__}"


# ---- layouts -----------------------------------------------------------------------------------------

#: The layouts of conversations: their fields, in order, and the role of a turn that is a text. A row is of the first whose fields it has.
CONVERSATIONS = (
    {"messages": ""}, {"conversations": ""}, {"conversation": ""}, {"instruction": "user", "output": "assistant"},
    {"prompt": "user", "completion": "assistant"},
)  # fmt: skip
#: The fields that may hold the prompt of a preference; the first that a row has does. `messages` (LLaMA-Factory) only stand beside single
#: messages `chosen` and `rejected`, as elsewhere they are those of `chosen`.
PROMPTS = {"prompt": "user", "instruction": "user", "conversations": "", "messages": ""}


def conversations(place: str, row: UserRow) -> Read:
    """Returns the conversation in a row; of a tree, the conversations along its best answers."""
    if isinstance(row.get("prompt"), dict):
        return _threads(place, row)
    given = {key for key, value in row.items() if value is not None}
    layout = next((layout for layout in CONVERSATIONS if layout.keys() <= given), None)
    if layout is None:
        raise BadRow(
            f"{place}: no example that can be learned from: expected `messages` (or `conversations`), `instruction` and `output`, "
            f"`prompt` and `completion`, or a tree of messages; it has {_names(row)}."
        )
    return [(place, ([turn for key, role in layout.items() for turn in _turns(place, row, key, role)],))]


def preferences(place: str, row: UserRow) -> Read:
    """Returns the preference in a row; of a tree, those between answers to one question.

    The prompt is that of PROMPTS, followed by the turns with which both `chosen` and `rejected` begin; these may contain the prompt.
    """
    if isinstance(row.get("prompt"), dict):
        return _sibling_pairs(place, row)
    missing = [key for key in ("chosen", "rejected") if row.get(key) is None]
    if missing:
        expected = "expected `prompt`, `chosen` and `rejected`, or a tree of ranked messages"
        raise BadRow(f"{place}: no pair: `{missing[0]}` is missing ({expected}); it has {_names(row)}.")
    chosen, rejected = (_turns(place, row, key, "assistant") for key in ("chosen", "rejected"))
    n = 0
    while n < min(len(chosen), len(rejected)) - 1 and chosen[n] == rejected[n]:
        n += 1
    keys = (key for key in PROMPTS if row.get(key) is not None and (key != "messages" or isinstance(row["chosen"], dict)))
    shared, given = chosen[:n], next((_turns(place, row, key, PROMPTS[key]) for key in keys), [])
    if not given and not shared:
        raise BadRow(
            f"{place}: no pair: it has none of `prompt`, `instruction` and `conversations`, and the completions share no first message."
        )
    within = any(shared[begin : begin + len(given)] == given for begin in range(n))
    return [(place, (shared if within else given + shared, chosen[n:], rejected[n:]))]


def _names(row: UserRow) -> str:
    return safe_line(", ".join(sorted(row)), 200) or "nothing"


# ---- trees of OpenAssistant --------------------------------------------------------------------------
#
# A prompter's message has answers, which people have ranked (0 is the best); an answer may have further messages of prompters as replies
# (https://github.com/LAION-AI/Open-Assistant/tree/main/oasst-data). A file has a tree a row, or a message a row.


def trees(rows: Rows) -> Rows:
    """Yields rows. Those that are one message of a tree are put together, and follow the others as trees at the places of their roots."""
    found: dict[str, tuple[str, UserRow]] = {}
    for place, row in rows:
        if isinstance(row, BadRow) or not {"message_id", "text"} <= row.keys():
            yield place, row
        else:
            found[str(row["message_id"])] = place, {**row, "replies": []}
    for _, row in found.values():
        if parent := found.get(str(row.get("parent_id"))):
            parent[1]["replies"].append(row)
    for place, row in found.values():
        if row.get("parent_id") is None:
            yield place, {"prompt": row}
        elif str(row["parent_id"]) not in found:
            yield place, BadRow(f"{place}: the file does not have the message before it.")


def _threads(place: str, row: UserRow) -> Read:
    """Returns the conversations from the root to the last answers, with only the best answer to each question."""
    found: Read = []
    for asked, answers in _questions(place, row, best=True):
        if not any(_replies(place, reply) for reply in _replies(place, answers[0])):
            found.append((f"{place}, thread {len(found) + 1}", ([*asked, _message(place, answers[0])],)))
    if not found:
        raise BadRow(f"{place}: a tree of messages without an answer.")
    return found


def _sibling_pairs(place: str, row: UserRow) -> Read:
    """Returns each pair of answers to the same question of which one has the better rank."""
    found: Read = []
    for asked, answers in _questions(place, row, best=False):
        ranked = [answer for answer in answers if answer.get("rank") is not None]
        for better, worse in itertools.combinations(ranked, 2):
            if better["rank"] < worse["rank"]:
                sides = asked, [_message(place, better)], [_message(place, worse)]
                found.append((f"{place}, pair {len(found) + 1}", sides))
    if not found:
        raise BadRow(f"{place}: no pair: no question of the tree has two answers with different ranks.")
    return found


def _questions(place: str, row: UserRow, best: bool) -> Iterator[tuple[list[Message], list[UserRow]]]:
    """Yields the answered questions of a tree: the conversation up to each question, and its answers, best first. With `best`, it leaves
    out the questions after other answers."""
    waiting: list[tuple[UserRow, list[Message]]] = [(row["prompt"], [])]
    while waiting:
        question, before = waiting.pop()
        if answers := _replies(place, question):
            asked = [*before, _message(place, question)]
            yield asked, answers
            for answer in reversed(answers[:1] if best else answers):
                told = [*asked, _message(place, answer)]
                waiting += [(reply, told) for reply in reversed(_replies(place, answer))]


def _replies(place: str, message: dict[str, Any]) -> list[UserRow]:
    """Returns the replies to a message that were not deleted, the best first and those without a rank last."""
    replies = message.get("replies") or []
    if not isinstance(replies, list) or not all(isinstance(reply, dict) for reply in replies):
        raise BadRow(f"{place}: `replies` is {_kind(replies)}, expected a list of messages.")
    replies = [reply for reply in replies if not reply.get("deleted")]
    ranks = [reply.get("rank") for reply in replies]
    if bad := [rank for rank in ranks if not isinstance(rank, int | float | None)]:
        raise BadRow(f"{place}: `rank` is {_kind(bad[0])}, expected a number.")
    return sorted(replies, key=lambda reply: (reply.get("rank") is None, reply.get("rank") or 0))
