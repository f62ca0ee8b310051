"""Errors that are sentences for the person who started the run.

Everything a user can cause (a wrong path, a broken file, a wrong key) is raised as one of these; the
command line prints the message alone and exits with `exit_code`. Any other exception is a bug.
"""


class CorpusmillError(Exception):
    """The run can't go on; the message is one sentence that names the file and the place."""

    exit_code = 1


class InputError(CorpusmillError):
    """What the user gave can't be used: a path, a file, a recipe, an option."""

    exit_code = 2


class Incomplete(CorpusmillError):
    """The run has ended, but without some tasks, which the next run takes up again."""

    exit_code = 3


class ProcessKilled(CorpusmillError):
    """A process that worked for a task was killed from outside again and again: no fault of the task's, which is tried again."""


class NothingKept(CorpusmillError):
    """A stage has kept no document, so the stages after it have nothing to work on."""

    exit_code = 3


class ConfigError(InputError):
    """A recipe or a `--set` that does not fit its schema."""
