"""The command that takes documents out of runs and token shards."""

from typing import Annotated

import typer

from corpusmill.cli.base import app, make_console


def _given(what: str) -> list[str]:
    """Returns the lines of a file, or the value itself where it is none. Raises InputError for a file that is not there."""
    from pathlib import Path

    from corpusmill.pipeline.errors import InputError
    from corpusmill.pipeline.files import open_file

    if not Path(what).is_file():
        if what.endswith((".txt", ".csv", ".tsv", ".list", ".jsonl", ".gz")) and "://" not in what:
            raise InputError(f"{what}: no such file.")
        if Path(what).exists():
            raise InputError(f"{what}: no regular file; write the list to one.")
        return [what]
    with open_file(what) as file:
        lines = [line.decode("utf-8", "replace").strip() for line in file.read().splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


@app.command(
    epilog="Example: corpusmill takedown runs/march runs/april sets/web --domains example.org --ticket 2026-17, then again with --write"
)
def takedown(
    folders: Annotated[
        list[str],
        typer.Argument(metavar="RUN|SET|EXPORT...", help="Runs, sets that runs were appended to, and exports.", show_default=False),
    ],
    urls: Annotated[list[str] | None, typer.Option("--urls", metavar="FILE|URL", help="Pages, an address a line.")] = None,
    domains: Annotated[list[str] | None, typer.Option("--domains", metavar="FILE|DOMAIN", help="Domains, with all below them.")] = None,
    ids: Annotated[list[str] | None, typer.Option("--ids", metavar="FILE|ID", help="Documents, an id a line.")] = None,
    contains: Annotated[list[str] | None, typer.Option("--contains", metavar="TEXT", help="Documents with this text in them.")] = None,
    copies: Annotated[bool, typer.Option("--copies/--no-copies", help="Near and exact copies of the documents go too.")] = True,
    list_: Annotated[
        str | None,
        typer.Option("--list", metavar="FILE", help="The list of what stays out. [default: the run's, else takedown.jsonl beside it]"),
    ] = None,
    ticket: Annotated[str, typer.Option(metavar="TEXT", help="A name for the request; report rows carry it.", show_default=False)] = "",
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why, for the record.", show_default=False)] = "",
    as_: Annotated[str | None, typer.Option("--as", metavar="NAME", help="Who signs the record. [default: the login name]")] = None,
    mask: Annotated[
        bool,
        typer.Option("--mask", help="Mask tokens in the shards of runs, too, and leave the tokenizer; else both are made again."),
    ] = False,
    write: Annotated[bool, typer.Option("--write", help="Take them out. Without it, the command says what it would do.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object in place of the tables.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="The documents as CSV in place of the tables.")] = False,
    html: Annotated[bool, typer.Option("--html", help="The documents as a page in place of the tables, to send to who asks.")] = False,
) -> None:
    """Take documents and their copies out of runs. Their tokens go, too, and a list keeps them out. Reports keep a row with the ticket."""
    from json import dumps

    from corpusmill.cli.run import CommandResult, execute_plan
    from corpusmill.filters.labels import login_name
    from corpusmill.filters.own import looking
    from corpusmill.pipeline.on_ray.engine import make_engine
    from corpusmill.report.takedown import Takedown, Wanted, as_csv, as_json, as_page, default_list, elsewhere, show

    entries = {
        kind: [line for each in given or [] for line in _given(each)] for kind, given in (("url", urls), ("domain", domains), ("id", ids))
    }
    wanted = Wanted(entries, contains or [], ticket, reason, as_ or login_name(), copies)  # type: ignore[arg-type]
    with looking(not write):
        made = Takedown(folders, wanted, list_ or default_list(folders), mask)
    console, others = make_console(), list(elsewhere(made))
    if json:
        print(dumps(as_json(made, others), indent=2))
    elif csv or html:
        print(as_csv(made) if csv else as_page(made), end="")
    else:
        show(made, others, write, console)
    if write:
        made.write(
            lambda plan: execute_plan(plan, make_engine("auto", 0), CommandResult(plan.folder), json),
            lambda sentence: make_console().print(f"Note: {sentence}", markup=False) if not json else None,
        )
