"""The command that looks at a run while it goes."""

from typing import Annotated

import typer

from corpusmill.cli.base import RunFolder, app


@app.command(epilog="Example: corpusmill status runs/demo --watch")
def status(
    run: RunFolder,
    watch: Annotated[bool, typer.Option("--watch", help="Look again every 2 seconds until the run ends.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object; with --watch one a line.")] = False,
) -> None:
    """Say how far a run is, here or on a cluster: tasks, speed, time left, failures. Exit code 1: it failed, or nobody goes on with it."""
    from rich.console import Console

    from corpusmill.report.live.status_view import show_status

    code = show_status(run, Console(highlight=False), watch=watch, as_json=json)
    if code:
        raise typer.Exit(code)
