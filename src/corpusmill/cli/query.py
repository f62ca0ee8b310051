"""Commands about a whole run: SQL queries, the explorer in the browser, its progress, its verification."""

from typing import Annotated

import typer

from corpusmill.cli.base import RunFolder, ShownRun, app, make_console, warn_if_stale

Json = Annotated[bool, typer.Option("--json", help="JSON in place of tables.")]
Csv = Annotated[bool, typer.Option("--csv", help="CSV in place of tables.")]


@app.command(epilog='Example: corpusmill query runs/demo "SELECT failed, count(*) FROM filter_report GROUP BY failed ORDER BY 2 DESC"')
def query(
    run: ShownRun,
    select: Annotated[str | None, typer.Argument(metavar="SELECT", help="One SELECT (DuckDB's SQL); without it, the tables.")] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=0, help="Rows to show; 0: all (as in JSON and CSV).", show_default="50")
    ] = None,
    json: Json = False,
    csv: Csv = False,
    time_limit: Annotated[float, typer.Option(min=0, metavar="SECONDS", help="When to give up; 0: never.")] = 600,
) -> None:
    """Ask a run anything in SQL, or list its tables."""
    from corpusmill.pipeline.errors import InputError
    from corpusmill.report.answers.query import show_query, show_tables

    if json and csv:
        raise InputError("query: --json and --csv exclude each other.")
    form = "json" if json else "csv" if csv else "table"
    if select is None:
        show_tables(run, form, make_console())
    else:
        show_query(run, select, limit, form, make_console(), time_limit)


@app.command(epilog="Example: corpusmill explore runs/demo --open")
def explore(
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="A run, or a folder or bucket with runs.", show_default=False, callback=warn_if_stale)
    ],
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port on 127.0.0.1; 0 means any that is free.")] = 0,
    stage: Annotated[str | None, typer.Option(help="Load only this stage's report: faster, and less memory.", show_default=False)] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    write: Annotated[bool, typer.Option("--write", help="Let the page label and fork; its address then holds a secret.")] = False,
    as_: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="Whose labels the page gives; else the login name's.", show_default=False)
    ] = None,
) -> None:
    """Serve a page to read, compare, label and decide. It is open to this machine alone; Ctrl-C ends it."""
    from corpusmill.report.explore.server import explore as serve

    serve(path, port, stage, open_, write, as_)


@app.command(epilog="Example: corpusmill status runs/demo --watch")
def status(
    run: RunFolder,
    watch: Annotated[bool, typer.Option("--watch", help="Look again every 2 seconds until the run ends.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object; with --watch one a line.")] = False,
) -> None:
    """Say how far a run is, and how fast. Also for a run on a cluster. Exit code 1: it failed, or no process works on it."""
    from corpusmill.report.live.status_view import show_status

    code = show_status(run, make_console(), watch=watch, as_json=json)
    if code:
        raise typer.Exit(code)


@app.command(epilog="Example: corpusmill verify runs/demo, or: corpusmill verify sets/web --all")
def verify(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN|SET|FOLDER", help="A run, a set, or one folder of token shards.", show_default=False, callback=warn_if_stale
        ),
    ],
    every: Annotated[bool, typer.Option("--all", help="Compare the tokens of every document with its text, not of some.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object in place of the table.")] = False,
) -> None:
    """Check the files, counts and verdicts of a run. No document may be lost or doubled between stages; tokens stand for texts."""
    from json import dumps

    from corpusmill.pipeline.errors import Incomplete
    from corpusmill.report.whole.verify import as_json, show_run
    from corpusmill.report.whole.verify import verify as check

    checks = check(run, every)
    if json:
        print(dumps(as_json(checks), indent=2))
    elif not show_run(run, checks, make_console(soft_wrap=True)):
        raise typer.Exit(1)
    if any(found.faults for found in checks):
        raise typer.Exit(1)
    if any(found.quarantined for found in checks):
        raise typer.Exit(Incomplete.exit_code)
