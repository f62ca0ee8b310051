"""Commands that show what a run decided, and why."""

from typing import Annotated

import typer

from corpusmill.cli.base import ShownRun, app


@app.command(epilog="Example: corpusmill sweep runs/demo --rule gopher_short_doc --from 10 --to 200 --plot sweep.html")
def sweep(
    run: ShownRun,
    rule: Annotated[str, typer.Option(help="The rule whose threshold is to vary.")],
    from_: Annotated[float, typer.Option("--from", help="The first threshold.")],
    to: Annotated[float, typer.Option("--to", help="The last threshold.")],
    steps: Annotated[int, typer.Option(min=1, max=1000, help="How many thresholds.")] = 11,
    plot: Annotated[str | None, typer.Option(metavar="FILE", help="Write a page with a chart, too.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object in place of the table.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="CSV in place of the table.")] = False,
) -> None:
    """Say how many documents and characters each threshold of a rule would keep, alone and together with the other rules."""
    from json import dumps

    from rich.console import Console

    from corpusmill.filters import views
    from corpusmill.filters.whatif import sweep as try_thresholds

    result = try_thresholds(run, rule, from_, to, steps)
    if json or csv:
        print(dumps(result.as_json(), indent=2) if json else views.as_csv(result).rstrip())
    else:
        views.show_sweep(result, Console(highlight=False, soft_wrap=True))
    if plot:
        views.write_plot(result, plot)


@app.command(epilog="Example: corpusmill steps gopher_quality")
def steps(step: Annotated[str | None, typer.Argument(metavar="STEP", help="A step of the filter stage.")] = None) -> None:
    """List the steps of the filter stage, or one step's options, columns and rules."""
    from rich.console import Console

    from corpusmill.filters.views import show_step, show_steps

    console = Console(highlight=False)
    if step is None:
        show_steps(console)
    else:
        show_step(step, console)


@app.command(epilog="Example: corpusmill report runs/demo")
def report(run: ShownRun) -> None:
    """Write RUN/report.html and show its main tables here."""
    from rich.console import Console

    from corpusmill.report.answers.terminal import render_report
    from corpusmill.report.page.html import write_report

    path = write_report(run)
    render_report(run, Console())
    print(f"The whole report: {path}")


@app.command(epilog="Example: corpusmill clusters runs/demo --doubtful --limit 5")
def clusters(
    run: ShownRun,
    largest: Annotated[bool, typer.Option("--largest", help="Only the largest clusters.")] = False,
    doubtful: Annotated[bool, typer.Option("--doubtful", help="Only those with the least similar copies.")] = False,
    random: Annotated[bool, typer.Option("--random", help="Only clusters drawn at random.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, max=1000, help="Clusters of a list; with --id: copies.", show_default=False)] = None,
    seed: Annotated[int, typer.Option(min=0, help="Another seed draws other clusters.")] = 0,
    id_: Annotated[str | None, typer.Option("--id", metavar="ID-OR-URL", help="Only the cluster of this document.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a cluster.")] = False,
) -> None:
    """Show groups of copies: the largest, the most doubtful, random ones, with what differs from the document that was kept."""
    from rich.console import Console

    from corpusmill.pipeline.errors import InputError
    from corpusmill.report.answers.clusters import clusters as show

    options = {"--largest": largest, "--doubtful": doubtful, "--random": random, "--id": id_ is not None}
    chosen = [name for name, on in options.items() if on]
    if len(chosen) > 1:
        raise InputError(f"clusters: {chosen[0]} and {chosen[1]} exclude each other.")
    which = chosen[0].removeprefix("--") if chosen and id_ is None else None
    show(run, which=which, limit=limit, seed=seed, document=id_, as_json=json, console=Console(highlight=False))


@app.command(epilog="Example: corpusmill raw runs/demo 5f2c09d1 --head")
def raw(
    run: ShownRun,
    document: Annotated[str, typer.Argument(metavar="ID-OR-URL", help="Its id, the id's beginning, or its URL; kept or dropped.")],
    head: Annotated[bool, typer.Option("--head", help="Only the headers, of the archive and of HTTP.")] = False,
    body: Annotated[bool, typer.Option("--body", help="Only the body, HTTP's encodings undone.")] = False,
    text: Annotated[bool, typer.Option("--text", help="Only the text that ingest made of it.")] = False,
    fetch: Annotated[bool, typer.Option("--fetch", help="Ask the web server or store for it on which the crawl lies.")] = False,
) -> None:
    """Show the original of a document again, byte for byte, out of the crawl file that it came from."""
    from corpusmill.pipeline.errors import InputError
    from corpusmill.report.answers.raw import raw as show

    chosen = [name for name, on in (("head", head), ("body", body), ("text", text)) if on]
    if len(chosen) > 1:
        raise InputError(f"raw: --{chosen[0]} and --{chosen[1]} exclude each other.")
    show(run, document, (chosen or ["record"])[0], fetch)
