"""Commands that show what a run decided and why: thresholds, groups of copies, originals, and single documents."""

from typing import Annotated, Any, Literal

import typer

from corpusmill.cli.base import Sets, ShownRun, Trust, app, make_console, warn_if_stale


@app.command(epilog="Example: corpusmill sweep runs/demo gopher_short_doc --from 10 --to 200")
def sweep(
    run: ShownRun,
    rule: Annotated[str, typer.Argument(metavar="RULE", help="The rule whose threshold is to vary.")],
    from_: Annotated[float | None, typer.Option("--from", help="The first threshold; else one that 1% of the values lie below.")] = None,
    to: Annotated[float | None, typer.Option("--to", help="The last threshold; else one that 1% of the values lie above.")] = None,
    steps: Annotated[int, typer.Option(min=1, max=1000, help="How many thresholds.")] = 11,
    json: Annotated[bool, typer.Option("--json", help="One JSON object in place of the table.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="CSV in place of the table.")] = False,
    trust: Trust = False,
) -> None:
    """Count what each threshold of a rule would keep. Documents and characters, alone and together with the other rules."""
    from json import dumps

    from corpusmill.filters import views
    from corpusmill.filters.whatif import sweep as try_thresholds

    result = try_thresholds(run, rule, from_, to, steps, trust)
    if json or csv:
        print(dumps(result.as_json(), indent=2) if json else views.as_csv(result).rstrip())
    else:
        views.show_sweep(result, make_console(soft_wrap=True))


@app.command(epilog="Example: corpusmill steps gopher_quality")
def steps(step: Annotated[str | None, typer.Argument(metavar="STEP", help="A step of the filter stage.")] = None) -> None:
    """List the filter's steps, or a step's options and rules."""
    from corpusmill.filters.views import show_step, show_steps

    console = make_console()
    if step is None:
        show_steps(console)
    else:
        show_step(step, console)


@app.command(epilog="Example: corpusmill recipe fineweb --stage filter > mine.yaml")
def recipe(
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME|RUN", help="A recipe's file or name, a preset's name, or a run; none lists the names.", show_default=False
        ),
    ] = None,
    stage: Annotated[str | None, typer.Option(help="Only this stage's section.", show_default=False)] = None,
    set_: Sets = None,
    trust: Trust = False,
) -> None:
    """Print a recipe or preset in full, to save and edit."""
    from corpusmill.report.answers.recipe import expanded, names

    print(names() if recipe is None else expanded(recipe, stage, set_ or [], trust), end="")


@app.command(epilog="Example: corpusmill report runs/demo --against runs/before")
def report(
    run: ShownRun,
    against: Annotated[str | None, typer.Option(metavar="RUN", help="Show what changed against this run.", show_default=False)] = None,
) -> None:
    """Write RUN/report.html, and show its main tables here."""
    from corpusmill.report.answers.diff import DiffOptions, compare, verdict
    from corpusmill.report.answers.terminal import render_report
    from corpusmill.report.page.html import write_report

    difference = None if against is None else compare(against, run, DiffOptions(samples=0))
    path = write_report(run, difference)
    render_report(run, make_console())
    if difference is not None:
        print(f"Against {against} (A): {verdict(difference)}")
    print(f"The whole report: {path}")


@app.command(epilog="Example: corpusmill clusters runs/demo --doubtful --limit 5")
def clusters(
    run: ShownRun,
    largest: Annotated[bool, typer.Option("--largest", help="Only the largest clusters.")] = False,
    doubtful: Annotated[bool, typer.Option("--doubtful", help="Only those with the least similar copies.")] = False,
    random: Annotated[bool, typer.Option("--random", help="Only clusters drawn at random.")] = False,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=1, max=1000, help="Clusters of a list; with --id: copies.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Another seed draws other clusters.")] = 0,
    id_: Annotated[str | None, typer.Option("--id", metavar="ID-OR-URL", help="Only the cluster of this document.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a cluster.")] = False,
) -> None:
    """Show groups of copies, and how they differ. The largest, the most doubtful and random ones."""
    from corpusmill.report.answers.clusters import find, one_list

    _show(find(run, one_list(largest, doubtful, random, id_), limit, seed, id_), json)


@app.command(epilog="Example: corpusmill raw runs/demo 5f2c09d1 --part head")
def raw(
    run: ShownRun,
    document: Annotated[str, typer.Argument(metavar="ID-OR-URL", help="Its id, the id's beginning, or its URL; kept or dropped.")],
    part: Annotated[
        Literal["record", "head", "body", "text", "blocks"],
        typer.Option(
            help="record: all of it; head: the headers; body: HTTP's encodings undone; text: what ingest made of it; "
            "blocks: the page's blocks, + what ingest kept, - what it left out."
        ),
    ] = "record",
    fetch: Annotated[bool, typer.Option("--fetch", help="Fetch it from the web server or store of the crawl.")] = False,
) -> None:
    """Show the original record of a document. It is read from the crawl file, byte for byte."""
    from corpusmill.report.answers.raw import raw as show

    show(run, document, part, fetch)


