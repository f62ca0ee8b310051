"""Shows the status of a run on a terminal, within 80 columns; with `--watch` repeatedly until the run ends."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from rich.console import Console, Group
from rich.text import Text

from corpusmill.pipeline.names import counted
from corpusmill.pipeline.safe import safe_line
from corpusmill.pipeline.storage import Storage
from corpusmill.report.live.status import BAD, ENDED, Status, saved_steps, unit_of
from corpusmill.report.machine import as_json as as_line

#: Seconds between two readings; characters of a bar, and of a stage's name.
INTERVAL, BAR, NAME = 2.0, 30, 11
#: Tasks that were given up and are shown.
QUARANTINED = 5
_STYLES = {
    "complete": "green",
    "running": "bold",
    "interrupted": "bold red",
    "failed": "bold red",
    "abandoned": "bold red",
    "stale": "bold red",
    "unfinished": "yellow",
}


def show_status(
    folder: str, console: Console, *, watch: bool = False, as_json: bool = False, wait: Callable[[float], None] = time.sleep
) -> int:
    """Prints the status, with `watch` repeatedly until the run has ended, and without it the saved states of trainings. As JSON each status
    is one line. Returns the exit code: 1 where the run failed, is stale, or was abandoned. Raises InputError if `folder` is not a run."""
    status = Status(folder)
    found = status.read() | ({} if watch else {"saved_steps": saved_steps(Storage(folder))})
    if as_json or not console.is_terminal:
        while True:
            print(as_line(found), flush=True) if as_json else _print(found, console)
            if not watch or found["state"] in ENDED:
                return int(found["state"] in BAD)
            wait(INTERVAL)
            found = status.read()
    if watch and found["state"] not in ENDED:
        from rich.live import Live

        with Live(render(found), console=console, auto_refresh=False, transient=True) as live:
            while found["state"] not in ENDED:
                wait(INTERVAL)
                found = status.read()
                live.update(render(found), refresh=True)
    _print(found, console)
    return int(found["state"] in BAD)


def _print(found: dict[str, Any], console: Console) -> None:
    console.print(render(found))


def render(found: dict[str, Any]) -> Group:
    """Returns one status as text."""
    sentence = Text(safe_line(found["sentence"], 1000), style=_STYLES.get(found["state"], ""))
    parts = [Text(f"{safe_line(found['run'], 60)}: ", style="bold") + sentence]
    for row in found["quarantined"][:QUARANTINED]:
        where = ", ".join(row["inputs"][:3]) or "no input"
        parts.append(
            Text(
                f"  given up: {row['stage']} {safe_line(row['task'], 60)} ({safe_line(where, 120)}): {safe_line(row['message'], 300)}",
                style="bold red",
            )
        )
    if times := _times(found):
        parts.append(Text(times, style="dim"))
    parts += [Text(""), *(line for stage in found["stages"] for line in _stage(stage, found))]
    for asked in found["questions"]:
        cost = f", ${asked['dollars']:,.2f}" if asked["dollars"] else ""
        tokens = f"{asked['tokens_in']:,} tokens in, {asked['tokens_out']:,} out"
        named = f"{safe_line(asked['step'], 40)} ({safe_line(asked['model'], 60)})"
        parts.append(Text(f"Asked of {named}: {counted(asked['questions'], 'question')}, {tokens}{cost}", style="dim"))
    if (failures := found["failures"])["count"]:
        parts += [Text(""), Text(f"Failures so far: {failures['count']:,}", style="bold red")]
        parts += [Text(f"  {f['stage']} {safe_line(f['task'], 60)}: {safe_line(f['message'], 300)}") for f in failures["last"]]
    for stage, steps in found.get("saved_steps", {}).items():
        parts.append(Text(f"States of {stage} were saved after {', '.join(map(str, steps))} steps (corpusmill export --step)", style="dim"))
    if found["warnings"]:
        parts.append(Text(f"Warnings of finished tasks: {found['warnings']:,} (corpusmill report has them)", style="yellow"))
    return Group(*parts)


def _times(found: dict[str, Any]) -> str:
    if not found["began"]:
        return ""
    began = f"began {found['began'][:19].replace('T', ' ')} UTC"
    if found["ended"]:
        return f"{clock(found['work_seconds'])} of work in all; the last command {began} and took {clock(found['seconds'])}"
    parts = [began]
    if found["seconds"] is not None:
        parts.append(f"{clock(found['seconds'])} so far")
    if found["last_sign_seconds"] is not None:
        parts.append(f"last sign {clock(found['last_sign_seconds'])} ago")
    return ", ".join(parts)


def _stage(stage: dict[str, Any], found: dict[str, Any]) -> list[Text]:
    """Returns the line of a stage, and below it the progress of its present phase."""
    line = Text(f"{stage['name']:<{NAME}}") + Text(stage["status"], style=_STYLES.get(stage["status"], "dim"))
    if stage["status"] == "complete" and stage["documents_in"] is not None:
        line.append(f"  {counted(stage['documents_in'], unit_of(stage['name']))} in, {counted(stage['documents_out'], 'document')} kept")
    if stage["status"] == "unfinished":
        line.append(f"  {stage['tasks']:,} tasks done")
    phase, training = found["phase"], found["training"]
    if not phase or phase["stage"] != stage["name"] or stage["status"] != "running":
        return [line]
    below = _training(phase, training) if training else _phase(phase)
    return [line, *(Text(" " * NAME + text, style="dim" if number else "") for number, text in enumerate(below) if text)]


def _phase(phase: dict[str, Any]) -> list[str]:
    tasks = phase["tasks"]
    name = f"{safe_line(phase['phase'], 20)} " if phase["phase"] else ""
    counts = f"{name}{tasks['before'] + tasks['done']:,} of {tasks['planned']:,} tasks"
    speed = [f"{phase['rows_per_second']:,.0f} rows/s"] if phase["rows_per_second"] else []
    speed += [f"{phase['mb_per_second']:,.2f} MB/s"] if phase["mb_per_second"] else []
    return [f"{_bar(phase['share'])} {counts}", _left(phase["seconds_left"], phase), ", ".join(speed)]


def _training(phase: dict[str, Any], training: dict[str, Any]) -> list[str]:
    done, steps = training["steps_done"], training["steps"]
    counts = f"step {done:,}" + (f" of {steps:,}" if steps else "")
    parts = [f"loss {training['loss']:.3f}" if isinstance(training["loss"], float) else f"loss {training['loss']}"]
    parts += [f"{training['validation_bits_per_byte']:.3f} bits per byte"] if training["validation_bits_per_byte"] is not None else []
    parts += [f"{training['tokens_per_second']:,.0f} tokens/s"] if training["tokens_per_second"] is not None else []
    return [f"{_bar(done / steps)} {counts}" if steps else counts, _left(training["seconds_left"], phase), ", ".join(parts)]


def _bar(share: float) -> str:
    full = int(BAR * min(share, 1.0))
    return f"{'█' * full}{'░' * (BAR - full)} {share:4.0%}"


def _left(seconds: float | None, phase: dict[str, Any]) -> str:
    return f"{clock(phase['seconds'])} so far, {'about ' + clock(seconds) if seconds is not None else 'not known how much is'} left"


def clock(seconds: float) -> str:
    """Formats seconds as hours, minutes and seconds."""
    return str(timedelta(seconds=round(seconds)))
