"""Carries out a run from its plan to its report: what `corpusmill run` and `corpusmill.run` share. And `corpusmill.retune`."""

import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from corpusmill.pipeline.engine import Engine
from corpusmill.pipeline.errors import CorpusmillError, Incomplete, NothingKept
from corpusmill.pipeline.interrupts import of_an_interrupt
from corpusmill.pipeline.on_ray.engine import EngineName, make_engine
from corpusmill.pipeline.recipe import Recipe
from corpusmill.pipeline.run import Outcome, Plan, StageResult, Watching, execute, new_plan
from corpusmill.pipeline.safe import safe_text
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.progress import Progress
from corpusmill.report.page.html import REPORT_FILE, write_report
from corpusmill.report.query.run import Run, open_run

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


# ---- from Python -------------------------------------------------------------------------------------


def run(
    recipe: "Recipe | Mapping[str, Any] | PathLike",
    inputs: PathLike | Sequence[PathLike],
    output: PathLike,
    *,
    workers: int = 0,
    engine: EngineName = "auto",
    first: str | None = None,
    last: str | None = None,
    task_timeout: float | None = None,
    strict: bool = False,
    redo: bool = False,
) -> Run:
    """Runs a recipe on raw crawls, as `corpusmill run` does, and opens the run.

    Finished work is never done twice: the same call on the same folder goes on where it stopped, and does nothing where all is finished.
    On a terminal and in a notebook (with `ipywidgets`), a bar shows the progress of each phase. Ctrl-C ends the run; the same call goes on.

    Args:
        recipe: a `Recipe`, a dict of stages to their options, the path of a recipe file, or the name of one that ships (`fineweb`).
        inputs: files, folders, globs or URLs of crawls; one, or several in a list.
        output: the run's folder, local or on a store (`s3://`). It is new, or has a run that is continued.
        workers: parallel workers; 0 means one for each CPU.
        engine: `auto` uses Ray except for what is small, `ray` always, `inline` never.
        first: the first stage to run; else the first of the recipe.
        last: the last stage to run; else the last of the recipe.
        task_timeout: seconds after which a task is ended and tried again; 0 means no limit. See `corpusmill run --help`.
        strict: end at the first task that fails, instead of going on without it.
        redo: let other inputs or another recipe replace stages that are finished.

    Returns:
        The run: its tables, documents and rules. In a notebook it shows its funnel.

    Raises:
        InputError: an input, the recipe (ConfigError) or the folder can't be used.
        NothingKept: a stage has kept no document.
        Incomplete: some tasks have failed, and the run has ended without them. `open_run` opens what is there.
        CorpusmillError: the run can't go on, for example because another process works on it.

    Examples:
        ```python
        import corpusmill

        run = corpusmill.run("fineweb", "crawl/*.warc.gz", "runs/first", last="dedup")
        print(run)
        run.report("filter").df()
        ```
    """
    folder = os.fspath(output)
    given = [inputs] if isinstance(inputs, str | os.PathLike) else inputs
    if isinstance(recipe, Mapping):
        recipe = Recipe(recipe)
    elif not isinstance(recipe, Recipe):
        recipe = Recipe.load(recipe)
    with _interrupts():
        plan = new_plan(folder, recipe, [os.fspath(path) for path in given], (), first, last, strict, redo)
        lacks = carry_out(plan, make_engine(engine, workers, task_timeout), _print_note, Watching(Outcome(folder)))
    if lacks:
        raise lacks
    return open_run(folder)


def retune(
    run: Run | PathLike,
    thresholds: Mapping[str, Any],
    *,
    write: bool = True,
    workers: int = 0,
    engine: EngineName = "auto",
) -> "Retuned":
    """Decides again with other thresholds of the filter, from the values in the report, without measuring any text.

    Args:
        run: a run, or its folder.
        thresholds: the new threshold of each rule; `None` switches a rule off.
        write: whether to write the new decisions. If not, the result only says what would change.
        workers: parallel workers, where the stage has to measure some documents again; 0 means one for each CPU.
        engine: as for `run`.

    Returns:
        What changes: the numbers of documents before and now, and of those that fail each changed rule.

    Raises:
        InputError: the filter is not finished, or a rule or a value is wrong (ConfigError).
        NothingKept: no document is left.
        Incomplete: some documents could not be measured again.

    Examples:
        ```python
        import corpusmill

        changes = corpusmill.retune("runs/first", {"gopher_short_doc": 30, "list_ratio": None}, write=False)
        print(changes.kept_before, changes.kept, changes.failed)
        ```
    """
    from corpusmill.filters.whatif import retune as decide_again

    folder = run.reader.storage.root if isinstance(run, Run) else os.fspath(run)
    overrides = [f"filter.thresholds.{rule}={_threshold(value)}" for rule, value in thresholds.items()]
    with _interrupts(), Progress() as progress:
        changes = decide_again(folder, overrides, make_engine(engine, workers), progress, write=write, on_message=_print_note)
    if write and changes.changed:
        note_old_page(folder, _print_note)
    if changes.lost:
        raise Incomplete(changes.lost)
    return changes


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