Stage = Annotated[str | None, typer.Option(help="A stage of the run; else the one that has the rule, or the filter.", show_default=False)]
Rules = Annotated[list[str] | None, typer.Option("--rule", help="Only documents that failed this rule (several: all of them).")]
Kept = Annotated[bool | None, typer.Option("--kept/--dropped", help="Only documents that were kept, or dropped.")]
Alone = Annotated[bool, typer.Option("--alone", help="Only documents that failed these rules and no other.")]
Where = Annotated[
    str | None,
    typer.Option(metavar="SQL", help="Only rows that meet a condition: \"language = 'de' AND language_score < 0.9\".", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a row.")]


def _show(found: Any, json: bool) -> None:
    """Prints an answer; as JSON, a list has an object a line."""
    from corpusmill.report.machine import as_json, print_json_lines

    if not json:
        found.show(make_console())
    elif isinstance(content := found.as_json(), list):
        print_json_lines(content)
    else:
        print(as_json(content, 2))


@app.command(epilog="Example: corpusmill inspect runs/demo --stage filter --rule gopher_short_doc --limit 5")
def inspect(
    target: Annotated[
        str,
        typer.Argument(metavar="RUN|FILE", help="A run, or one Parquet file.", show_default=False, callback=warn_if_stale),
    ],
    stage: Stage = None,
    rule: Rules = None,
    alone: Alone = False,
    kept: Kept = None,
    where: Where = None,
    columns: Annotated[str | None, typer.Option(metavar="A,B,C", help="Only these columns, as a table.")] = None,
    order: Annotated[str | None, typer.Option(metavar="COLUMN", help="Sort by a column; else rows are in their order.")] = None,
    descending: Annotated[bool, typer.Option("--descending", help="With --order: the largest first.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="Rows to show; 0 shows all.")] = 20,
    offset: Annotated[int, typer.Option(min=0, help="Rows to skip.")] = 0,
    json: Json = False,
) -> None:
    """Show rows of a run's report, or of a shard. With their values, and the rules that they failed."""
    from corpusmill.report.answers.choose import Choice
    from corpusmill.report.answers.inspect import RowOptions
    from corpusmill.report.answers.inspect import inspect as show

    choice = Choice(tuple(rule or ()), alone, kept, where)
    chosen = tuple(name.strip() for name in (columns or "").split(",") if name.strip())
    wanted = RowOptions(choice, chosen, order, descending, limit, offset, json)
    show(target, stage, wanted, make_console())


@app.command(epilog="Example: corpusmill why runs/demo http://example.org/page.html")
def why(
    run: ShownRun,
    document: Annotated[
        str,
        typer.Argument(
            metavar="URL|ID|TEXT", help="A document's URL or a piece of it, its id or the id's beginning, or a passage of its text."
        ),
    ],
    text: Annotated[bool, typer.Option("--text", help="Treat it as a passage of text.")] = False,
    marks: Annotated[bool, typer.Option("--marks", help="Show the text, with the places that each failed rule counts.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Say why one document was kept or dropped. With every value that was measured, and what would keep it."""
    from corpusmill.report.answers.why import explain

    _show(explain(run, document, text, marks), json)


@app.command(epilog="Example: corpusmill sample runs/demo --rule gopher_short_doc --limit 5 --near")
def sample(
    run: ShownRun,
    stage: Stage = None,
    rule: Rules = None,
    alone: Alone = False,
    kept: Kept = None,
    where: Where = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100_000, help="How many documents.")] = 20,
    near: Annotated[bool, typer.Option("--near", help="Those nearest to the rule's threshold: half just dropped, half just kept.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Another seed draws other documents.")] = 0,
    chars: Annotated[int, typer.Option(min=20, max=1_000_000, help="Characters of each text.")] = 600,
    words: Annotated[bool, typer.Option("--words", help="Their most frequent words beside the stop words, not the texts.")] = False,
    json: Json = False,
) -> None:
    """Show some documents with their texts. They are drawn at random, or nearest to a threshold, to judge a rule by eye."""
    from corpusmill.report.answers.choose import Choice
    from corpusmill.report.answers.sample import Draw
    from corpusmill.report.answers.sample import sample as show

    show(run, stage, Choice(tuple(rule or ()), alone, kept, where), Draw(limit, seed, near, chars, words), json, make_console())


@app.command(epilog="Example: corpusmill diff runs/demo runs/stricter --samples 5")
def diff(
    run_a: Annotated[str, typer.Argument(metavar="RUN_A", help="The folder of a run.", show_default=False)],
    run_b: Annotated[str, typer.Argument(metavar="RUN_B", help="The folder of another run, of the same crawl.", show_default=False)],
    stage: Annotated[str | None, typer.Option(help="Compare the decisions of one stage; else the whole runs.", show_default=False)] = None,
    samples: Annotated[int, typer.Option(min=0, max=10_000, help="Documents shown that one run alone keeps, of each side.")] = 3,
    chars: Annotated[int, typer.Option(min=20, max=1_000_000, help="Characters of their texts.")] = 400,
    columns: Annotated[bool, typer.Option("--columns", help="All measured values, not only those that changed most.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object with everything.")] = False,
) -> None:
    """Compare what two runs keep and drop. Which documents, by which rules, and how that changes every distribution."""
    from corpusmill.report.answers.diff import DiffOptions, compare

    _show(compare(run_a, run_b, DiffOptions(stage, samples, chars, columns)), json)
