"""What has gone wrong: failures that `errors.log` has of all attempts, processes that died among them, and what the last attempt said."""

import re
from typing import Any

from corpusmill.pipeline.errors import CorpusmillError
from corpusmill.pipeline.recipe import STAGES
from corpusmill.pipeline.safe import safe_line
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.log import ERRORS, read_appended

#: The last failures that are told in words, and the end of the log that is read for them.
SHOWN, END = 5, 1 << 20
_HEAD = re.compile(rf"(?:\A|\n\n)(?P<stage>{'|'.join(STAGES)}) (?P<task>[^\n]*)\n")


def read_failures(run: Storage, said: dict[str, Any] | None) -> dict[str, Any]:
    """`count` failures in errors.log, and the last of them: stage, task, and the last line of the trace."""
    heads = list(_HEAD.finditer(text := _log(run)))
    ends = [*(head.start() for head in heads[1:]), len(text)][: len(heads)]
    told = [
        {"stage": head["stage"], "task": safe_line(head["task"], 200), "message": safe_line(_last_line(text[head.end() : end]), 400)}
        for head, end in zip(heads, ends, strict=True)
    ]
    last = said["failure"] if said else None
    return {"count": max(len(told), int(last is not None)), "last": told[-SHOWN:], "sentence": last}


def _log(run: Storage) -> str:
    """The end of the log, from the beginning of a failure on."""
    try:
        return read_appended(run, ERRORS, END).decode("utf-8", "replace")
    except (OSError, CorpusmillError):
        return ""


def _last_line(trace: str) -> str:
    return next((line for line in reversed(trace.splitlines()) if line.strip()), "")
