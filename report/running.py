"""Carries out a run from its plan to its report: what `corpusmill run` and `corpusmill.run` share. And what a `Run` lets be decided."""

import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corpusmill.pipeline.engine import Engine
from corpusmill.pipeline.errors import CorpusmillError, Incomplete, InputError, NothingKept
from corpusmill.pipeline.files import expand
from corpusmill.pipeline.interrupts import of_an_interrupt
from corpusmill.pipeline.names import in_sentences, path_of
from corpusmill.pipeline.on_ray.engine import EngineName, make_engine
from corpusmill.pipeline.recipe import Recipe, recipe_path
from corpusmill.pipeline.run import RUN_FILE, Outcome, Plan, StageResult, Watching, check_folder, execute, new_plan, plan_of_existing
from corpusmill.pipeline.safe import safe_text
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.progress import Progress
from corpusmill.report.page.html import REPORT_FILE, write_report
from corpusmill.report.query.run import Run, open_run
from corpusmill.report.rows_in import inputs_of, write_rows

if TYPE_CHECKING:
    from corpusmill.filters.whatif import Retuned

PathLike = str | os.PathLike[str]


def carry_out(
    plan: Plan,
    engine: Engine,
    on_message: Callable[[str], None],
    watching: Watching,
    on_stage: Callable[[StageResult], None] = lambda result: None,
    on_report: Callable[[str], None] = lambda path: None,
) -> CorpusmillError | None:
    """Executes a plan, and writes the report of a run that is finished (`on_report` gets its path). Other arguments are as for `execute`.

    Returns the error that tells what the run lacks (NothingKept, Incomplete), or None. Raises all other errors.
    """
    performed: list[int] = []

    def after_stage(result: StageResult) -> None:
        performed.append(result.performed)
        on_stage(result)

    lacks: CorpusmillError | None = None
    try:
        with Progress() as progress:
            if lost := execute(plan, engine, progress, on_message, after_stage, watching):
                lacks = Incomplete(lost)
    except NothingKept as error:
        lacks = error
    if plan.last is None or (len(plan.stages()) > 1 and plan.stages()[-1] == list(plan.sections)[-1]):  # the run is finished
        watching.outcome.report = write_report(plan.folder)
        on_report(watching.outcome.report)
    elif any(performed):
        note_old_page(plan.folder, on_message)
    return lacks


def note_old_page(folder: str, on_message: Callable[[str], None]) -> None:
    """Says that a run's report, if there is one, shows an earlier state."""
    if Storage(folder).exists(REPORT_FILE):
        on_message(f"{REPORT_FILE} shows an earlier state of the run; update it with: {shlex.join(['corpusmill', 'report', folder])}")


# ---- a plan, from what a user gives to `corpusmill run` or `corpusmill.run`


def plan_of(
    recipe: str | Recipe,
    inputs: Sequence[str],
    output: str | None,
    folder: str,
    overrides: Sequence[str],
    from_: str | None,
    to: str | None,
    strict: bool,
    redo: bool,
) -> Plan:
    """Returns the plan of a run: of the one in `folder`, where `recipe` names it (`is_run`), else of a recipe. Raises InputError."""
    if is_run(recipe):
        if inputs or output:
            raise InputError(f"{recipe}: this run has a folder and inputs of its own; for another run, give a recipe.")
        return plan_of_existing(folder, overrides, from_, to, strict, redo)
    recipe = recipe if isinstance(recipe, Recipe) else recipe_path(recipe)
    made = new_plan(folder, recipe, inputs, overrides, from_, to, strict, redo)
    if not Storage(folder).exists(RUN_FILE):  # an input that is not there is said before a new run's folder gets its first file
        for given in inputs:
            if "://" not in given and not given.startswith("cc:"):
                expand(given)
    return made


def is_run(recipe: object) -> bool:
    return isinstance(recipe, str) and Storage(recipe).exists(RUN_FILE)


@contextmanager
def folder_of(recipe: str | Recipe, inputs: Sequence[str], output: str | None) -> Iterator[tuple[str, bool]]:
    """Yields the run's folder, and whether it is a new one, `runs/RECIPE-INPUT-NUMBER`, which is removed if the run has not begun."""
    if is_run(recipe) or output is not None:
        yield str(recipe) if is_run(recipe) else str(output), False
        return
    folder = _new_folder(recipe.source if isinstance(recipe, Recipe) else recipe, inputs)
    try:
        yield folder, True
    finally:
        with suppress(OSError):  # the folder is not empty: the run has begun
            Path(folder).rmdir()


def _new_folder(recipe: str, inputs: Sequence[str]) -> str:
    """Creates a new folder for a run and returns it. Raises InputError if it can't be created."""
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


# ---- from Python: `corpusmill.run`, and what the methods of a run do that write


