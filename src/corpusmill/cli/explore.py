"""The command that opens a run in the browser."""

from typing import Annotated

import typer

from corpusmill.cli.base import ShownRun, app


@app.command(epilog="Example: corpusmill explore runs/demo --open")
def explore(
    run: ShownRun,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port on 127.0.0.1; 0 means any that is free.")] = 0,
    stage: Annotated[str | None, typer.Option(help="Load only this stage's report: faster, and less memory.", show_default=False)] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Serve a page on this machine alone on which a run's documents can be filtered, read, and decided about anew. Ctrl-C ends it."""
    from corpusmill.report.explore.server import explore as serve

    serve(run, port, stage, open_)
