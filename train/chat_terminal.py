"""`corpusmill chat`: a conversation in a terminal, or through pipes."""

import io
import sys
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from corpusmill.pipeline.errors import InputError
from corpusmill.train.chat import Conversation
from corpusmill.train.text_stream import plain

COMMANDS = {
    "/help": "what can be said here",
    "/new": "forget the conversation; a system message stays",
    "/system [TEXT]": "what the model is told before the first message; without TEXT nothing",
    "/again": "another answer to the last message",
    "/undo": "take the last message and its answer back",
    "/save FILE": "add the conversation to FILE (.jsonl) as sft.files reads it",
    "/set [NAME VALUE]": "change how answers are written, for example /set temperature 0.5; without NAME show it",
    "/quit": "end, as Ctrl-D does",
}


class Screen:
    """Where people and model meet. With `interactive` there is a prompt that can be edited, with a history, and notes are dim; else lines
    are read and answers written as they are, and notes go to standard error."""

    def __init__(self, interactive: bool):
        from rich.console import Console

        self.interactive, self.lines = interactive, 0
        self.notes = Console(stderr=not interactive, highlight=False, soft_wrap=True)
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(errors="surrogateescape")  # bytes that are no UTF-8 are refused as a message, not as a stream
        if interactive:
            _edit_lines()

    def read(self) -> str | None:
        """The next line; None at the end. Ctrl-C clears the line."""
        self.lines += 1
        if not self.interactive:
            return sys.stdin.readline() or None
        bold = self.notes.color_system is not None
        try:
            return input("\x01\x1b[1m\x02you>\x01\x1b[0m\x02 " if bold else "you> ")  # between \x01 and \x02 is what has no width
        except EOFError:
            print()
            return None
        except KeyboardInterrupt:
            print()
            return ""

    def show(self, ask: Callable[[], Generator[str, None, None]]) -> None:
        """An answer as it is written. Ctrl-C ends it, and what is there stays."""
        stopped = False
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

    def note(self, text: str, style: str = "dim") -> None:
        self.notes.print(plain(text), style=style, markup=False)

    def refuse(self, error: InputError) -> None:
        """Tells people; a script has to know."""
        if not self.interactive:
            raise InputError(f"standard input, line {self.lines}: {error}") from error
        self.note(str(error), style="yellow")


def chat_loop(conversation: Conversation, screen: Screen) -> None:
    """Reads messages and commands, and answers them, until the end of the input or `/quit`."""
    while (line := screen.read()) is not None:
        line = line.strip()
        if line == "/quit":
            return
        try:
            if line.startswith("/"):
                _obey(conversation, screen, line)
            elif line:
                _show(conversation, screen, partial(conversation.ask, line))
        except InputError as error:
            screen.refuse(error)


def _show(conversation: Conversation, screen: Screen, ask: Callable[[], Generator[str, None, None]]) -> None:
    before = conversation.forgotten
    screen.show(ask)
    if conversation.forgotten > before:
        screen.note(f"(the context is full: the first {conversation.forgotten} messages are forgotten)")
    if conversation.ended:
        screen.note({"cut": "(cut: as long as an answer may be; see /set max_tokens)", "empty": "(no answer)"}[conversation.ended])


def _obey(conversation: Conversation, screen: Screen, line: str) -> None:
    name, _, rest = line.partition(" ")
    rest = rest.strip()
    if name == "/help":
        screen.note("\n".join(f"{usage:<20} {what}" for usage, what in COMMANDS.items()))
    elif name == "/new":
        conversation.new()
    elif name == "/system":
        conversation.system = rest
    elif name == "/again":
        _show(conversation, screen, conversation.again)
    elif name == "/undo":
        conversation.undo()
    elif name == "/save":
        conversation.save(Path(rest or ".").expanduser())
        screen.note(f"(added to {rest})")
    elif name == "/set":
        _set(conversation, screen, rest)
    else:
        raise InputError(f"{name}: no such command; /help lists them.")


def _set(conversation: Conversation, screen: Screen, rest: str) -> None:
    """Changes one option. InputError says what is wrong with it."""
    options = {"max_tokens": conversation.max_tokens, **asdict(conversation.sampling)}
    if not rest:
        screen.note("  ".join(f"{name} {value}" for name, value in options.items()))
        return
    name, _, given = rest.partition(" ")
    name = name.replace("-", "_")
    if name not in options:
        raise InputError(f"{name}: no such option; there are {', '.join(options)}.")
    kind: Callable[[str], Any] = type(options[name])
    try:
        value: Any = kind(given)
    except ValueError:
        raise InputError(f"{name}: {given!r} is not {'a whole number' if kind is int else 'a number'}.") from None
    if name != "max_tokens":
        conversation.sampling = replace(conversation.sampling, **{name: value})
    elif value < 1:
        raise InputError(f"max_tokens has to be 1 or more, not {value}.")
    else:
        conversation.max_tokens = value


def _edit_lines() -> None:
    """Makes `input` a line editor with a history, where the system has one, and Tab complete commands."""
    try:
        import readline
    except ImportError:
        return
    names = [usage.partition(" ")[0] for usage in COMMANDS]
    readline.set_completer_delims(" ")
    readline.set_completer(lambda text, number: [*(n for n in names if text and n.startswith(text)), None][number])
    readline.parse_and_bind("tab: complete")
