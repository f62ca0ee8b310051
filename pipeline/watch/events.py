"""What an engine says while a phase goes on: a piece is done again, a process died, a task was quarantined, nothing is free to work.

Engines and the runner say it through a callback; what of it is printed, logged or counted, those who give the callback decide.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

#: retry: a piece raised an exception and is done again. death: its process died and it is done again. halves: it ran out of memory and
#: is done again in parts. alone: it can't be cut, and is done again while nothing else is. quarantine: it is given up, the rest goes on.
#: waiting: the cluster has no room for a worker, or another process may hold what the stage needs.
Kind: TypeAlias = Literal["retry", "death", "halves", "alone", "quarantine", "waiting"]


@dataclass(frozen=True)
class Event:
    """`message` is a sentence for people, stage and task included. `task` is empty where it is about none. `fields` are for programs
    (JSON-able): `tries` so far, `cause` (retry.Cause), `parts`, `node`, `trace`, as far as there are any."""

    kind: Kind
    stage: str
    phase: str
    task: str
    message: str
    fields: dict[str, Any] = field(default_factory=dict)


OnEvent: TypeAlias = Callable[[Event], None]


def print_event(event: Event) -> None:
    """The default: the sentence on standard error."""
    print(f"corpusmill: {event.message}", file=sys.stderr, flush=True)
