"""The command that checks a whole run."""

from typing import Annotated

import typer

from corpusmill.cli.base import ShownRun, app


@app.command(epilog="Example: corpusmill verify runs/demo")
def verify(run: ShownRun, json: Annotated[bool, typer.Option("--json", help="One JSON object in place of the table.")] = False) -> None:
    """Check a run: every file's hash, every count, every verdict, and that no document is lost or there twice between stages."""
    from json import dumps

    from rich.console import Console

    from corpusmill.pipeline.errors import Incomplete
    from corpusmill.report.whole.verify import as_json, show_run
    from corpusmill.report.whole.verify import verify as check

    checks = check(run)
    if json:
        print(dumps(as_json(checks), indent=2))
    elif not show_run(run, checks, Console(highlight=False, soft_wrap=True)):
        raise typer.Exit(1)
    if any(found.faults for found in checks):
        raise typer.Exit(1)
    if any(found.quarantined for found in checks):
        raise typer.Exit(Incomplete.exit_code)
