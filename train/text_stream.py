"""The text of tokens as they come: whole characters, nothing of a stop string, and nothing that a terminal would obey."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from corpusmill.pipeline.errors import InputError

# C0 but tab and line feed, DEL, C1, and the marks that reorder text: with them a model could drive the terminal.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
#: Bytes wait for at most this many tokens to become a whole character.
LONGEST_CHARACTER = 8


def plain(text: str) -> str:
    """`text` without anything that a terminal would obey."""
    return CONTROL.sub("", text)


def json_line(value: Any) -> str:
    """JSON on one line, in which what a terminal would obey is escaped, so that nothing is lost."""
    return CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False))


class TextStream:
    """Turns tokens, one by one, into pieces of text. `stopped` is true once a stop string was complete; nothing comes after that.

    The text ends before the stop string that is complete first (of two that end at the same place, before the longer one), however the
    tokens cut it. What may yet become one is held back. `before` are the tokens that the text goes on from: some tokenizers write a
    token otherwise where nothing is before it.
    """

    def __init__(self, tokenizer: Any, stop_strings: Sequence[str] = (), before: Sequence[int] = ()):
        if "" in stop_strings:
            raise InputError("a stop string can't be empty: every text would end before it begins.")
        self.tokenizer, self.stop_strings, self.stopped = tokenizer, stop_strings, False
        self._before, self._waiting, self._held = list[int](), list[int](), ""
        self._go_on_from(list(before[-LONGEST_CHARACTER:]))

    def add(self, token: int) -> str:
        """What can be given out now that `token` has come."""
        if self.stopped:
            return ""
        self._waiting.append(token)
        text = self._new()
        if text.endswith("\ufffd") and len(self._waiting) < LONGEST_CHARACTER:
            return ""
        self._go_on_from(self._waiting)
        return self._released(text)

    def end(self) -> str:
        """What was waiting when the text ended."""
        if self.stopped:
            return ""
        rest = self._released(self._new() if self._waiting else "") + ("" if self.stopped else self._held)
        self._waiting, self._held = [], ""
        return rest

    def _go_on_from(self, tokens: list[int]) -> None:
        whole = not self._text(tokens).endswith("\ufffd")  # half a character would change with what comes
        self._before, self._waiting = tokens if whole else [], []

    def _new(self) -> str:
        """The text of the waiting tokens."""
        return self._text(self._before + self._waiting)[len(self._text(self._before)) :]

    def _text(self, tokens: list[int]) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True))

    def _released(self, new: str) -> str:
        text = self._held + new
        if found := [(at + len(stop), at) for stop in self.stop_strings if (at := text.find(stop)) >= 0]:
            self.stopped, self._held = True, ""
            return text[: min(found)[1]]
        held = max((_overlap(text, stop) for stop in self.stop_strings), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` may be the beginning of `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)


def stream_text(tokenizer: Any, tokens: Iterable[int], stop_strings: Sequence[str] = (), before: Sequence[int] = ()) -> Iterator[str]:
    """Pieces of the text of `tokens`, which are read no further than the first stop string; safe for a terminal."""
    stream = TextStream(tokenizer, stop_strings, before)
    for token in tokens:
        if piece := plain(stream.add(token)):
            yield piece
        if stream.stopped:
            return
    if piece := plain(stream.end()):
        yield piece
