"""The command that shows what instruction tuning learns."""

from typing import Annotated

import typer

from corpusmill.cli.base import say_stale, sft_app


@sft_app.command(
    epilog="Example: corpusmill sft inspect runs/demo --count 2, or: corpusmill sft inspect --model runs/demo/pretrain/model "
    "--files chats.jsonl --template llama3 --tokens",
)
def inspect(
    run: Annotated[str | None, typer.Argument(metavar="RUN", help="The folder of a run.", show_default=False, callback=say_stale)] = None,
    model: Annotated[str | None, typer.Option(metavar="FOLDER", help="Without a run: the model that would learn.")] = None,
    files: Annotated[list[str] | None, typer.Option(metavar="FILE", help="Without a run: what it would learn from.")] = None,
    template: Annotated[str, typer.Option(help="Without a run: keep, chatml, llama3, or a file that ends with .jinja.")] = "keep",
    id_: Annotated[str | None, typer.Option("--id", metavar="ID", help="Examples with this id, or of which it is the beginning.")] = None,
    row: Annotated[int | None, typer.Option(min=1, help="The example of this number, from 1.")] = None,
    held_out: Annotated[bool, typer.Option("--held-out", help="Examples that are only measured.")] = False,
    dropped: Annotated[bool, typer.Option("--dropped", help="Examples that can't be learned from, and why.")] = False,
    packed: Annotated[int | None, typer.Option(min=1, metavar="ROW", help="The examples that share this packed row, from 1.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Examples to show.")] = 3,
    tokens: Annotated[bool, typer.Option("--tokens", help="A line for each token, too.")] = False,
    html: Annotated[str | None, typer.Option(metavar="FILE", help="Write a page instead.")] = None,
) -> None:
    """Show what of each example is learned and what is not, with special tokens and what the context cuts off."""
    from corpusmill.pipeline.errors import InputError

    chosen = {"--id": id_ is not None, "--row": row is not None, "--dropped": dropped, "--packed": packed is not None}
    names = [name for name, on in chosen.items() if on]
    if len(names) > 1 or (held_out and names not in ([], ["--packed"])):
        raise InputError(f"sft inspect: {names[0]} and {[*names[1:], '--held-out'][0]} exclude each other.")
    if (run is None) != (model is not None and bool(files)) or (run is not None and (model or files)):
        raise InputError("sft inspect: give a run, or --model and --files.")

    from rich.console import Console

    from corpusmill.report import sft_look

    source = sft_look.source_of_run(run) if run else sft_look.source_of_files(model or "", files or [], template)
    if packed is None:
        shown = sft_look.choose(source, count, id_, row, held_out, dropped)
        head = [sft_look.head(source, shown)]
    else:
        shown, rows, padding = sft_look.choose_row(source, packed, held_out)
        head = [sft_look.packed_head(packed, rows, padding, source, shown, held_out)]
    if html is None:
        sft_look.show(shown, head, Console(highlight=False, soft_wrap=True), tokens)
    else:
        sft_look.write_page(shown, head, html, tokens)
        print(html)
