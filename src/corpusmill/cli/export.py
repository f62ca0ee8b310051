"""The command that hands a run's model over to other programs."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from corpusmill.cli.base import AlthoughStale, RunFolder, app


class Dtype(StrEnum):
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


@app.command(epilog="Example: corpusmill export runs/demo models/demo --license apache-2.0 --dtype bf16")
def export(
    run: RunFolder,
    output: Annotated[Path, typer.Argument(metavar="OUT", help="The folder that is written.", show_default=False)],
    model: Annotated[str | None, typer.Option(help="pretrain, sft or align; by default the last that has run.", show_default=False)] = None,
    name: Annotated[str | None, typer.Option(help="The card's title; by default the folder's name.", show_default=False)] = None,
    license_: Annotated[str | None, typer.Option("--license", help="Licence in the card; unknown without it.", show_default=False)] = None,
    dtype: Annotated[Dtype, typer.Option(help="Type of the weights; fp32 is what was trained.")] = Dtype.fp32,
    force: Annotated[bool, typer.Option("--force", help="Replace a model folder that is there.")] = False,
    stale: AlthoughStale = False,
) -> None:
    """Write a model with its tokenizer, chat template and a model card as a folder that transformers and others open."""
    from corpusmill.train.export_folder import export as write

    stage, warning = write(str(run), output, model, name=name, license_=license_, dtype=dtype.value, force=force, although_stale=stale)
    if warning:
        print(f"warning: {warning}")
    print(f"{output}: the model of {stage}, and its card, README.md.")
