"""What happens in a run, told in one form: an `Event`, which `Events` hands to each listener. The listeners are the terminal, the log, the
progress file (`watch/`), metrics, and the result of a command. docs/operations.md lists the kinds.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Level: TypeAlias = Literal["info", "warning", "error"]


@dataclass(frozen=True)
class Event:
    """An event of a run. `task` is empty where it is about no task. `message` is a sentence for people. `fields` are for programs (JSON).
    `node`: the machine, where it is not this one. `trace`: of an error, for errors.log."""

    kind: str
    stage: str = ""
    phase: str = ""
    task: str = ""
    message: str = ""
    level: Level = "info"
    fields: dict[str, Any] = field(default_factory=dict)
    node: str = ""
    trace: str = ""


Listener: TypeAlias = Callable[[Event], None]


class Events:
    """Hands each event to all listeners, in their order."""

    def __init__(self, *listeners: Listener):
        self.listeners = listeners

    def tell(self, event: Event) -> None:
        for listener in self.listeners:
            listener(event)

    def note(self, sentence: str) -> None:
        """Tells the user a sentence."""
        self.tell(Event("note", message=sentence, level="warning"))

    @contextmanager
    def span(self, what: str, stage: str, phase: str = "", fields: dict[str, Any] | None = None) -> Iterator[dict[str, Any]]:
        """Tells the begin of a stage or phase, which is the `with` block, and its end: `stage_end`, or `stage_broken_off` where an error
        ends it. `fields` are those of the begin; the block adds fields of the end to the dict that it gets. `seconds` comes last."""
        started, ended, of_end = time.monotonic(), "broken_off", dict[str, Any]()
        try:
            self.tell(Event(f"{what}_begin", stage, phase, fields=fields or {}))  # an interrupt may come as soon as a listener knows it
            yield of_end
            ended = "end"
        finally:
            of_end["seconds"] = round(time.monotonic() - started, 3)
            self.tell(Event(f"{what}_{ended}", stage, phase, fields=of_end))
