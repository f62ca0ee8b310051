"""Makes a fork from the page: `corpusmill fork` in a process of its own, one at a time."""

import shlex
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from corpusmill.filters.fork import next_name
from corpusmill.pipeline.safe import safe_line
from corpusmill.report.explore.answers import Answer, plain
from corpusmill.report.explore.console import Console
from corpusmill.report.explore.parameters import Asked, BadRequest, ForkAsked
from corpusmill.report.explore.thresholds import fork_command, retry


@dataclass
class ForkJob:
    """A fork that is being made or has ended. `output`: what its process has printed."""

    folder: str
    process: subprocess.Popen[bytes]
    output: Path
    began: float = field(default_factory=time.monotonic)
    seconds: float | None = None

    def ended(self) -> bool:
        if self.process.poll() is None:
            return False
        self.seconds = self.seconds or time.monotonic() - self.began
        return True


def start_fork(console: Console, asked: ForkAsked) -> Answer:
    """Starts a fork of a run, beside it and under the next free name. Raises BadRequest if one is being made, or a rule is unknown."""
    if console.job is not None and not console.job.ended():
        raise BadRequest("Another fork is being made: wait until it has ended.", 409)
    retry(console.explorer(asked.run).stage("filter").table, asked.set_)
    folder = console.folder(asked.run)
    new, output = next_name(folder), Path(console.scratch) / "fork.txt"
    arguments = shlex.split(fork_command(folder, asked.set_))[2:]
    command = [sys.executable, "-P", "-m", "corpusmill", "fork", *arguments[:1], new, *arguments[1:]]
    with output.open("wb") as file:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT)
    console.job = ForkJob(new, process, output)
    return job(console, asked)


def job(console: Console, _: Asked) -> Answer:
    """Returns the state of the last fork: none, working, done or failed. `run`: its name in the list of runs; None where only one run is
    explored."""
    made = console.job
    if made is None:
        return {"state": "none"}
    ended = made.ended()
    lines = made.output.read_text(errors="replace").strip().splitlines()
    inside = not console.one and made.folder.startswith(f"{console.storage.root}/")
    return {
        "state": "working" if not ended else "failed" if made.process.returncode else "done",
        "folder": plain(made.folder),
        "run": made.folder.removeprefix(f"{console.storage.root}/") if inside else None,
        "seconds": made.seconds or time.monotonic() - made.began,
        "message": safe_line(lines[-1].removeprefix("corpusmill: "), 600) if lines else "",
        "command": shlex.join(["corpusmill", "explore", made.folder]),
    }
