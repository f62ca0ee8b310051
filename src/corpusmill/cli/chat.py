"""The chat in the terminal: a conversation with a model, and the screen that it is held on."""

import io
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.names import instead_of
from corpusmill.pipeline.special_tokens import END_OF_TEXT
from corpusmill.train.generate import DEFAULT, LENGTH, Draft, Sampling, TextGenerator, json_line, plain, read_settings
from corpusmill.train.template import TEMPLATE_FILE, TOKENIZER_CONFIG_FILE, Message, assistant_turn, user_turn

# ---- a conversation ----------------------------------------------------------------------------------


@dataclass
class Conversation:
    """All messages, and the options of answers. Where the context is too small, the model is not shown the oldest turns; a system message
    is always shown."""

    generator: TextGenerator
    sampling: Sampling = DEFAULT
    max_tokens: int = 256
    system: str = ""
    turns: list[Message] = field(default_factory=list)  # of user and assistant, alternating
    forgotten: int = 0  # the number of oldest `turns` that the model was not shown for its last answer
    ended: str = ""  # "cut" if the last answer reached its length limit, "empty" if it had no text
    answers: int = 0

    def ask(self, text: str) -> Generator[str, None, None]:
        """Yields the answer in pieces that are safe for a terminal. It joins the turns when it ends or its reader stops, unless it is
        empty. Raises InputError, and changes nothing, where the message is too long or not text."""
        return self._answer([*self.turns, user_turn(text)])

    def again(self) -> Generator[str, None, None]:
        """Yields another answer to the last message, which replaces the earlier one. Raises InputError if there is none."""
        if not self.turns:
            raise InputError("there is no answer yet.")
        return self._answer(self.turns[:-1])

    def new(self) -> None:
        """Forgets the turns, but not the system message."""
        self.turns, self.forgotten = [], 0

    def save(self, path: Path) -> None:
        """Appends the conversation to a file, as a line of JSON that `sft.files` reads. Raises InputError if that is not possible."""
        if path.suffix != ".jsonl":
            raise InputError(f"{path}: conversations are saved as lines of JSON, so its name has to end in .jsonl.")
        if not self.turns:
            raise InputError("there is nothing to save yet.")
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json_line({"messages": self._messages(self.turns)}) + "\n")
        except OSError as error:
            raise InputError(f"{path}: can't be written ({error.strerror}).") from error

    def _messages(self, turns: Sequence[Message]) -> list[Message]:
        return [*([{"role": "system", "content": self.system}] if self.system else []), *turns]

    def _answer(self, turns: list[Message]) -> Generator[str, None, None]:
        """Leaves out the oldest turns that leave no room for an answer, which is at most half the context."""
        context = self.generator.model.arch.context
        limit, forgotten = context - min(self.max_tokens, context // 2), 0
        while len(ids := self.generator.conversation(self._messages(turns[forgotten:]))) > limit:
            forgotten += 2
            if forgotten >= len(turns):
                what = "that message and the system message are" if self.system else "that message is"
                raise InputError(f"{what} too long: {len(ids)} tokens, and this model can take {limit}.")
        self.forgotten = forgotten
        self.answers += 1  # gives each answer its own seed
        draft = Draft(ids, self.sampling.seed + self.answers, self.generator.tokenizer)
        return self._written(turns, draft, min(self.max_tokens, context - len(ids)))

    def _written(self, turns: list[Message], draft: Draft, limit: int) -> Generator[str, None, None]:
        try:
            yield from self.generator.stream(draft, limit, self.sampling)
        finally:
            answer = plain(draft.text).strip()
            self.turns = [*turns, assistant_turn(answer)] if answer else self.turns
            self.ended = "empty" if not answer else "cut" if draft.ended == LENGTH else ""


def chat_warning(folder: Path, name: str | None = None) -> str | None:
    """Returns a sentence on why the model of a folder (called `name` there) may not suit a conversation; None if it suits."""
    config, name = read_settings(folder, TOKENIZER_CONFIG_FILE), name or str(folder)
    if config.get("eos_token") == END_OF_TEXT:
        return f"{name} was not tuned on conversations: it continues texts instead of answering."
    if not config.get("chat_template") and not (folder / TEMPLATE_FILE).exists():
        return f"{name} has no chat template: ChatML is used, which it may not know."
    return None


# ---- the terminal ------------------------------------------------------------------------------------

COMMANDS = {
    "/help": "list the commands",
    "/new": "forget the conversation; a system message stays",
    "/system [TEXT]": "set the system message; without TEXT remove it",
    "/again": "another answer to the last message",
    "/save FILE": "add the conversation to FILE (.jsonl) as sft.files reads it",
    "/quit": "end, as Ctrl-D does",
}
ENDED = {"cut": "(cut: as long as an answer may be; see --max-tokens)", "empty": "(no answer)"}


class Screen:
    """Input and output of the chat. If `interactive`, the prompt is editable, with a history, and notes are dim. Else lines are read and
    answers written unchanged, and notes go to standard error."""

    def __init__(self, interactive: bool):
        from rich.console import Console

        self.interactive, self.lines = interactive, 0
        self.notes = Console(stderr=not interactive, highlight=False, soft_wrap=True)
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(errors="surrogateescape")  # so that invalid UTF-8 is refused as a message, and reading continues
        if interactive:
            with suppress(ImportError):  # where the system has it, `input` edits lines and keeps a history
                import readline  # noqa: F401

    def read(self) -> str | None:
        """Returns the next line; None at the end. Ctrl-C clears the line."""
        self.lines += 1
        if not self.interactive:
            return sys.stdin.readline() or None
        bold = self.notes.color_system is not None
        try:
            return input("\x01\x1b[1m\x02you>\x01\x1b[0m\x02 " if bold else "you> ")  # \x01 and \x02 enclose text without width
        except (EOFError, KeyboardInterrupt) as end:
            print()
            return "" if isinstance(end, KeyboardInterrupt) else None

    def show(self, conversation: Conversation, ask: Callable[[], Generator[str, None, None]]) -> None:
        """Prints an answer as it is written, and what is to be said about it. Ctrl-C stops it; the text so far stays."""
        forgotten, stopped = conversation.forgotten, False
        try:
            with closing(ask()) as pieces:
                for piece in pieces:
                    print(piece, end="", flush=True)
        except KeyboardInterrupt:
            if not self.interactive:
                raise
            stopped = True
        print(flush=True)
        if stopped:
            self.note("(stopped)")
        if conversation.forgotten > forgotten:
            self.note(f"(the context is full: the first {conversation.forgotten} messages are forgotten)")
        if conversation.ended:
            self.note(ENDED[conversation.ended])

    def note(self, text: str, style: str = "dim") -> None:
        self.notes.print(plain(text), style=style, markup=False)


def chat_loop(conversation: Conversation, screen: Screen) -> None:
    """Reads messages and commands, and answers them, until the end of the input or `/quit`."""
    while (line := screen.read()) is not None:
        line = line.strip()
        name, _, rest = line.partition(" ")
        rest = rest.strip()
        try:
            if name == "/quit":
                return
            elif name == "/help":  # an answer, not a note
                print("\n".join(f"{usage:<20} {what}" for usage, what in COMMANDS.items()), flush=True)
            elif name == "/new":
                conversation.new()
            elif name == "/system":
                conversation.system = rest
            elif name == "/again":
                screen.show(conversation, conversation.again)
            elif name == "/save":
                conversation.save(Path(rest or ".").expanduser())
                screen.note(f"(added to {rest})")
            elif name.startswith("/"):
                raise InputError(f"{name}: no such command{instead_of(name, [usage.split()[0] for usage in COMMANDS])}.")
            elif line:
                screen.show(conversation, partial(conversation.ask, line))
        except InputError as error:
            if not screen.interactive:
                raise InputError(f"standard input, line {screen.lines}: {error}") from error
            screen.note(str(error), style="yellow")
