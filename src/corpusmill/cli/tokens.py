"""Commands about tokens: where each comes from."""

from typing import Annotated

import typer

from corpusmill.cli.base import RunFolder, app, tokens_app


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


@tokens_app.command(epilog="Example: corpusmill tokens append sets/web runs/march")
def append(
    folder: Annotated[str, typer.Argument(metavar="SET", help="A folder of token shards; made where it is not there.", show_default=False)],
    run: RunFolder,
    skip_known: Annotated[bool, typer.Option("--skip-known", help="Leave out documents that are there, in either split.")] = False,
) -> None:
    """Add a run's token shards to a set of token shards; no document comes twice, and none that is held out goes into training."""
    from corpusmill.tokenize.append import append as add

    for split in add(folder, run, skip_known):
        left = f"; {split.left_out:,} documents left out" if split.left_out else ""
        print(f"{split.split}: {split.shards:,} shards, {split.documents:,} documents, {split.tokens:,} tokens{left}; now {split.total:,}")
