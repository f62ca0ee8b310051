"""The commands that run a recipe (`run`), one of its stages (`ingest`, `filter`, ...), or only its decisions (`retune`)."""

import os
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import typer

from corpusmill.cli.base import (
    LOOPBACK,
    EngineName,
    EngineOption,
    Interrupted,
    Metrics,
    MetricsFile,
    MetricsHost,
    MetricsPort,
    Redo,
    RunFolder,
    Sets,
    Strict,
    TaskTimeout,
    Workers,
    app,
    make_engine,
    sft_app,
    tokens_app,
    warn_if_stale,
)


def _carry_out(
    folder: str,
    make_plan: Callable[[], Any],
    engine: EngineName,
    workers: int,
    task_timeout: float | None,
    metrics: Metrics,
    again: str = "",
) -> None:
    """Plans and executes a run. The last line of the output is its result in JSON, also after an error.

    `again`: the option with which the user goes on with this run (`--output FOLDER`); empty where the user gave it.
    """
    from corpusmill.pipeline.interrupts import exit_code_of, of_an_interrupt
    from corpusmill.pipeline.lease import LeaseLost
    from corpusmill.pipeline.run import Outcome

    outcome = Outcome(folder)
    try:
        try:
            _execute(make_plan(), engine, make_engine(engine, workers, task_timeout), metrics, outcome)
        except (KeyboardInterrupt, Exception) as error:
            if isinstance(error, LeaseLost) or not of_an_interrupt(error):
                raise
            raise Interrupted(exit_code_of(error), again) from error
    except BaseException as error:
        outcome.ended(error)
        raise
    finally:
        print(outcome.line(), flush=True)


def _execute(plan: Any, name: EngineName, engine: Any, metrics: Metrics, outcome: Any) -> None:
    from rich.console import Console

    from corpusmill.pipeline.errors import Incomplete, NothingKept
    from corpusmill.pipeline.run import StageResult, execute
    from corpusmill.pipeline.watch.progress import Progress
    from corpusmill.report.answers.terminal import closing_lines, stage_summary

    console = Console(highlight=False, soft_wrap=True)

    def print_note(sentence: str) -> None:
        console.print(f"Note: {sentence}", markup=False)

    performed: list[int] = []

    def on_stage(result: StageResult) -> None:
        performed.append(result.performed)
        stage_summary(plan.folder, result, console)

    lost, empty = "", None
    with _watching(plan.folder, name, metrics, outcome, print_note) as watching:
        try:
            lost = execute(plan, engine, Progress(), print_note, on_stage, watching)
        except NothingKept as error:
            empty = error
    if plan.last is None or (len(plan.stages()) > 1 and plan.stages()[-1] == list(plan.sections)[-1]):  # the run is finished
        from corpusmill.report.page.html import write_report

        outcome.report = write_report(plan.folder)
        closing_lines(plan.folder, outcome.report, console)
    elif any(performed):
        _note_old_page(plan.folder, print_note)
    warn_if_stale(plan.folder)
    if empty:
        raise empty
    if lost:
        raise Incomplete(lost)


def _note_old_page(folder: str, on_message: Callable[[str], None]) -> None:
    from corpusmill.pipeline.storage import Storage
    from corpusmill.report.page.html import REPORT_FILE

    if Storage(folder).exists(REPORT_FILE):
        on_message(f"{REPORT_FILE} shows an earlier state of the run; update it with: {shlex.join(['corpusmill', 'report', folder])}")


@contextmanager
def _watching(folder: str, engine: EngineName, metrics: Metrics, outcome: Any, on_message: Callable[[str], None]) -> Iterator[Any]:
    """Yields the observers of a run. Metrics are served while the block runs; the metrics file is written once more when it ends."""
    from corpusmill.pipeline.run import Watching

    meters: list[Any] = []
    if engine != "inline" and os.environ.get("RAY_ADDRESS"):  # a Ray cluster exports metrics itself
        from corpusmill.pipeline.watch.metrics import RayMeter

        meters.append(RayMeter(Path(folder).name))
    if metrics.port is None and metrics.file is None:
        yield Watching(outcome, meters)
        return
    from corpusmill.pipeline.watch.metrics import Prometheus, TextFile

    prometheus = Prometheus()
    write = TextFile(prometheus, metrics.file, on_message).write if metrics.file else lambda: None
    with ExitStack() as open_:
        open_.callback(write)
        if metrics.port is not None:
            port = open_.enter_context(prometheus.served(metrics.host, metrics.port))
            on_message(f"metrics: http://{metrics.host}:{port}/metrics")
        yield Watching(outcome, [*meters, prometheus], write)


@app.command(epilog="Example: corpusmill run recipes/demo.yaml crawl/ --output runs/demo --set dedup.threshold=0.8 --to dedup")
def run(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe file, or the name of a built-in recipe (demo, fineweb).")],
    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="INPUT...", help="Files, folders, globs or URLs of crawls, or cc:CC-MAIN-2026-04?segments=3."),
    ] = None,
    output: Annotated[
        str | None, typer.Option(help="The run's folder; an existing run goes on where it stopped. [default: a new one below runs/]")
    ] = None,
    set_: Sets = None,
    engine: EngineOption = "auto",
    workers: Workers = 0,
    task_timeout: TaskTimeout = None,
    from_: Annotated[str | None, typer.Option("--from", metavar="STAGE", help="The first stage to run.")] = None,
    to: Annotated[str | None, typer.Option("--to", metavar="STAGE", help="The last stage to run.")] = None,
    strict: Strict = False,
    redo: Redo = False,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = LOOPBACK,
    metrics_file: MetricsFile = None,
) -> None:
    """Run a recipe on raw crawls: every stage, or some of them; finished work is never done twice."""
    from corpusmill.pipeline.run import new_plan

    folder = output or _new_folder(recipe, inputs or [])
    again = "" if output else f"--output {folder}"
    if again:
        print(f"This run is in {folder}; the same command with {again} goes on with it.", flush=True)
    try:
        _carry_out(
            folder,
            lambda: new_plan(folder, _recipe_path(recipe), inputs or [], set_ or [], from_, to, strict=strict, redo=redo),
            engine,
            workers,
            task_timeout,
            Metrics(metrics_port, metrics_host, metrics_file),
            again,
        )
    finally:
        if again:
            with suppress(OSError):  # the folder is not empty: the run has begun
                Path(folder).rmdir()


