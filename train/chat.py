"""A conversation with a tuned model: the turns so far, and as many of them as its context can take."""

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.special_tokens import END_OF_TEXT
from corpusmill.pipeline.storage import Storage
from corpusmill.train.conversation import assistant_turn, user_turn
from corpusmill.train.generate import generate
from corpusmill.train.sampling import DEFAULT, Sampling
from corpusmill.train.speaker import TextGenerator, read_settings
from corpusmill.train.template import TEMPLATE_FILE, TOKENIZER_CONFIG_FILE, Message
from corpusmill.train.text_stream import json_line, stream_text


@dataclass
class Conversation:
    """All messages, and how the next answer is written. What the context can't take is not shown to the model: the oldest turns first,
    a system message never."""

    generator: TextGenerator
    sampling: Sampling = DEFAULT
    max_tokens: int = 256
    system: str = ""
    turns: list[Message] = field(default_factory=list)  # user and assistant, one after the other
    forgotten: int = 0  # of `turns`, the oldest, that the model was not shown for its last answer
    ended: str = ""  # how the last answer did, where there is something to say about it: "cut" (for its length) or "empty"
    answers: int = 0

    def __post_init__(self) -> None:
        _ = self.generator.encoder  # a template that is none is refused now, and not at every message

    def ask(self, text: str) -> Generator[str, None, None]:
        """The answer, piece by piece, safe for a terminal. It joins the turns when it ends or its reader stops; with an empty one
        they stay as they were. Raises InputError, and nothing has happened, where the message is too long or no text."""
        return self._answer([*self.turns, user_turn(text)])

    def again(self) -> Generator[str, None, None]:
        """Another answer to the last message, in the place of the one it had. Raises InputError where there is none."""
        if not self.turns:
            raise InputError("there is no answer yet.")
        return self._answer(self.turns[:-1])

    def undo(self) -> None:
        """Takes the last message and its answer back. Raises InputError where there is none."""
        if not self.turns:
            raise InputError("there is nothing to take back.")
        self.turns = self.turns[:-2]

    def new(self) -> None:
        """Forgets the turns; a system message stays."""
        self.turns, self.forgotten = [], 0

    def save(self, path: Path) -> None:
        """Adds the conversation to a file as a line of JSON that `sft.files` reads. Raises InputError where that can't be."""
        if path.suffix != ".jsonl":
            raise InputError(f"{path}: conversations are saved as lines of JSON, so its name has to end in .jsonl.")
        if not self.turns:
            raise InputError("there is nothing to save yet.")
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json_line({"messages": self._messages(self.turns)}) + "\n")
        except OSError as error:
            raise InputError(f"{path}: can't be written ({error.strerror}).") from error

    def _answer(self, turns: list[Message]) -> Generator[str, None, None]:
        first, ids = self._fitting(turns)
        room = min(self.max_tokens, self.generator.model.arch.context - len(ids))
        self.answers += 1  # each has a seed of its own
        tokens = generate(
            self.generator.model, ids, max_tokens=room, sampling=replace(self.sampling, seed=self.sampling.seed + self.answers),
            stop=self.generator.stop, banned=self.generator.banned, overflow="refuse",
        )  # fmt: skip
        self.forgotten, self.ended = first, ""
        return self._told(turns, tokens, room, ids)

    def _told(self, turns: list[Message], tokens: Iterator[int], room: int, ids: list[int]) -> Generator[str, None, None]:
        pieces, written = list[str](), 0

        def counted() -> Iterator[int]:
            nonlocal written
            for token in tokens:
                written += 1
                yield token

        try:
            for piece in stream_text(self.generator.tokenizer, counted(), before=ids):
                pieces.append(piece)
                yield piece
        finally:
            self.ended = "cut" if written == room else ""
            if answer := "".join(pieces).strip():
                self.turns = [*turns, assistant_turn(answer)]
            else:
                self.ended = "empty"

    def _fitting(self, turns: list[Message]) -> tuple[int, list[int]]:
        """How many turns are left out, and the ids of the others: as many as leave room for an answer (at most half of the context)."""
        context = self.generator.model.arch.context
        room = context - min(self.max_tokens, context // 2)
        for first in range(0, len(turns), 2):
            ids = self.generator.conversation(self._messages(turns[first:]))
            if len(ids) <= room:
                return first, ids
        what = "that message is" if not self.system else "that message and the system message are"
        raise InputError(f"{what} too long: {len(ids)} tokens, and this model can take {room}.")

    def _messages(self, turns: Iterable[Message]) -> list[Message]:
        return [*([{"role": "system", "content": self.system}] if self.system else []), *turns]


def warning(folder: Path, name: str | None = None) -> str | None:
    """Why the model of a folder may not be one to talk with, in a sentence that calls it `name`; None where it is."""
    name = name or str(folder)
    config = read_settings(folder, TOKENIZER_CONFIG_FILE)
    if config.get("eos_token") == END_OF_TEXT:
        return f"{name} was not tuned on conversations: it goes on with a text, and does not answer."
    if not config.get("chat_template") and not Storage(str(folder)).exists(TEMPLATE_FILE):
        return f"{name} has no chat template: ChatML is used, which it may not know."
    return None
