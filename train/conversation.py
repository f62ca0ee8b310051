"""One example as a list of messages, whatever format it came in."""

from typing import Any

from corpusmill.pipeline.errors import InputError
from corpusmill.train.template import Message

_ROLES = {"system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant"}


def read_messages(place: str, value: Any) -> list[Message]:
    """Messages in OpenAI's (`role`, `content`) or ShareGPT's (`from`, `value`) names. Raises InputError naming `place`."""
    if not isinstance(value, list) or not value:
        raise InputError(f"{place}: expected a list of messages with `role` and `content`.")
    return [_message(f"{place}, message {number}", item) for number, item in enumerate(value, 1)]


def user_turn(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant_turn(text: str) -> Message:
    return {"role": "assistant", "content": text}


def read_instruction(place: str, row: dict[str, Any]) -> str:
    """Alpaca's `instruction` with its optional `input` below it."""
    instruction, given = read_text(place, row, "instruction"), row.get("input")
    return f"{instruction}\n\n{read_text(place, row, 'input')}" if given else instruction


def read_text(place: str, row: dict[str, Any], key: str) -> str:
    """A field that has to be a string."""
    value = row[key]
    if not isinstance(value, str):
        raise InputError(f"{place}: `{key}` is {_kind(value)}, expected text.")
    return _unicode(place, value)


def _message(place: str, item: Any) -> Message:
    if not isinstance(item, dict):
        raise InputError(f"{place}: {_kind(item)}, expected an object with `role` and `content`.")
    names = ("from", "value") if "from" in item else ("role", "content")
    role, content = item.get(names[0]), item.get(names[1])
    if role not in _ROLES:
        raise InputError(f"{place}: the role {role!r} is not known (expected one of {', '.join(_ROLES)}).")
    if isinstance(content, list):  # OpenAI's parts: only text can be learned here
        texts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
        content = "".join(text for text in texts if isinstance(text, str)) if len(texts) == len(content) else content
    if not isinstance(content, str):
        raise InputError(f"{place}: `{names[1]}` is {_kind(content)}, expected text.")
    return {"role": _ROLES[role], "content": _unicode(place, content)}


def _unicode(place: str, text: str) -> str:
    """JSON can escape half a surrogate pair, which is no character."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{place}: character {error.start} is half of a surrogate pair, which is not Unicode text.") from error
    return text


def _kind(value: Any) -> str:
    return "missing" if value is None else f"a {type(value).__name__}"
