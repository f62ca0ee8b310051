"""The command that describes a run's documents for others."""

from typing import Annotated

import typer

from corpusmill.cli.base import AlthoughStale, RunFolder, app


@app.command(epilog="Example: corpusmill card runs/demo --licence odc-by --name 'Manuals of 2026'")
def card(
    run: RunFolder,
    output: Annotated[str | None, typer.Option(metavar="FOLDER", help="Where to write; by default the run's folder.")] = None,
    name: Annotated[str | None, typer.Option(help="What the collection is called; by default as the run's folder.")] = None,
    licence: Annotated[str | None, typer.Option("--licence", "--license", metavar="ID", help="Its licence, for example cc-by-4.0.")] = None,
    description: Annotated[str | None, typer.Option(metavar="FILE", help="Markdown that comes first in the card.")] = None,
    stale: AlthoughStale = False,
) -> None:
    """Write README.md (a card for the dataset hub) and croissant.json of a run's documents, from the run's own tables."""
    from corpusmill.report.card.data_card import write_card

    for path in write_card(run, output, name, licence, description, although_stale=stale):
        print(path)
