"""What the page starts with --write: `corpusmill fork`, and `corpusmill run` for the stages of a run that are left. One command at a time,
in a process of its own, which ends with the explorer. How far a run is, its own `progress.json` says."""

import os
import posixpath
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from corpusmill.pipeline.safe import safe_line
from corpusmill.report.explore import answers
from corpusmill.report.explore.answers import Answer, plain
from corpusmill.report.explore.console import Console
from corpusmill.report.explore.parameters import Asked, BadRequest, ForkAsked, RunAsked
from corpusmill.report.explore.thresholds import retry, settings
from corpusmill.report.live.status import Status
from corpusmill.report.read import RunReader

#: Seconds that a process has to end by itself.
PATIENCE = 15
#: The last stage that the page proposes: training comes after it, and may take days.
PROPOSED = "tokens"


@dataclass
class ChildRun:
    """A command that works or has worked. `what`: fork or run; `of`: the run that it was started in; `run`, `folder`: the run that it makes
    or goes on with; `messages`: what its process says; `stopped`: somebody has stopped it."""

    what: str
    of: str
    run: str
    folder: str
    process: subprocess.Popen[bytes]
    messages: Path
    began: float = field(default_factory=time.monotonic)
    seconds: float | None = None
    stopped: bool = False

    def working(self) -> bool:
        return self.process.poll() is None

    def stop(self) -> None:
        """Ends the process as Ctrl-C does, so that its run can go on later; the second time with force."""
        with suppress(ProcessLookupError):
            if self.stopped:
                os.killpg(self.process.pid, signal.SIGKILL)
            elif self.working():
                self.process.terminate()
        self.stopped = True

    def close(self) -> None:
        """Stops the process and waits for its end."""
        while self.working():
            self.stop()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(PATIENCE)

    def message(self) -> str:
        """Returns the sentence with which the process has ended, or the last that it said."""
        lines = self.messages.read_text(errors="replace").strip().splitlines()
        said = [line for line in lines if line.startswith("corpusmill: ")] or lines
        return safe_line(said[-1].removeprefix("corpusmill: "), 1000) if said else ""


def start_fork(console: Console, asked: ForkAsked) -> Answer:
    """Starts a fork of a run, beside it. Raises BadRequest if another command is at work, or a rule is unknown."""
    retry(console.explorer(asked.run).stage("filter").table, asked.set_)
    name, folder = console.beside(asked.run, asked.name)
    return _start(console, "fork", asked.run, name, folder, *settings(asked.set_), "--", console.folder(asked.run), folder)


def go_on(console: Console, asked: RunAsked) -> Answer:
    """Starts the stages of a run that are left, up to `to`. Raises BadRequest if another command is at work, or there is nothing to do."""
    left = status(console, asked)["left"]
    if asked.to not in left:
        raise BadRequest(f"There is no such stage left to do here ({', '.join(left) or 'all are done, or a process works'}).", 409)
    alarm = ["--set", "dedup.alarm=warn"] if asked.alarm else []
    folder = console.folder(asked.run)
    return _start(console, "run", asked.run, asked.run, folder, "--from", left[0], "--to", asked.to, *alarm, "--", folder)


def stop(console: Console, asked: Asked) -> Answer:
    """Stops the command that is at work; its run can go on later."""
    if console.job is not None and console.job.working():
        console.job.stop()
    return job(console, asked)


def _start(console: Console, what: str, of: str, run: str, folder: str, *arguments: str) -> Answer:
    if console.job is not None and console.job.working():
        raise BadRequest(f"{console.job.folder} is at work: wait until it has ended, or stop it.", 409)
    messages = Path(console.scratch) / "job.txt"
    command = [sys.executable, "-P", "-m", "corpusmill", what, *arguments]
    with messages.open("wb") as file:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=file, start_new_session=True)
    console.job = ChildRun(what, of, run, folder, process, messages)
    return job(console, Asked())


def job(console: Console, _: Asked) -> Answer:
    """Returns the state of the last command: none, working, stopped, done or failed; of a run at work, its stage and the share done."""
    made = console.job
    if made is None:
        return {"state": "none"}
    working = made.working()
    phase = Status(made.folder).read()["phase"] if working and made.what == "run" else None
    if not working and made.seconds is None:
        made.seconds = time.monotonic() - made.began
        console.forget(made.run)  # the next question reads the new reports
    ended = "stopped" if made.stopped else "failed" if made.process.returncode else "done"
    return {
        "state": "working" if working else ended, "what": made.what, "of": made.of, "run": made.run, "folder": plain(made.folder),
        "seconds": made.seconds or time.monotonic() - made.began, "message": "" if working else made.message(),
        "stage": phase and phase["stage"], "share": plain(phase and phase["share"]),
    }  # fmt: skip


def status(console: Console, asked: Asked) -> Answer:
    """Returns a run's status, and what is left to do if no process works on it: the stages in order, the one proposed as the last, the
    command without it, and whether deduplication has stopped on an alarm."""
    found, folder, made = answers.status(console.explorer(asked.run)), console.folder(asked.run), console.job
    stale = (found["stale"] or {"stages": ()})["stages"]
    left = [stage["name"] for stage in found["stages"] if stage["status"] != "complete" or stage["name"] in stale]
    if (found["state"] in ("running", "unknown") and found["began"]) or (made and made.working() and made.folder == folder):
        left = []
    reader = RunReader(folder)
    stops = "dedup" in left and reader.settings("dedup").get("alarm") == "stop"
    return found | {
        "left": left, "to": PROPOSED if PROPOSED in left else left[-1] if left else None,
        "command": shlex.join(["corpusmill", "run", folder, "--from", left[0], "--to"]) if left else "",
        "alarm": stops and any(task.counts.get("alarms") for task in reader.stages["dedup"].tasks),
    }  # fmt: skip


def described(console: Console, asked: Asked) -> Answer:
    """Returns a run's description, with its name and that of the run that it was forked from (None where that is not explored here)."""
    explorer, own, parent = console.explorer(asked.run), console.name(asked.run), None
    with suppress(BadRequest):
        beside = posixpath.normpath(posixpath.join(own, explorer.parent)) if explorer.parent else None
        parent = beside if beside and console.folder(beside) else None
    return answers.run(explorer) | {"own": own, "parent": parent}
