"""The command `warm`, which compiles kernels beforehand, for example while a container image is built."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from corpusmill.cli.base import Sets, app

DATA_STAGES = ("ingest", "filter", "dedup", "tokenizer", "tokens")


@app.command(epilog="Example: corpusmill warm recipes/demo.yaml, and in a Dockerfile: ENV NUMBA_CACHE_DIR=/opt/kernels")
def warm(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe file, or the name of one that ships.")] = "fineweb",
    inputs: Annotated[
        list[str] | None, typer.Argument(metavar="INPUT", help="A few pages of your own, where the filter would keep no English ones.")
    ] = None,
    set_: Sets = None,
    all_: Annotated[bool, typer.Option("--all", help="Compile all kernels that are listed, for any recipe.")] = False,
) -> None:
    """Compile a recipe's kernels beforehand, on all cores. Then it runs the recipe on a few pages, to fetch or train its models.

    Each kind of processor has kernels of its own. For an image that is built on another kind than it runs on, set for both
    NUMBA_CPU_NAME=x86-64-v3 and NUMBA_CPU_FEATURES= (empty).
    """
    import tempfile

    from corpusmill.pipeline.cache import kernels_folder
    from corpusmill.pipeline.compiling import Compilation, listed, modules_of
    from corpusmill.pipeline.extras import require
    from corpusmill.pipeline.recipe import read_recipe, recipe_path, stage_class
    from corpusmill.pipeline.watch.progress import Progress

    path = recipe_path(recipe)
    sections = read_recipe(path, set_ or [])
    for name, section in sections.items():  # before minutes of work, also for stages that are not run here
        require(name, *stage_class(name)(section).libraries())
    stages = {"all": list(listed())} if all_ else {name: modules_of(name, section) for name, section in sections.items()}
    compilation = Compilation(stages, print)
    try:
        for name in stages:
            compilation.wait(name, Progress())
    finally:
        compilation.close()
    with tempfile.TemporaryDirectory(prefix="corpusmill-warm-") as folder:
        data_stages = [name for name in DATA_STAGES if name in sections]
        if "ingest" in data_stages:
            if not inputs:
                write_pages(Path(folder, "pages.jsonl"))
            _run_data_stages(folder, path, inputs or [f"{folder}/pages.jsonl"], set_ or [], sections, data_stages[-1])
    print(f"Kernels are in {kernels_folder()}.")


def write_pages(path: Path) -> None:
    """Writes Python's language reference as JSONL."""
    from pydoc_data.topics import topics

    rows = [{"text": text, "url": f"http://rows.invalid/{name}"} for name, text in sorted(topics.items()) if len(text) > 1500]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _run_data_stages(folder: str, recipe: str, inputs: list[str], overrides: list[str], sections: Any, last: str) -> None:
    from corpusmill.pipeline.engine import InlineEngine
    from corpusmill.pipeline.run import Outcome, Watching, execute, new_plan
    from corpusmill.pipeline.watch.progress import Progress

    if "dedup" in sections:
        overrides = [*overrides, "dedup.alarm=warn"]
        if sections["dedup"].index is not None:  # these pages are not for the user's index
            overrides.append(f"dedup.index.path={folder}/index")
    outcome = Outcome(f"{folder}/run")
    plan = new_plan(f"{folder}/run", recipe, inputs, overrides, last=last)
    execute(
        plan, InlineEngine(), Progress(), print, lambda result: print(f"{result.name}: {result.seconds:.0f} seconds"), Watching(outcome)
    )
    empty = next((name for name, stage in outcome.stages.items() if stage["kept"] == 0), None)
    if empty:
        print(f"Note: {empty} kept none of these pages, so the first run fetches the models after it; give warm a few pages of your own.")