def _new_folder(recipe: str, inputs: list[str]) -> str:
    """Creates a new run folder, `runs/RECIPE-INPUT-NUMBER`, and returns it. Raises InputError if it can't be created."""
    from corpusmill.pipeline.errors import InputError

    names = [Path(recipe).stem, *(Path(given.partition("?")[0]).name.partition(".")[0] for given in inputs[:1])]
    name = "-".join(filter(None, (re.sub(r"[^A-Za-z0-9_]+", "-", name).strip("-")[:40] for name in names)))
    for number in count(1):
        folder = f"runs/{name or 'run'}-{number}"
        try:
            os.makedirs(folder)
        except FileExistsError:
            continue
        except OSError as error:
            raise InputError(f"{folder}: can't be written ({error.strerror}).") from error
        return folder
    raise AssertionError


def _recipe_path(recipe: str) -> str:
    """Returns the path of a recipe: `recipe` itself where it exists, else that of the shipped recipe of this name."""
    shipped = Path(__file__).parent.parent / "recipes" / f"{recipe}.yaml"
    return str(shipped) if not Path(recipe).exists() and shipped.exists() else recipe


STAGE_HELP = {
    "ingest": "Read crawls and collections (WARC, ARC, WET, JSONL, Parquet, HTML, text) and extract the main text of every page.",
    "filter": "Measure every document (language, Gopher, FineWeb, C4, quality) and decide which go on.",
    "dedup": "Find exact and near duplicates, verify them, and keep the best copy of each.",
    "tokenizer": "Train a byte-level BPE tokenizer on the documents that were kept.",
    "tokens": "Encode the documents into shuffled token shards in which every token has an address.",
    "pretrain": "Pre-train a compact Llama on the token shards.",
    "sft": "Tune the model to follow instructions.",
    "align": "Align the tuned model with preferences (DPO).",
    "evaluate": "Measure the models on text and preferences that they have not seen.",
}


def _stage_command(stage: str) -> None:
    def command(
        run: RunFolder,
        recipe: Annotated[str | None, typer.Option(help="The recipe of a new run, or a changed recipe.")] = None,
        input_: Annotated[list[str] | None, typer.Option("--input", metavar="INPUT", help="An input of a new run.")] = None,
        set_: Sets = None,
        to: Annotated[str | None, typer.Option(metavar="STAGE", help="Also run the stages after it, up to this one.")] = None,
        engine: EngineOption = "auto",
        workers: Workers = 0,
        task_timeout: TaskTimeout = None,
        strict: Strict = False,
        redo: Redo = False,
        metrics_port: MetricsPort = None,
        metrics_host: MetricsHost = LOOPBACK,
        metrics_file: MetricsFile = None,
    ) -> None:
        from corpusmill.pipeline.run import new_plan, plan_of_existing

        def plan() -> Any:
            if recipe:
                return new_plan(run, _recipe_path(recipe), input_ or [], set_ or [], stage, to or stage, strict, redo)
            return plan_of_existing(run, set_ or [], stage, to or stage, strict, redo)

        _carry_out(run, plan, engine, workers, task_timeout, Metrics(metrics_port, metrics_host, metrics_file))

    command.__doc__ = f"{STAGE_HELP[stage]} Works on an existing run."
    group, name = {"tokens": (tokens_app, "encode"), "sft": (sft_app, "tune")}.get(stage, (app, stage))
    group.command(name, epilog=f"Example: corpusmill {stage} runs/demo")(command)


for _stage in STAGE_HELP:
    _stage_command(_stage)


@app.command(
    epilog="Example: corpusmill retune runs/demo --set filter.thresholds.gopher_short_doc=30 --set filter.thresholds.list_ratio=off"
)
def retune(
    run: RunFolder,
    set_: Sets = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")] = False,
    engine: EngineOption = "auto",
    workers: Workers = 0,
    task_timeout: TaskTimeout = None,
) -> None:
    """Decide again with other thresholds (a number, off, or on), from the values of the report, without measuring anything."""
    from rich.console import Console

    from corpusmill.filters.views import show_retuned
    from corpusmill.filters.whatif import retune as decide_again
    from corpusmill.pipeline.errors import Incomplete
    from corpusmill.pipeline.watch.progress import Progress

    console = Console(highlight=False, soft_wrap=True)

    def print_note(sentence: str) -> None:
        console.print(f"Note: {sentence}", markup=False)

    retuned = decide_again(
        run,
        set_ or [],
        make_engine(engine, workers, task_timeout),
        Progress(),
        on_decided=lambda result: show_retuned(result, console),
        write=not dry_run,
        on_message=print_note,
    )
    if not dry_run:
        if retuned.changed:
            _note_old_page(run, print_note)
        warn_if_stale(run)
    if retuned.lost:
        raise Incomplete(retuned.lost)
