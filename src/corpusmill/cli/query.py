"""Commands that ask a run: any SELECT over its tables, and statistics of what was measured."""

from typing import Annotated

import typer

from corpusmill.cli.base import ShownRun, app

Json = Annotated[bool, typer.Option("--json", help="JSON in place of tables.")]
Csv = Annotated[bool, typer.Option("--csv", help="CSV in place of tables.")]


def _form(command: str, json: bool, csv: bool) -> str:
    from corpusmill.pipeline.errors import InputError

    if json and csv:
        raise InputError(f"{command}: --json and --csv exclude each other.")
    return "json" if json else "csv" if csv else "table"


@app.command(epilog='Example: corpusmill query runs/demo "SELECT failed, count(*) FROM filter_report GROUP BY failed ORDER BY 2 DESC"')
def query(
    run: ShownRun,
    select: Annotated[str | None, typer.Argument(metavar="SELECT", help="One SELECT (DuckDB's SQL); without it, the tables.")] = None,
    limit: Annotated[int | None, typer.Option(min=0, help="Rows to show; 0: all (as in JSON and CSV).", show_default="50")] = None,
    json: Json = False,
    csv: Csv = False,
) -> None:
    """Ask a run anything in SQL, or list its tables with their columns."""
    from rich.console import Console

    from corpusmill.report.answers.query import show_query, show_tables

    form = _form("query", json, csv)
    if select is None:
        show_tables(run, form, Console(highlight=False))
    else:
        show_query(run, select, limit, form, Console(highlight=False))


@app.command(epilog="Example: corpusmill stats runs/demo --column 'gopher_*', or: corpusmill stats runs/demo --by host")
def stats(
    run: ShownRun,
    stage: Annotated[str | None, typer.Option(help="A stage of the run; else the filter.", show_default=False)] = None,
    column: Annotated[list[str] | None, typer.Option(help="Only this column, or those of a pattern; may be given again.")] = None,
    by: Annotated[str | None, typer.Option(metavar="language|source|host|rule", help="Sums by this, in place of columns.")] = None,
    json: Json = False,
    csv: Csv = False,
) -> None:
    """Show how measured values lie, in kept and in dropped documents, or how many documents, characters and tokens groups have."""
    from rich.console import Console

    from corpusmill.pipeline.errors import InputError
    from corpusmill.report.answers.stats import show_stats

    if by is not None and column:
        raise InputError("stats: --column and --by exclude each other.")
    show_stats(run, stage, column or (), by, _form("stats", json, csv), Console(highlight=False))
