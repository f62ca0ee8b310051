"""`corpusmill.run`: runs a recipe from Python."""

import os
from collections.abc import Mapping
from typing import Any

from corpusmill.pipeline.errors import Incomplete, NothingKept
from corpusmill.pipeline.interrupts import unwrapped_interrupts
from corpusmill.pipeline.names import in_sentences, path_of
from corpusmill.pipeline.on_ray.engine import EngineName, make_engine
from corpusmill.pipeline.recipe import Recipe
from corpusmill.pipeline.run import check_folder, execute, folder_of, is_run, plan_of
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.progress import Progress
from corpusmill.report.page.html import write_report
from corpusmill.report.query.run import Run, open_run
from corpusmill.report.rows_in import inputs_of, write_rows

PathLike = str | os.PathLike[str]


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
        NothingKept: a stage has kept no document; its `run` says why: `error.run.why(...)`.
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
    performer = make_engine(engine, workers, task_timeout)
    with unwrapped_interrupts(), folder_of(made, named, where) as (folder, _), Progress() as progress:
        check_folder(folder)  # before rows are written into it
        paths = [source if isinstance(source, str) else write_rows(source, Storage(folder)) for source in sources]
        plan = plan_of(made, paths, where, folder, (), from_, to, strict, redo)
        try:
            lost = execute(plan, performer, progress, write_report=write_report)
        except NothingKept as error:
            error.run = open_run(folder)  # whose reports say why
            raise
        if lost:
            raise Incomplete(lost)
    return open_run(folder)