@in_sentences
def run(
    recipe: "Recipe | Mapping[str, Any] | PathLike",
    inputs: Any = (),
    output: PathLike | None = None,
    *,
    workers: int = 0,
    engine: EngineName = "auto",
    from_: str | None = None,
    to: str | None = None,
    task_timeout: float | None = None,
    strict: bool = False,
    redo: bool = False,
) -> Run:
    """Runs a recipe on raw crawls, as `corpusmill run` does, and opens the run.

    Finished work is never done twice: the same call on the same folder goes on where it stopped, and does nothing where all is finished.
    On a terminal and in a notebook (with `ipywidgets`), a bar shows the progress of each phase. Ctrl-C ends the run; the same call goes on.

    Args:
        recipe: a `Recipe`, a dict of stages to their options, the path of a recipe file, or the name of one that ships (`fineweb`); or the
            folder of a run, to go on with it.
        inputs: files, folders, globs or URLs of crawls, one or several in a list; or rows: a list of dicts, or a table of pandas, polars,
            Arrow, DuckDB or `datasets`. Rows are written once, as Parquet below `inputs/` in the run's folder; equal rows are one file.
        output: the run's folder, local or on a store (`s3://`). It is new, or has a run that is continued. By default a new one below
            `runs/`.
        workers: parallel workers; 0 means one for each CPU.
        engine: `auto` uses Ray except for what is small, `ray` always, `inline` never.
        from_: the first stage to run; else the first of the recipe.
        to: the last stage to run; else the last of the recipe.
        task_timeout: seconds after which a task is ended and tried again; 0 means no limit. See `corpusmill run --help`.
        strict: end at the first task that fails, instead of going on without it.
        redo: let other inputs or another recipe replace stages that are finished.

    Returns:
        The run: its tables and rules, and the commands on it as methods. In a notebook it shows its funnel.

    Raises:
        InputError: an input, the recipe (ConfigError) or the folder can't be used.
        NothingKept: a stage has kept no document.
        Incomplete: some tasks have failed, and the run has ended without them. `open_run` opens what is there.
        CorpusmillError: the run can't go on, for example because another process works on it.

    Examples:
        ```python
        import corpusmill

        run = corpusmill.run("fineweb", "crawl/*.warc.gz", "runs/first", to="dedup")
        print(run)
        run.table("filter_report").df()
        ```
    """
    given = recipe if isinstance(recipe, Recipe | Mapping) else path_of(recipe, "recipe")
    made = given if isinstance(given, str) and is_run(given) else Recipe.of(given)
    sources = inputs_of(inputs)
    named = [source for source in sources if isinstance(source, str)]
    where = None if output is None else path_of(output, "output")
    with _interrupts(), folder_of(made, named, where) as (folder, _):
        check_folder(folder)  # before rows are written into it
        paths = [source if isinstance(source, str) else write_rows(source, Storage(folder)) for source in sources]
        plan = plan_of(made, paths, where, folder, (), from_, to, strict, redo)
        lacks = carry_out(plan, make_engine(engine, workers, task_timeout), _print_note, Watching(Outcome(folder)))
    if lacks:
        raise lacks
    return open_run(folder)


def retune(folder: str, thresholds: Mapping[str, Any], dry_run: bool, engine: Engine, trust: bool = False) -> "Retuned":
    """Decides again in the run of a folder, as `Run.retune` says."""
    from corpusmill.filters.whatif import retune as decide_again

    with _interrupts(), Progress() as progress:
        changes = decide_again(folder, _overrides(thresholds), engine, progress, write=not dry_run, on_message=_print_note, trust=trust)
    if changes.changed and not dry_run:
        note_old_page(folder, _print_note)
    if changes.lost:
        raise Incomplete(changes.lost)
    return changes


def fork(folder: str, thresholds: Mapping[str, Any], new: str | None, engine: Engine) -> Run:
    """Forks the run of a folder, as `Run.fork` says."""
    from corpusmill.filters.fork import fork as make_fork

    with _interrupts(), Progress() as progress:
        made, changes = make_fork(folder, new, _overrides(thresholds), engine, progress, on_message=_print_note)
    if changes.lost:
        raise Incomplete(changes.lost)
    return open_run(made)


def _overrides(thresholds: Mapping[str, Any]) -> list[str]:
    if not isinstance(thresholds, Mapping):
        raise InputError(f'thresholds: expected the threshold of each rule, such as {{"gopher_short_doc": 30}}, not {thresholds!r}.')
    return [f"filter.thresholds.{str(rule).removeprefix('filter.thresholds.')}={_threshold(value)}" for rule, value in thresholds.items()]


def _threshold(value: Any) -> str:
    return "off" if value is None or value is False else "on" if value is True else str(value)


def _print_note(sentence: str) -> None:
    print(safe_text(f"Note: {sentence}"), file=sys.stderr, flush=True)


@contextmanager
def _interrupts() -> Iterator[None]:
    """Turns the errors into which libraries wrap Ctrl-C back into a KeyboardInterrupt."""
    try:
        yield
    except Exception as error:
        if of_an_interrupt(error):
            raise KeyboardInterrupt from error
        raise
