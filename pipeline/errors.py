"""The errors whose messages are sentences for the user.

Every error that a user can cause (a wrong path, a broken file, a wrong key) is raised as one of these. The
command line prints only the message and exits with `exit_code`. Any other exception is a bug.
"""

from typing import Any


class CorpusmillError(Exception):
    """The run can't go on; the message is one sentence that names the file and the place."""

    exit_code = 1
    ends_run = False  # whether all other tasks would fail, too
    said = False  # whether the command has already told it, as a part of its result


class InputError(CorpusmillError):
    """Something that the user gave can't be used: a path, a file, a recipe, an option."""

    exit_code = 2


class ClusterLost(CorpusmillError):
    """The head of the Ray cluster no longer answers."""


class Damaged(InputError):
    """A file of a run does not hold what was written. `path` is its full path or URL."""

    def __init__(self, message: str, path: str = ""):
        super().__init__(message)
        self.path = path


class Incomplete(CorpusmillError):
    """The run has ended without some tasks, which the next run tries again."""

    exit_code = 3


class ProcessKilled(CorpusmillError):
    """A child process of a task was killed from outside several times. The task is tried again as after the death of its own process."""


class NothingKept(CorpusmillError):
    """A stage has kept no document, so the stages after it have nothing to work on. `run`: what is there, where Python started it."""

    exit_code = 3
    run: Any = None


class ConfigError(InputError):
    """A recipe or a `--set` that does not fit its schema."""
