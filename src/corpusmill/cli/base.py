"""What all commands share: the application, and the arguments that mean the same everywhere."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    name="corpusmill",
    help="From raw web crawls to training tokens and a small aligned language model, with every decision visible.",
    epilog="Example: corpusmill run recipes/demo.yaml crawl/*.warc.gz --output runs/first",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)


class EngineName(StrEnum):
    ray = "ray"
    inline = "inline"


RunFolder = Annotated[str, typer.Argument(metavar="RUN", help="The folder of a run.", show_default=False)]
ModelFolder = Annotated[Path, typer.Argument(metavar="MODEL", help="A model's folder, for example RUN/align/model.", show_default=False)]
Sets = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe's value, for example dedup.threshold=0.8.")
]
EngineOption = Annotated[EngineName, typer.Option(help="ray: parallel, here or on RAY_ADDRESS; inline: in this process, to debug.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what it would remove (stages that can: dedup).")]
Workers = Annotated[int, typer.Option(min=0, help="Parallel workers; 0 means one for each CPU.")]


def make_engine(name: EngineName, workers: int) -> Any:
    if name is EngineName.inline:
        from corpusmill.pipeline.engine import InlineEngine

        return InlineEngine()
    from corpusmill.pipeline.engine_ray import RayEngine

    return RayEngine(workers)
