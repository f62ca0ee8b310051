"""The commands that run a recipe (`run`), or only its decisions (`retune`; `fork` in a new run)."""

import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from corpusmill.cli.base import RunFolder, Sets, Thresholds, Trust, app, make_console, warn_if_stale
from corpusmill.pipeline.errors import CorpusmillError

EngineName = Literal["auto", "ray", "inline"]
EngineOption = Annotated[
    EngineName, typer.Option(help="auto: Ray, except for what is small; ray: parallel, here or on RAY_ADDRESS; inline: in this process.")
]
Workers = Annotated[int, typer.Option(min=0, help="Parallel workers; 0 means one for each CPU.")]
TaskTimeout = Annotated[
    float | None,
    typer.Option(
        min=0,
        metavar="SECONDS",
        help="A task that takes longer than this, and as long again for each 32 MiB of its input, is ended and tried once more, "
        "then given up; 0: no limit.  [default: 3600]",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object about the result on standard output, all else on standard error.")]

#: The most quarantined tasks that the result of a command lists.
NAMED = 20


class Interrupted(CorpusmillError):
    """Ctrl-C or SIGTERM in a command that can go on where it stopped. `how`: what the user does for that."""

    def __init__(self, code: int, how: str):
        super().__init__(f"interrupted; {how}")
        self.exit_code = code


class CommandResult:
    """The result of a command on a run, for the calling program: one line of JSON. A listener, so that it is right wherever the command
    ends."""

    def __init__(self, run: str):
        from corpusmill.pipeline.watch.log import clean

        self.started, self.clean = time.monotonic(), clean
        self.stages: dict[str, dict[str, Any]] = {}
        self.quarantined: dict[tuple[str, str], str] = {}
        self.end: dict[str, Any] = {"run": clean(run), "status": "finished", "exit_code": 0, "message": None}
        self.report: str | None = None

    def __call__(self, event: Any) -> None:
        """Counts of documents are null where the stage is not finished, or writes none (`Manifest.documents`)."""
        match event.kind:
            case "stage_end" | "stage_broken_off":
                fields, documents = event.fields, event.fields["documents"]
                self.stages[event.stage] = {
                    **{name: fields[name] for name in ("complete", "tasks", "performed")},
                    **{name: documents.get(fate) for name, fate in (("rows_in", "in"), ("kept", "kept"), ("dropped", "dropped"))},
                    **{name: fields[name] for name in ("bytes_in", "seconds", "quarantined", "warnings")},
                }
            case "quarantine":
                self.quarantined[event.stage, event.task] = event.message
            case "report":
                self.report = event.message

    def ended(self, error: BaseException) -> None:
        """Sets status, exit code and message from the error that ends the command."""
        from corpusmill.pipeline.errors import Incomplete, NothingKept
        from corpusmill.pipeline.run import message_of

        kinds = {Incomplete: "quarantined", NothingKept: "empty", Interrupted: "interrupted"}
        status = next((status for kind, status in kinds.items() if isinstance(error, kind)), "failed")
        code = error.exit_code if isinstance(error, CorpusmillError) else 1
        self.end |= {"status": status, "exit_code": code, "message": self.clean(message_of(error))}

    def line(self) -> str:
        given_up = [
            {"stage": stage, "task": self.clean(task), "message": self.clean(message)}
            for (stage, task), message in islice(self.quarantined.items(), NAMED)
        ]
        seconds = round(time.monotonic() - self.started, 3)
        return json.dumps({**self.end, "seconds": seconds, "stages": self.stages, "quarantined": given_up, "report": self.report})


@contextmanager
def reported(result: CommandResult, as_json: bool, folder: str, new: bool) -> Iterator[None]:
    """Ends a run. An interrupt becomes a message that says how to go on. With `as_json` the output is the result as one line of JSON, also
    after an error, which is then said there alone. `new`: the command has made up the run's folder."""
    from corpusmill.pipeline.interrupts import exit_code_of, of_an_interrupt
    from corpusmill.pipeline.lease import LeaseLost
    from corpusmill.pipeline.run import RUN_FILE

    try:
        try:
            yield
        except (KeyboardInterrupt, Exception) as error:
            if isinstance(error, LeaseLost) or not of_an_interrupt(error):
                raise
            begun = new and Path(folder, RUN_FILE).exists()
            how = f"go on with: corpusmill run {folder}" if begun else "run the same command again to go on where it stopped."
            raise Interrupted(exit_code_of(error), how) from error
    except BaseException as error:
        result.ended(error)
        if isinstance(error, CorpusmillError):
            error.said = as_json
        raise
    finally:
        if as_json:
            print(result.line(), flush=True)


@contextmanager
def _said_in_json(run: str, as_json: bool) -> Iterator[None]:
    """With `as_json`, says an error of the command as `reported` does: alone, as one line of JSON."""
    result = CommandResult(run)
    try:
        yield
    except CorpusmillError as error:
        if as_json:
            result.ended(error)
            error.said = True
            print(result.line(), flush=True)
        raise


def _console(stderr: bool = False) -> tuple[Any, Callable[[str], None]]:
    """Returns a terminal, and a function that prints a note on it."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True, stderr=stderr)
    return console, lambda sentence: console.print(f"Note: {sentence}", markup=False)


def execute_plan(
    plan: Any, engine: Any, result: CommandResult, as_json: bool, port: int | None = None, host: str = "", file: str | None = None
) -> None:
    """Executes a plan and writes its report, and prints what a person wants to know of it: with `as_json` to standard error.

    `port`, `host`, `file`: where metrics are served and written.
    """
    from corpusmill.pipeline.errors import Incomplete
    from corpusmill.pipeline.run import execute
    from corpusmill.pipeline.storage import Storage
    from corpusmill.pipeline.watch.progress import Progress
    from corpusmill.report.answers.terminal import closing_lines, stage_summary
    from corpusmill.report.page.html import write_report

    console, print_note = _console(as_json)

    def tell(event: Any) -> None:
        if event.kind == "stage_end":
            stage_summary(plan.folder, event, console)
        if event.kind == "report":
            closing_lines(plan.folder, event.message, console)

    with ExitStack() as open_:
        listeners: list[Any] = [result, tell]
        if port is not None or file is not None:
            from corpusmill.pipeline.watch.metrics import Prometheus

            prometheus = Prometheus(Path(plan.folder).name, file, print_note)
            listeners.append(prometheus)
            if port is not None:
                print_note(f"metrics: http://{host}:{open_.enter_context(prometheus.served(host, port))}/metrics")
        lost = execute(plan, engine, open_.enter_context(Progress(on_note=print_note)), *listeners, write_report=write_report)
    warn_if_stale(plan.folder)
    if result.report is None and not Storage(plan.folder).exists("report.html"):  # after a part of the stages
        print_note(f"A page of what is there: corpusmill report {shlex.quote(plan.folder)}")
    if lost:
        raise Incomplete(lost)


#: What each stage does.
STAGE_HELP = {
    "ingest": "Read crawls and collections, and extract the text of every page.",
    "filter": "Measure every document, and decide which go on.",
    "dedup": "Find exact and near duplicates, and keep the best copy.",
    "tokenizer": "Train a byte-level BPE tokenizer on what was kept.",
    "tokens": "Encode the documents into shuffled token shards.",
    "pretrain": "Pre-train a compact Llama on the token shards.",
    "sft": "Tune the model to follow instructions.",
    "align": "Align the tuned model with preferences (DPO).",
    "evaluate": "Measure the models on text that they have not seen.",
    "ablate": "Compare variants of a corpus by the models that they make.",
}
RUN_HELP = """Run a recipe, or some of its stages, on raw crawls. Finished work is never done twice.

The stages, in their order:

\b
""" + "\n".join(f"{stage:<10} {what}" for stage, what in STAGE_HELP.items())


@app.command(
    help=RUN_HELP,
    epilog="Example: corpusmill run fineweb crawl/ --output runs/web --set filter.thresholds.gopher_short_doc=30 --to filter, "
    "and later: corpusmill run runs/web",
)
def run(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE|RUN",
            help="A recipe file or the name of one that ships (demo, fineweb, ...); or a run's folder, to go on with it.",
        ),
    ],
    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="INPUT", help="Files, folders, globs or URLs of crawls, or cc:CC-MAIN-2026-04?segments=3."),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="The run's folder; an existing run goes on where it stopped. [default: a new one below runs/]",
        ),
    ] = None,
    set_: Sets = None,
    engine: EngineOption = "auto",
    workers: Workers = 0,
    task_timeout: TaskTimeout = None,
    from_: Annotated[str | None, typer.Option("--from", metavar="STAGE", help="The first stage to run.")] = None,
    to: Annotated[str | None, typer.Option("--to", metavar="STAGE", help="The last stage to run.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="End at the first task that fails, instead of going on without it.")] = False,
    redo: Annotated[bool, typer.Option("--redo", help="Let other inputs or another recipe replace stages that are finished.")] = False,
    as_json: Json = False,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, metavar="PORT", help="Serve Prometheus metrics (/metrics) on this port during the run; 0: any free port."
        ),
    ] = None,
    metrics_host: Annotated[
        str, typer.Option(metavar="HOST", help="Where that port listens; by default on this machine alone.")
    ] = "127.0.0.1",
    metrics_file: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Write metrics to this file after each phase, for a node exporter's textfile collector."),
    ] = None,
) -> None:
    from corpusmill.pipeline.on_ray.engine import make_engine
    from corpusmill.pipeline.run import folder_of, plan_of

    with folder_of(recipe, inputs or [], output) as (folder, new):
        result = CommandResult(folder)
        with reported(result, as_json, folder, new):
            performer = make_engine(engine, workers, task_timeout)  # before a folder is made: the cluster may be out of reach
            plan = plan_of(recipe, inputs or [], output, folder, set_ or [], from_, to, strict, redo)
            if new:
                print(f"The run's folder: {folder}", file=sys.stderr if as_json else sys.stdout, flush=True)
            execute_plan(plan, performer, result, as_json, metrics_port, metrics_host, metrics_file)


@app.command(epilog="Example: corpusmill plan runs/edu, before corpusmill run runs/edu --from filter")
def plan(
    run: RunFolder,
    set_: Sets = None,
    sample: Annotated[int, typer.Option(min=1, max=10_000, help="Questions to ask for each step; their answers are kept.")] = 50,
    workers: Annotated[int, typer.Option(min=1, help="Workers that will ask at once, for the hours.")] = 1,
    as_json: Json = False,
) -> None:
    """Say what the steps llm of a run will ask and cost. From a sample of answers; the run's documents have to be there."""
    from dataclasses import asdict
    from json import dumps

    from corpusmill.filters.llm.plan import plan_steps
    from corpusmill.report.tables import cell, table

    with _said_in_json(run, as_json):
        steps = plan_steps(run, set_ or [], sample)
    if as_json:
        print(dumps([{**asdict(step), "hours": step.hours(workers)} for step in steps]))
        return
    made = table("step", "model", "documents", "tokens in", "tokens out", "dollars", "hours", "without a value")
    for step in steps:
        tokens = (f"{number:,.0f} ±{half:,.0f}" for number, half in (step.tokens_in, step.tokens_out))
        dollars = f"{step.dollars:,.2f}" if step.dollars else "-"
        shown = (f"{step.documents:,}", *tokens, dollars, f"{step.hours(workers):,.2f}", f"{step.refused} of {step.answers}")
        made.add_row(*(cell(each, 60) for each in (step.name, step.model, *shown)))
    make_console().print(made)


@app.command(
    epilog="Example: corpusmill retune runs/demo --set filter.thresholds.gopher_short_doc=30 --set filter.thresholds.list_ratio=off"
)
def retune(
    run: RunFolder,
    set_: Thresholds = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")] = False,
    trust: Trust = False,
    engine: EngineOption = "auto",
    workers: Workers = 0,
    as_json: Json = False,
) -> None:
    """Decide again with other thresholds. A threshold is a number, off, or on; nothing is measured again."""
    from corpusmill.filters.views import show_retuned
    from corpusmill.filters.whatif import retune as decide_again
    from corpusmill.pipeline.errors import Incomplete, NothingKept
    from corpusmill.pipeline.on_ray.engine import make_engine
    from corpusmill.pipeline.run import note_old_page
    from corpusmill.pipeline.watch.progress import Progress

    console, print_note = _console(as_json)
    with _said_in_json(run, as_json):
        retuned = decide_again(
            run,
            set_ or [],
            make_engine(engine, workers),
            Progress(),
            on_decided=lambda result: show_retuned(result, console),
            write=not dry_run,
            on_message=print_note,
            trust=trust,
        )
    _print_retuned(run, retuned, as_json)
    if not dry_run:
        if retuned.changed:
            note_old_page(run, print_note)
        warn_if_stale(run)
    elif retuned.documents and not retuned.kept:
        raise NothingKept(f"filter: none of {retuned.documents:,} documents would be kept.")
    if retuned.lost:
        raise Incomplete(retuned.lost)


def _print_retuned(run: str, retuned: Any, as_json: bool) -> None:
    """With `as_json`, prints what new thresholds change in a run; the other output is on standard error then."""
    from dataclasses import asdict

    from corpusmill.report.machine import as_json as written

    if as_json:
        print(written({"run": run, **asdict(retuned)}), flush=True)


@app.command(epilog="Example: corpusmill fork runs/demo --set filter.thresholds.gopher_short_doc=30, and then: corpusmill run runs/demo-2")
def fork(
    run: RunFolder,
    new: Annotated[
        str | None,
        typer.Argument(metavar="NEW", help="The new run's folder. [default: RUN-2, or the next free number]", show_default=False),
    ] = None,
    set_: Thresholds = None,
    engine: EngineOption = "auto",
    workers: Workers = 0,
    as_json: Json = False,
) -> None:
    """Make a new run with other thresholds. It shares the files of the first one, which stays as it is; nothing is measured again."""
    from corpusmill.filters.fork import fork as make_fork
    from corpusmill.filters.views import show_retuned
    from corpusmill.pipeline.errors import Incomplete
    from corpusmill.pipeline.on_ray.engine import make_engine
    from corpusmill.pipeline.watch.progress import Progress

    console, print_note = _console(as_json)
    with _said_in_json(run, as_json):
        made, retuned = make_fork(
            run,
            new,
            set_ or [],
            make_engine(engine, workers),
            Progress(),
            on_decided=lambda result: show_retuned(result, console),
            on_message=print_note,
        )
    console.print(f"The new run: {made}; it goes on with: {shlex.join(['corpusmill', 'run', made])}", markup=False)
    _print_retuned(made, retuned, as_json)
    if retuned.lost:
        raise Incomplete(retuned.lost)
