"""Commands about tokens: tracing, appending and exporting them."""

from typing import Annotated, Any, Literal

import typer

from corpusmill.cli.base import AlthoughStale, RunFolder, app, tokens_app, warn_if_stale

RUN_OR_SET: dict[str, Any] = {
    "metavar": "RUN|SET", "help": "The folder of a run, or of a set that runs were appended to.", "show_default": False,
}  # fmt: skip
RunOrSet = Annotated[str, typer.Argument(**RUN_OR_SET)]
ShownRunOrSet = Annotated[str, typer.Argument(**RUN_OR_SET, callback=warn_if_stale)]


@app.command(
    epilog="Example: corpusmill trace runs/demo --step 120 --row 3 --pos 17, or: corpusmill trace runs/demo --shard 0 --token 12345"
)
def trace(
    run: ShownRunOrSet,
    shard: Annotated[int | None, typer.Option(min=0, help="The number of the token shard.", show_default=False)] = None,
    token: Annotated[int | None, typer.Option(min=0, help="The token's place in the shard.", show_default=False)] = None,
    split: Annotated[str, typer.Option(help="train or validation.")] = "train",
    step: Annotated[
        int | None, typer.Option(min=0, help="A step of the pre-training, from 0 (as its log counts).", show_default=False)
    ] = None,
    row: Annotated[int | None, typer.Option(min=0, help="The row of that step's whole batch, from 0.", show_default=False)] = None,
    pos: Annotated[int | None, typer.Option(min=0, help="The position in the context, from 0.", show_default=False)] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object in place of the tables.")] = False,
) -> None:
    """Walk from a token back to its document and crawl file. The token is given by its shard or by a training step."""
    from rich.console import Console

    from corpusmill.pipeline.errors import InputError
    from corpusmill.report.tokens.trace import show_trace
    from corpusmill.report.tokens.trace import trace as walk

    given = tuple(value is not None for value in (shard, token, step, row, pos))
    if given == (True, True, False, False, False):
        found = walk(run, shard or 0, token or 0, split)
    elif given == (False, False, True, True, True) and split == "train":
        from corpusmill.train.address import token_of_batch

        place = token_of_batch(run, step or 0, row or 0, pos or 0)
        found = walk(run, place.shard, place.token, "train", place.batch, place.notes)
    else:
        raise InputError("trace: give --shard and --token (and --split), or --step, --row and --pos.")
    show_trace(found, json, Console(soft_wrap=True))


@tokens_app.command(epilog="Example: corpusmill tokens append sets/web runs/march")
def append(
    folder: Annotated[str, typer.Argument(metavar="SET", help="A folder of token shards; made where it is not there.", show_default=False)],
    run: RunFolder,
    skip_known: Annotated[bool, typer.Option("--skip-known", help="Skip documents that the set already has, in either split.")] = False,
) -> None:
    """Add a run's token shards to a set. No document comes twice, and none that is held out goes into training."""
    from corpusmill.pipeline.names import counted
    from corpusmill.report.stale import refuse_stale_run
    from corpusmill.tokenize.append import append as add

    refuse_stale_run(run, "tokens")
    for split in add(folder, run, skip_known, lambda sentence: print(f"Note: {sentence}", flush=True)):
        left = f"; {split.left_out:,} documents left out" if split.left_out else ""
        added = f"{counted(split.shards, 'shard')}, {counted(split.documents, 'document')}, {split.tokens:,} tokens"
        print(f"{split.split}: {added if split.shards else 'nothing that it does not have already'}{left}; now {split.total:,}")


ExportFormat = Literal["nanogpt", "llmc", "megatron", "datatrove", "parquet", "mds", "litdata"]


@tokens_app.command(epilog="Example: corpusmill tokens export runs/demo --format megatron --output exports/demo")
def export(
    run: RunOrSet,
    format_: Annotated[ExportFormat, typer.Option("--format", help="The format of the export.", show_default=False)],
    output: Annotated[str, typer.Option("--output", "-o", metavar="FOLDER", help="A new or empty local folder.", show_default=False)],
    split: Annotated[Literal["both", "train", "validation"], typer.Option(help="Which tokens.")] = "both",
    sequence_length: Annotated[
        int | None,
        typer.Option(metavar="TOKENS", min=2, help="Length of rows in tokens, instead of a row for each document (parquet, mds)."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export in that folder.")] = False,
    stale: AlthoughStale = False,
) -> None:
    """Write tokens in the format of other training code. Each shard's sha256 is checked on the way."""
    from rich.console import Console

    from corpusmill.pipeline.watch.progress import Progress
    from corpusmill.report.stale import refuse_stale_run
    from corpusmill.tokenize.export.export import SPLITS
    from corpusmill.tokenize.export.export import export as write

    splits = SPLITS if split == "both" else (split,)
    sentence = refuse_stale_run(run, "tokens", stale)
    done = write(run, format_, output, splits, sequence_length, force, Progress(), sentence)
    console = Console(highlight=False, soft_wrap=True)
    for name, found in done["splits"].items():
        console.print(f"{name}: {found['tokens']:,} tokens of {found['documents']:,} documents", markup=False)
    size = sum(done["files"].values())
    console.print(f"{output}: {len(done['files'])} files, {size / 1e6:,.1f} MB, ids as {done['dtype']}", markup=False)
