"""Commands about tokens: where each comes from."""

from typing import Annotated

import typer

from corpusmill.cli.base import RunFolder, app


@app.command(epilog="Example: corpusmill trace runs/demo --shard 0 --token 12345")
def trace(
    run: RunFolder,
    shard: Annotated[int, typer.Option(min=0, help="The number of the token shard.")],
    token: Annotated[int, typer.Option(min=0, help="The token's place in the shard.")],
    split: Annotated[str, typer.Option(help="train or validation.")] = "train",
) -> None:
    """Walk from a token back to its document, its crawl file and the record's place in it."""
    from rich.console import Console

    from corpusmill.pipeline.report.trace import trace as walk

    walk(run, shard, token, split, Console())
