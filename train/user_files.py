"""Reads the user's files: rows of JSONL, a JSON array or Parquet, as conversations, instructions and prompts.

A file that can't be read raises InputError. A row that can't be read becomes a `BadRow` with the reason; reading goes on.
"""

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any, Protocol, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.safe import safe_line
from corpusmill.pipeline.storage import Storage
from corpusmill.train.template import Message

# ---- rows --------------------------------------------------------------------------------------------

UserRow = dict[str, Any]

FORMATS = (".jsonl", ".ndjson", ".json", ".parquet")


class BadRow(InputError):
    """A row that can't be used. The message names its place; `rule` is the name of the reason in reports."""

    def __init__(self, sentence: str, rule: str = "no_example"):
        super().__init__(sentence)
        self.rule = rule


class HasBad(Protocol):
    """The result of a row; `bad` has the reason where the row can't be used."""

    @property
    def bad(self) -> BadRow | None: ...


Made = TypeVar("Made", bound=HasBad)


def read_rows(path: str) -> Iterator[tuple[str, UserRow | BadRow]]:
    """Yields every row of a file with its place: `FILE:LINE`, or `FILE, row N` (from 1) where a row is not a line.

    The name decides the format: `.jsonl` (or `.ndjson`) and `.json`, both also with `.gz` or `.zst` appended; `.parquet`. Raises
    InputError.
    """
    name = path.removesuffix(".gz").removesuffix(".zst")
    if not name.endswith(FORMATS) or (name != path and name.endswith(".parquet")):
        raise InputError(f"{path}: the name does not tell the format (expected .jsonl or .json, perhaps with .gz or .zst, or .parquet).")
    content = _file_content(path)
    if name.endswith(".parquet"):
        yield from _parquet_rows(path, content)
    elif name.endswith(".json"):
        yield from _json_array(path, content)
    else:
        yield from _json_lines(path, content)


def read_all(files: Sequence[str], make: Callable[[str, UserRow | BadRow], Made], what: str) -> list[Made]:
    """Returns the result of `make` for every row of the files, in order; a bad row's result has the reason as `bad`. Raises InputError
    where all rows of a file are bad."""
    found: list[Made] = []
    for path in files:
        rows = [make(place, row) for place, row in read_rows(path)]
        bad = [row.bad for row in rows if row.bad]
        if len(bad) == len(rows):
            raise InputError(str(bad[0]) if len(rows) == 1 else f"{path}: none of its {len(rows)} rows is {what}; {bad[0]}")
        found += rows
    return found


def read_records(path: str) -> Iterator[tuple[str, UserRow]]:
    """Yields rows as `read_rows` does, but raises the first BadRow."""
    for place, row in read_rows(path):
        if isinstance(row, BadRow):
            raise row
        yield place, row


def read_lines(path: str) -> list[str]:
    """Returns the lines of a text file, without `\\n` or `\\r\\n`. Raises InputError if the file can't be read."""
    try:
        return [line.removesuffix("\r") for line in _file_content(path).decode("utf-8-sig").removesuffix("\n").split("\n")]
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start} is not UTF-8.") from error


def file_ref(path: str) -> FileRef:
    """Returns a user's file as a task's input; its fingerprint is the sha256 of its content."""
    content = _raw(path)
    return FileRef(path, hashlib.sha256(content).hexdigest(), len(content))


def _raw(path: str) -> bytes:
    folder, _, name = path.rpartition("/")
    try:
        return Storage(folder or ".").read_bytes(name)
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror or error}).") from error


def _file_content(path: str) -> bytes:
    content = _raw(path)
    if kind := {".gz": "gzip", ".zst": "zstd"}.get(PurePosixPath(path).suffix):
        try:
            content = pa.CompressedInputStream(pa.BufferReader(content), kind).read()  # all members, all frames
        except OSError as error:
            raise InputError(f"{path}: not a whole {kind} file ({error}).") from error
    if not content.strip():
        raise InputError(f"{path}: the file is empty.")
    return content


def _json_lines(path: str, content: bytes) -> Iterator[tuple[str, UserRow | BadRow]]:
    for number, line in enumerate(io.BytesIO(content), 1):
        if line.strip():
            place = f"{path}:{number}"
            try:
                yield place, _row(place, _parse(place, line))
            except BadRow as bad:
                yield place, bad


def _json_array(path: str, content: bytes) -> Iterator[tuple[str, UserRow | BadRow]]:
    rows = _parse(path, content)
    if not isinstance(rows, list):
        raise InputError(f"{path}: a .json file of examples is one array (a file with an example a line is named .jsonl).")
    for number, row in enumerate(rows, 1):
        place = f"{path}, row {number}"
        try:
            yield place, _row(place, row)
        except BadRow as bad:
            yield place, bad


def _parquet_rows(path: str, content: bytes) -> Iterator[tuple[str, UserRow | BadRow]]:
    try:
        rows = pq.read_table(io.BytesIO(content), use_threads=False).to_pylist()
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable Parquet file ({error}).") from error
    for number, row in enumerate(rows, 1):
        yield f"{path}, row {number}", row


