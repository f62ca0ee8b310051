"""Commands that let a model speak."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from corpusmill.cli.base import ModelFolder, app
from corpusmill.pipeline.errors import InputError

if TYPE_CHECKING:
    from corpusmill.train.generate import Completion


class OverflowName(StrEnum):
    slide = "slide"
    refuse = "refuse"


Temperature = Annotated[float, typer.Option(help="0 always takes the most likely token.")]
TopK = Annotated[int, typer.Option(help="Sample among the k most likely tokens; 0 means all.")]
TopP = Annotated[float, typer.Option(help="Sample among the most likely tokens that hold this share of probability.")]
MinP = Annotated[float, typer.Option(help="Sample among tokens with at least this share of the most likely one's probability.")]
Penalty = Annotated[float, typer.Option("--repetition-penalty", help="Above 1: tokens that were there already become less likely.")]
PROMPT = "What the model goes on from, or with --chat answers; may be given several times."


@app.command(epilog='Example: corpusmill generate runs/demo/align/model --prompt "The history of" --samples 3')
def generate(
    model: ModelFolder,
    prompt: Annotated[list[str] | None, typer.Option(help=PROMPT, show_default=False)] = None,
    prompts: Annotated[Path | None, typer.Option(help="A file with a prompt a line, or a JSONL or Parquet file with `prompt`.")] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Prompts are messages of a user, by the model's chat template.")] = False,
    samples: Annotated[int, typer.Option(min=1, help="Texts for each prompt.")] = 1,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens to write at most.")] = 128,
    temperature: Temperature = 0.8,
    greedy: Annotated[bool, typer.Option("--greedy", help="The same as --temperature 0.")] = False,
    top_k: TopK = 50,
    top_p: TopP = 1.0,
    min_p: MinP = 0.0,
    repetition_penalty: Penalty = 1.0,
    stop: Annotated[
        list[str] | None, typer.Option(help="The text ends before this; may be given several times.", show_default=False)
    ] = None,
    overflow: Annotated[OverflowName, typer.Option(help="Beyond the context: forget the older half, or refuse.")] = OverflowName.slide,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal text.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="A line of JSON for each text: prompt, text, tokens, and why it ended.")] = False,
) -> None:
    """Let a model continue texts, or answer messages."""
    from corpusmill.train.generate import Sampling, json_line, load_text_generator, plain
    from corpusmill.train.user_files import read_prompts

    sampling = Sampling(0 if greedy else temperature, top_k, top_p, min_p, repetition_penalty, seed)
    asked = [*(prompt or []), *(read_prompts(str(prompts)) if prompts else [])]
    if not asked:
        raise InputError("there is no prompt: give --prompt TEXT or --prompts FILE.")
    generator, one = load_text_generator(model), len(asked) * samples == 1
    options: dict[str, Any] = {"max_tokens": max_tokens, "sampling": sampling, "stop_strings": stop or [], "overflow": overflow.value}
    if one and not json and sys.stdout.isatty():
        pieces = generator.stream(generator.ids(asked[0], chat), **options)
        print("" if chat else plain(asked[0]), end="", flush=True)
        for piece in pieces:
            print(piece, end="", flush=True)
        print()
        return
    for number, text in enumerate(generator.complete(asked, samples=samples, chat=chat, **options), 1):
        if json:
            print(json_line(vars(text)), flush=True)
        else:
            print(_shown(text, chat, "" if one else f"--- {number} of {len(asked) * samples}: "), flush=True)


def _shown(text: "Completion", chat: bool, title: str) -> str:
    """A text below its title, which names the message where it is an answer."""
    from corpusmill.train.generate import plain

    if title:
        title += f"{plain(text.prompt)}\n" if chat else "\n"
    return title + plain(text.text if chat else text.prompt + text.text)


@app.command(epilog="Example: corpusmill chat runs/demo/align/model")
def chat(
    model: ModelFolder,
    system: Annotated[str, typer.Option(help="What the model is told before the first message.", show_default=False)] = "",
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens in an answer at most.")] = 256,
    temperature: Temperature = 0.7,
    top_k: TopK = 50,
    top_p: TopP = 1.0,
    min_p: MinP = 0.0,
    repetition_penalty: Penalty = 1.0,
    seed: Annotated[int, typer.Option(help="Equal seeds and messages give equal answers.")] = 0,
) -> None:
    """Talk with a tuned model; /help lists commands, Ctrl-C stops an answer. Through pipes: a message a line in, answers alone out."""
    from corpusmill.train.chat import Conversation, Screen, chat_loop, warning
    from corpusmill.train.generate import Sampling, load_text_generator

    sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty, seed)
    conversation = Conversation(load_text_generator(model), sampling, max_tokens, system)
    screen = Screen(sys.stdin.isatty() and sys.stdout.isatty())
    if about := warning(conversation.generator.folder, model):
        screen.note(about, style="yellow")
    if screen.interactive:
        screen.note(f"{model}, a context of {conversation.generator.model.arch.context} tokens. /help lists commands, Ctrl-D ends.")
    chat_loop(conversation, screen)
