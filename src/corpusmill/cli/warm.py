"""The command `warm`, which compiles kernels beforehand, for example while a container image is built."""

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

    They serve every processor with AVX2 (x86-64-v3), if this one has it.
    """
    import tempfile
    from pydoc_data.topics import topics  # Python's language reference, for pages without a network

    from corpusmill.api import run
    from corpusmill.pipeline.cache import kernels_folder
    from corpusmill.pipeline.compiling import Compilation, listed, modules_of
    from corpusmill.pipeline.errors import NothingKept
    from corpusmill.pipeline.extras import require
    from corpusmill.pipeline.recipe import Recipe, read_raw, recipe_path, stage_class
    from corpusmill.pipeline.watch.progress import Progress

    path = recipe_path(recipe)
    made = Recipe(read_raw(path, set_ or []), path)
    sections: dict[str, Any] = made.sections
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
        if "ingest" in sections:
            if "dedup" in sections:
                made = made.with_({"dedup.alarm": "warn"})
                if sections["dedup"].index is not None:  # these pages are not for the user's index
                    made = made.with_({"dedup.index.path": f"{folder}/index"})
            pages = [{"text": text, "url": f"http://rows.invalid/{name}"} for name, text in sorted(topics.items()) if len(text) > 1500]
            last = [name for name in DATA_STAGES if name in sections][-1]
            try:
                run(made, inputs or pages, f"{folder}/run", engine="inline", to=last)
            except NothingKept as error:
                print(f"Note: {error} So the first run fetches the models of these stages; give warm a few pages of your own.")
    print(f"Kernels are in {kernels_folder()}.")
