"""One example as a list of messages, whatever format it came in.

Turns are kept as they are, in any order: also two of the user in a row, or an assistant that begins. Tools are left out: their turns
are no text that this program has a rule for, and an answer that a tool was asked for is not learned without them.
"""

from collections.abc import Sequence
from typing import Any

from corpusmill.pipeline.safe import safe_line
from corpusmill.train.records import BadRow
from corpusmill.train.template import Message

_ROLES = {
    "system": "system", "developer": "system", "user": "user", "human": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant", "bot": "assistant",
}  # fmt: skip
_TOOLS = {"tool", "function", "ipython", "function_call", "function_response", "observation", "tool_call", "tool_response"}


def read_messages(place: str, value: Any) -> list[Message]:
    """Messages in OpenAI's (`role`, `content`) or ShareGPT's (`from`, `value`) names. Raises BadRow naming `place`."""
    if not isinstance(value, list) or not value:
        raise BadRow(f"{place}: expected a list of messages with `role` and `content`.")
    return [_message(f"{place}, message {number}", item) for number, item in enumerate(value, 1)]


def user_turn(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant_turn(text: str) -> Message:
    return {"role": "assistant", "content": text}


def first_question(messages: Sequence[Message]) -> str:
    """The user's first turn, or the first where nobody asks: by it an example is held out or not. Equal questions stay on one side, and a
    system message that all conversations share decides nothing."""
    return next((message["content"] for message in messages if message["role"] == "user"), messages[0]["content"])


def read_instruction(place: str, row: dict[str, Any]) -> str:
    """Alpaca's `instruction` with its optional `input` below it."""
    instruction, given = read_text(place, row, "instruction"), row.get("input")
    return f"{instruction}\n\n{read_text(place, row, 'input')}" if given not in (None, "") else instruction


def read_text(place: str, row: dict[str, Any], key: str) -> str:
    """A field that has to be a string."""
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
    """Text, or OpenAI's list of parts where all are text."""
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
    """JSON can escape half a surrogate pair, which is no character."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadRow(f"{place}: character {error.start} is half of a surrogate pair, which is not Unicode text.") from error
    return text


def _kind(value: Any) -> str:
    return "missing" if value is None else f"a {type(value).__name__}"
