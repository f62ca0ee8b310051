"""Commands about tokens: where each comes from, and their way to other training codes."""

from enum import StrEnum
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


class ExportFormat(StrEnum):
    nanogpt = "nanogpt"
    llmc = "llmc"
    megatron = "megatron"
    datatrove = "datatrove"
    parquet = "parquet"
    mds = "mds"
    litdata = "litdata"


class ExportSplit(StrEnum):
    both = "both"
    train = "train"
    validation = "validation"


@tokens_app.command(epilog="Example: corpusmill tokens export runs/demo --format megatron --output exports/demo")
def export(
    run: RunFolder,
    format_: Annotated[ExportFormat, typer.Option("--format", help="Whose readers are to open it.", show_default=False)],
    output: Annotated[str, typer.Option(metavar="FOLDER", help="A new or empty local folder.", show_default=False)],
    split: Annotated[ExportSplit, typer.Option(help="Which tokens.")] = ExportSplit.both,
    sequence_length: Annotated[
        int | None, typer.Option(metavar="TOKENS", min=2, help="Rows of so many tokens instead of a row a document (parquet, mds).")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export in that folder.")] = False,
) -> None:
    """Write a run's tokens as another training code reads them; each shard's sha256 is checked on the way."""
    from rich.console import Console

    from corpusmill.pipeline.progress import Progress
    from corpusmill.tokenize.export.export import SPLITS
    from corpusmill.tokenize.export.export import export as write

    done = write(run, format_.value, output, SPLITS if split is ExportSplit.both else (split.value,), sequence_length, force, Progress())
    console = Console(highlight=False, soft_wrap=True)
    for name, found in done["splits"].items():
        console.print(f"{name}: {found['tokens']:,} tokens of {found['documents']:,} documents", markup=False)
    size = sum(done["files"].values())
    console.print(f"{output}: {len(done['files'])} files, {size / 1e6:,.1f} MB, ids as {done['dtype']}", markup=False)