def _parse(place: str, content: bytes) -> Any:
    try:
        return json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise BadRow(f"{place}: byte {error.start} is not UTF-8.", "invalid_utf8") from error
    except json.JSONDecodeError as error:
        raise BadRow(f"{place}: not JSON ({error.msg}: line {error.lineno} column {error.colno}).", "not_json") from error
    except RecursionError as error:
        raise BadRow(f"{place}: not JSON that can be read (it is nested too deeply).", "not_json") from error
    except ValueError as error:  # a number of thousands of digits
        raise BadRow(f"{place}: not JSON that can be read ({error}).", "not_json") from error


def _row(place: str, row: Any) -> UserRow:
    if not isinstance(row, dict):
        raise BadRow(f"{place}: expected an object with named fields, not {type(row).__name__}.")
    return row


# ---- conversations -----------------------------------------------------------------------------------
#
# Reads a row of any format as a list of messages.
#
# Turns may come in any order, even two user turns in a row, or an assistant that begins. Conversations with tools are refused: there is no
# rule to write their turns as text, and an answer that depends on a tool can't be learned without it.

_ROLES = {
    "system": "system", "developer": "system", "user": "user", "human": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant", "bot": "assistant",
}  # fmt: skip
_TOOLS = {"tool", "function", "ipython", "function_call", "function_response", "observation", "tool_call", "tool_response"}


def read_messages(place: str, value: Any) -> list[Message]:
    """Reads messages with OpenAI's names (`role`, `content`) or ShareGPT's (`from`, `value`). Raises BadRow, which names `place`."""
    if not isinstance(value, list) or not value:
        raise BadRow(f"{place}: expected a list of messages with `role` and `content`.")
    return [_message(f"{place}, message {number}", item) for number, item in enumerate(value, 1)]


def first_question(messages: Sequence[Message]) -> str:
    """Returns the user's first turn, or else the first turn. Its hash decides whether an example is held out, so equal questions are on one
    side of the split, and a system message that all conversations share has no effect."""
    return next((message["content"] for message in messages if message["role"] == "user"), messages[0]["content"])


def read_instruction(place: str, row: dict[str, Any]) -> str:
    """Returns Alpaca's `instruction`, with its optional `input` below it."""
    instruction, given = read_text(place, row, "instruction"), row.get("input")
    return f"{instruction}\n\n{read_text(place, row, 'input')}" if given not in (None, "") else instruction


def read_text(place: str, row: dict[str, Any], key: str) -> str:
    """Returns a field that must be a string. Raises BadRow."""
    value = row[key]
    if not isinstance(value, str):
        raise BadRow(f"{place}: `{key}` is {_kind(value)}, expected text.")
    return _unicode(place, value)


def _message(place: str, item: Any) -> Message:
    if not isinstance(item, dict):
        raise BadRow(f"{place}: {_kind(item)}, expected an object with `role` and `content`.")
    names = ("from", "value") if item.get("from") is not None else ("role", "content")
    role, content = item.get(names[0]), item.get(names[1])
    name = role if isinstance(role, str) else ""
    if name in _TOOLS or item.get("tool_calls") or item.get("function_call"):
        raise BadRow(f"{place}: a turn of a tool or a call of one, which can't be learned from here.", "tool_turn")
    if name not in _ROLES:
        raise BadRow(f"{place}: the role {safe_line(repr(role), 60)} is not known (expected one of {', '.join(_ROLES)}).", "unknown_role")
    return {"role": _ROLES[name], "content": _unicode(place, _content(place, names[1], content))}


def _content(place: str, key: str, content: Any) -> str:
    """Returns the content of a message: a string, or OpenAI's list of parts if all are text. Raises BadRow."""
    if isinstance(content, list):
        parts = [part if isinstance(part, dict) and part.get("type", "text") == "text" else {} for part in content]
        texts = [part["text"] for part in parts if isinstance(part.get("text"), str)]
        if len(texts) < len(content):
            raise BadRow(f"{place}: `{key}` has parts that are no text, which can't be learned from here.")
        return "".join(texts)
    if not isinstance(content, str):
        raise BadRow(f"{place}: `{key}` is {_kind(content)}, expected text.")
    return content


def _unicode(place: str, text: str) -> str:
    """Returns the text. Raises BadRow for half of a surrogate pair, which JSON can hold, but which is no character."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadRow(f"{place}: character {error.start} is half of a surrogate pair, which is not Unicode text.") from error
    return text


def _kind(value: Any) -> str:
    return "missing" if value is None else f"a {type(value).__name__}"


# ---- prompts -----------------------------------------------------------------------------------------


def read_prompts(path: str) -> list[str]:
    """Returns all prompts of a file, without the empty lines of a text file. Raises InputError, which names file and line."""
    if not path.removesuffix(".gz").removesuffix(".zst").endswith(FORMATS):
        return [line for line in read_lines(path) if line.strip()]
    found = []
    for place, row in read_records(path):
        if "prompt" not in row:
            raise InputError(f"{place}: has no `prompt`.")
        found.append(read_text(place, row, "prompt"))
    return found
