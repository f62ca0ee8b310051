"""A group of processes that begins again when one of them is killed, and what their failures mean to the one who started them."""

import json
import sys
from typing import Any, Protocol

from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.storage import Storage

#: What the first process leaves in the group's folder.
RESULT = "result.json"
#: Names the file descriptor on which the first of the processes that we start may draw its bar.
TERMINAL = "CORPUSMILL_TERMINAL"


class RankError(Exception):
    """A process of the group ended in an exception that is no CorpusmillError; its trace is a note of this one."""


class Killed(Exception):
    """A process of the group did not end by itself; says which one and how."""


class Group(Protocol):
    """Processes that work on one task together."""

    left: Storage  # where they leave `result.json` and `error-<rank>.json`

    def run(self) -> None:
        """Starts the processes and waits for all of them. Raises Killed, or RankError, where not all have ended well."""
        ...


def with_restarts(group: Group, restarts: int, title: str) -> dict[str, Any]:
    """The first process's result, of as many attempts as it takes. What they left stays where something went wrong that is no sentence."""
    for attempt in range(restarts + 1):
        group.left.remove_folder("")
        failure: Exception | None = None
        try:
            group.run()
        except (Killed, RankError) as error:
            failure = error
        except CorpusmillError:
            group.left.remove_folder("")
            raise
        if failure is None or any(error["exit_code"] for error in _errors(group.left)):
            return _result(group.left)
        if isinstance(failure, RankError):
            raise_first(_errors(group.left))
            for log in (name for name in group.left.list_files() if name.endswith(".log")):
                failure.add_note(f"{group.left.path(log)}:\n{group.left.read_bytes(log).decode(errors='replace')[-4000:]}")
            raise failure
        if attempt < restarts:
            again = f"all begin again from the last state (restart {attempt + 1} of {restarts})"
            print(f"corpusmill: {title}: {failure}; {again}.", file=sys.stderr, flush=True)
    raise CorpusmillError(f"{title}: {failure}, and {restarts} restarts are used up; what it said is in {group.left.root}.")


def _result(left: Storage) -> dict[str, Any]:
    """What the processes have left, a result or our own errors; and nothing of it stays."""
    try:
        raise_first(_errors(left))
        result: dict[str, Any] = json.loads(left.read_bytes(RESULT))
        return result
    finally:
        left.remove_folder("")


def _errors(left: Storage) -> list[dict[str, Any]]:
    """What the processes say themselves, the first first."""
    names = [name for name in left.list_files() if name.startswith("error-") and name.endswith(".json")]
    return sorted((json.loads(left.read_bytes(name)) for name in names), key=lambda error: float(error["time"]))


def raise_first(errors: list[dict[str, Any]]) -> None:
    """Raises the first of the errors, as `rank.described` gives them, that is ours; else the first of all. Nothing where there is none."""
    for error in errors:
        if error["exit_code"] is not None:
            raise (InputError if error["exit_code"] == InputError.exit_code else CorpusmillError)(error["message"])
    for error in errors[:1]:
        found = RankError(f"process {error['rank'] + 1}: {error['message']}")
        found.add_note(error["trace"])
        raise found from None
