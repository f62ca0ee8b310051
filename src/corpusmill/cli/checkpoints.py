"""The command about saved states of trainings."""

from pathlib import Path
from typing import Annotated

import typer

from corpusmill.cli.base import ShownRun, app


@app.command(
    epilog="Example: corpusmill checkpoints runs/demo, or: corpusmill checkpoints runs/demo --step 400 --output models/at-400",
)
def checkpoints(
    run: ShownRun,
    stage: Annotated[str | None, typer.Option(help="pretrain, sft or align; all are listed without it.", show_default=False)] = None,
    step: Annotated[int | None, typer.Option(min=0, help="The state after so many steps.", show_default=False)] = None,
    output: Annotated[Path | None, typer.Option(help="Where that state's model folder is written.", show_default=False)] = None,
) -> None:
    """List the saved states of a run's trainings, or make one of them a model folder that opens in transformers."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from corpusmill.pipeline.errors import InputError
    from corpusmill.train.checkpoint import checkpoints as saved_of
    from corpusmill.train.checkpoint import export_state, score_text

    if (step is None) != (output is None):
        raise InputError("checkpoints: --step and --output belong together.")
    if step is not None and output is not None:
        state = export_state(run, step, output, stage)
        print(f"{output}: the model of {state.stage} after {step} steps.")
        return
    states = saved_of(run, stage)
    if not states:
        print(f"{run}: no saved states.")
        return
    table = Table(box=box.SIMPLE_HEAD)
    for title, justify in (("stage", "left"), ("training", "left"), ("step", "right"), ("saved (UTC)", "left"), ("MB", "right"),
                           ("bits/byte", "right"), ("processes", "left")):  # fmt: skip
        table.add_column(title, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for state in states:
        saved = state.saved
        table.add_row(state.stage, state.training[:8], f"{saved.step:,}", f"{state.date:%Y-%m-%d %H:%M}", f"{saved.bytes / 1e6:,.1f}",
                      score_text(saved), state.processes)  # fmt: skip
    Console(highlight=False).print(table)
