"""A group of processes that begins again when one of them is killed, and what their failures mean to the one who started them."""

import json
import secrets
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


class ProcessGroup(Protocol):
    """Processes that work on one task together."""

    left: Storage  # in which each attempt has a folder of its own

    def run(self, left: Storage) -> None:
        """Starts the processes, which leave `result.json` and `error-<rank>.json` in `left`, and waits for all of them. Raises Killed, or
        RankError, where not all have ended well."""
        ...


def with_restarts(group: ProcessGroup, restarts: int, title: str) -> dict[str, Any]:
    """The first process's result, of as many attempts as it takes. What they left stays where something went wrong that is no sentence.

    A process on a node that was lost may live on and leave its error later: no other attempt, of this command or the next, looks there.
    """
    for attempt in range(restarts + 1):
        group.left.remove_folder("")
        left = group.left.child(f"{attempt + 1}-{secrets.token_hex(4)}")
        failure: Exception | None = None
        try:
            group.run(left)
        except (Killed, RankError) as error:
            failure = error
        except CorpusmillError:
            group.left.remove_folder("")
            raise
        errors = _errors_left(left)
        if failure is None or any(error["exit_code"] for error in errors):
            try:
                raise_first(errors)
                result: dict[str, Any] = json.loads(left.read_bytes(RESULT))
                return result
            finally:
                group.left.remove_folder("")
        if isinstance(failure, RankError):
            raise_first(errors)
            for log in (name for name in left.list_files() if name.endswith(".log")):
                failure.add_note(f"{left.path(log)}:\n{left.read_bytes(log).decode(errors='replace')[-4000:]}")
            raise failure
        if attempt < restarts:
            again = f"all begin again from the last state (restart {attempt + 1} of {restarts})"
            print(f"corpusmill: {title}: {failure}; {again}.", file=sys.stderr, flush=True)
    raise CorpusmillError(f"{title}: {failure}, and {restarts} restarts are used up; what it said is in {group.left.root}.")


def _errors_left(left: Storage) -> list[dict[str, Any]]:
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
