"""Commands that let a model speak."""

from typing import Annotated

import typer

from corpusmill.cli.base import ModelFolder, app


@app.command(epilog='Example: corpusmill generate runs/demo/align/model --prompt "The history of"')
def generate(
    model: ModelFolder,
    prompt: Annotated[str, typer.Option(help="What the model goes on from.")],
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens to write at most.")] = 128,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 always takes the most likely token.")] = 0.8,
    top_k: Annotated[int, typer.Option(min=0, help="Sample among the k most likely tokens; 0 means all.")] = 50,
    top_p: Annotated[float, typer.Option(min=0.0, max=1.0, help="Sample among tokens that hold this share of probability.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal text.")] = 0,
) -> None:
    """Let a model continue a text."""
    from corpusmill.train.generate import complete

    for piece in complete(model, prompt, max_tokens=max_tokens, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed):
        print(piece, end="", flush=True)
    print()


@app.command(epilog="Example: corpusmill chat runs/demo/align/model")
def chat(
    model: ModelFolder,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 always takes the most likely token.")] = 0.7,
    top_k: Annotated[int, typer.Option(min=0, help="Sample among the k most likely tokens; 0 means all.")] = 50,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens in an answer at most.")] = 256,
    seed: Annotated[int, typer.Option(help="Equal seeds and turns give equal answers.")] = 0,
) -> None:
    """Talk with a tuned model in the terminal; an empty line or Ctrl-D ends."""
    from rich.console import Console

    from corpusmill.train.chat import chat_loop

    chat_loop(model, Console(), temperature=temperature, top_k=top_k, max_tokens=max_tokens, seed=seed)
