"""The command `ablate`: which variant of a corpus makes the better model?"""

from pathlib import PurePosixPath
from typing import Annotated, Any

import typer

from corpusmill.cli.base import Sets, app
from corpusmill.cli.run import CommandResult, EngineOption, TaskTimeout, Workers, execute_plan, reported


@app.command(epilog="Example: corpusmill ablate runs/plain runs/filtered --budget 30m --output runs/ablation")
def ablate(
    variants: Annotated[
        list[str],
        typer.Argument(
            metavar="VARIANT", help="Runs, recipes (.yaml) or folders of token shards, as PATH or NAME=PATH; first the baseline."
        ),
    ],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FOLDER", help="Folder of the comparison; an existing one goes on where it stopped.")
    ],
    input_: Annotated[
        list[str] | None, typer.Option("--input", metavar="INPUT", help="Crawls on which variants that are recipes are run.")
    ] = None,
    reference: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SET",
            help="What judges: wikipedia, brown, speeches, a file with a column text, or a benchmark such as arc_easy.  "
            "[default: wikipedia, brown]",
        ),
    ] = None,
    tokenizer: Annotated[str | None, typer.Option(metavar="FILE", help="A tokenizer.json, instead of one trained on all variants.")] = None,
    budget: Annotated[str, typer.Option(metavar="TIME", help="Time for all trainings on this machine: 30m, 2h.")] = "30m",
    set_: Sets = None,
    engine: EngineOption = "auto",
    workers: Workers = 0,
    task_timeout: TaskTimeout = None,
    json: Annotated[
        bool, typer.Option("--json", help="One JSON object about the run on standard output, all else on standard error.")
    ] = False,
) -> None:
    """Say which corpus makes the better model. Small models are trained on each; the same command goes on where it was killed."""
    from corpusmill.pipeline.on_ray.engine import make_engine
    from corpusmill.pipeline.recipe import Recipe, apply_override
    from corpusmill.pipeline.run import new_plan

    result = CommandResult(output)
    with reported(result, json, output, new=False):
        options: dict[str, Any] = {"variants": _named(variants), "budget": budget, "tokenizer": tokenizer}
        options |= {"references": reference} if reference else {}
        raw = {"ablate": options}
        for override in set_ or []:
            apply_override(raw, override)
        plan = new_plan(output, Recipe(raw), input_ or [], redo=True)
        execute_plan(plan, make_engine(engine, workers, task_timeout), result, json)


def _named(variants: list[str]) -> dict[str, str]:
    """Returns the path of each variant by its name, which is by default the last part of the path."""
    from corpusmill.pipeline.errors import InputError

    found: dict[str, str] = {}
    for given in variants:
        name, equals, path = given.partition("=")
        if not equals:
            name, path = PurePosixPath(given.rstrip("/")).name.partition(".")[0], given
        if name in found:
            raise InputError(f"ablate: two variants are called {name}; name them: one={found[name]} two={path}.")
        found[name] = path
    return found
