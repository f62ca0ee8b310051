"""Commands about models: the examples of tuning, texts and chats of a model, and its scores on benchmarks."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from corpusmill.cli.base import ModelFolder, ShownRun, app, sft_app
from corpusmill.pipeline.errors import InputError


@sft_app.command(
    epilog="Example: corpusmill sft inspect runs/demo --limit 2 --tokens",
)
def inspect(
    run: ShownRun,
    id_: Annotated[str | None, typer.Option("--id", metavar="ID", help="Examples with this id, or of which it is the beginning.")] = None,
    held_out: Annotated[bool, typer.Option("--held-out", help="Examples held out for measuring.")] = False,
    dropped: Annotated[bool, typer.Option("--dropped", help="Examples that can't be learned from, and why.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Examples to show.")] = 3,
    tokens: Annotated[bool, typer.Option("--tokens", help="A line for each token, too.")] = False,
) -> None:
    """Show which tokens of an example are learned. With special tokens, and what the context cuts off."""
    chosen = {"--id": id_ is not None, "--dropped": dropped, "--held-out": held_out}
    names = [name for name, on in chosen.items() if on]
    if len(names) > 1:
        raise InputError(f"sft inspect: {names[0]} and {names[1]} exclude each other.")

    from rich.console import Console

    from corpusmill.report import sft_look

    source = sft_look.source_of_run(run)
    shown = sft_look.choose(source, limit, id_, held_out, dropped)
    sft_look.show(source, shown, Console(highlight=False, soft_wrap=True), tokens)


Temperature = Annotated[float, typer.Option(help="0 always takes the most likely token.")]
TopK = Annotated[int, typer.Option(help="Sample among the k most likely tokens; 0 means all.")]
TopP = Annotated[float, typer.Option(help="Sample among the most likely tokens that hold this share of probability.")]
MinP = Annotated[float, typer.Option(help="Sample among tokens with at least this share of the most likely one's probability.")]
Penalty = Annotated[float, typer.Option("--repetition-penalty", help="Above 1: tokens that were there already become less likely.")]
PROMPT = "What the model goes on from, or with --chat answers; may be given several times."


@app.command(epilog='Example: corpusmill generate runs/demo --prompt "The history of" --samples 3')
def generate(
    model: ModelFolder,
    prompt: Annotated[list[str] | None, typer.Option(help=PROMPT, show_default=False)] = None,
    prompts: Annotated[Path | None, typer.Option(help="A file with a prompt a line, or a JSONL or Parquet file with `prompt`.")] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Prompts are messages of a user, by the model's chat template.")] = False,
    samples: Annotated[int, typer.Option(min=1, help="Texts for each prompt.")] = 1,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens to write at most.")] = 128,
    temperature: Temperature = 0.8,
    top_k: TopK = 50,
    top_p: TopP = 1.0,
    min_p: MinP = 0.0,
    repetition_penalty: Penalty = 1.0,
    stop: Annotated[
        list[str] | None, typer.Option(help="The text ends before this; may be given several times.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal text.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="A line of JSON for each text: prompt, text, tokens, and why it ended.")] = False,
) -> None:
    """Let a model continue texts, or answer messages."""
    from corpusmill.train.generate import Draft, Sampling, json_line, load_text_generator, plain
    from corpusmill.train.user_files import read_prompts

    sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty, seed)
    asked = [*(prompt or []), *(read_prompts(str(prompts)) if prompts else [])]
    if not asked:
        raise InputError("there is no prompt: give --prompt TEXT or --prompts FILE.")
    generator, one = load_text_generator(model), len(asked) * samples == 1
    if one and not json and sys.stdout.isatty():
        draft = Draft(generator.ids(asked[0], chat), seed, generator.tokenizer, stop or [])
        print("" if chat else plain(asked[0]), end="", flush=True)
        for piece in generator.stream(draft, max_tokens, sampling):
            print(piece, end="", flush=True)
        print()
        return
    texts = generator.complete(asked, samples=samples, chat=chat, max_tokens=max_tokens, sampling=sampling, stop_strings=stop or [])
    for number, text in enumerate(texts):
        given = asked[number // samples]
        if json:
            print(json_line({"prompt": given, "text": text.text, "tokens": len(text.tokens), "ended": text.ended}), flush=True)
            continue
        if not one:
            print(f"--- {number + 1} of {len(asked) * samples}: {plain(given) if chat else ''}")
        print(plain(text.text if chat else given + text.text), flush=True)


@app.command(epilog="Example: corpusmill serve runs/demo --port 8000, and in a recipe: - llm: {model: demo, prompt: educational}")
def serve(
    model: ModelFolder,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port on this machine; 0: any free one.")] = 8000,
    name: Annotated[
        str | None, typer.Option(help="What requests call the model. [default: the name of its run or folder]", show_default=False)
    ] = None,
) -> None:
    """Answer OpenAI's protocol with a model. On this machine alone, for trying the step llm; Ctrl-C ends it."""
    from corpusmill.cli.serve import serve as serve_model
    from corpusmill.train.generate import load_text_generator

    generator = load_text_generator(model)
    serve_model(generator, name or _name_of(model), port)


def _name_of(model: str) -> str:
    """Returns `demo` for `runs/demo` and for `runs/demo/sft/model`."""
    parts = [part for part in model.rstrip("/").split("/") if part not in ("model", "pretrain", "sft", "align", "..", ".")]
    return parts[-1] if parts else "model"


@app.command(epilog="Example: corpusmill chat runs/demo, or: corpusmill chat runs/demo/sft/model")
def chat(
    model: ModelFolder,
    system: Annotated[str, typer.Option(help="The system message.", show_default=False)] = "",
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens in an answer at most.")] = 256,
    temperature: Temperature = 0.7,
    top_k: TopK = 50,
    top_p: TopP = 1.0,
    min_p: MinP = 0.0,
    repetition_penalty: Penalty = 1.0,
    seed: Annotated[int, typer.Option(help="Equal seeds and messages give equal answers.")] = 0,
) -> None:
    """Talk with a tuned model. /help lists commands, Ctrl-C stops an answer. In a pipe: one message a line; prints only answers."""
    from corpusmill.cli.chat import Conversation, Screen, chat_loop, chat_warning
    from corpusmill.train.generate import Sampling, load_text_generator

    sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty, seed)
    conversation = Conversation(load_text_generator(model), sampling, max_tokens, system)
    screen = Screen(sys.stdin.isatty() and sys.stdout.isatty())
    if about := chat_warning(conversation.generator.folder, model):
        screen.note(about, style="yellow")
    if screen.interactive:
        screen.note(f"A context of {conversation.generator.model.arch.context} tokens. /help lists commands, Ctrl-D ends.")
    chat_loop(conversation, screen)


@app.command(
    epilog="Example: corpusmill score runs/demo --task blimp=blimp.zip --task hellaswag --limit 1000",
)
def score(
    model: ModelFolder,
    task: Annotated[list[str], typer.Option(metavar="NAME[=PATH]", help="A benchmark, and the file of its items; can be repeated.")],
    limit: Annotated[int | None, typer.Option(min=1, help="At most this many items of each, chosen by hashes.", show_default=False)] = None,
    shots: Annotated[int, typer.Option(min=0, help="Solved examples before each item.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: all metrics, and parts of a set.")] = False,
) -> None:
    """Score a model on benchmarks. BLiMP, HellaSwag, ARC, PIQA, WinoGrande, LAMBADA, SciQ, CORE."""
    from pydantic import ValidationError

    from corpusmill.pipeline.errors import ConfigError
    from corpusmill.pipeline.watch.progress import Progress
    from corpusmill.train.benchmarks import ModelUnderTest, read_task, summarise
    from corpusmill.train.evaluate import TaskConfig

    configs = []
    for given in task:
        name, _, path = given.partition("=")
        try:
            configs.append(TaskConfig.model_validate({"task": name, "path": path or None, "limit": limit, "shots": shots}))
        except ValidationError as error:
            raise ConfigError(f"--task {given}: {error.errors()[0]['msg'].replace('Input', 'the name')}.") from error
    names = [config.task for config in configs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"--task {twice[0]}: is named twice.")
    sets = [read_task(config) for config in configs]  # before the model is loaded, so that an unreadable file costs no time
    tested = ModelUnderTest(model)
    found: dict[str, Any] = {}
    for config, chosen in zip(configs, sets, strict=True):
        with Progress().steps(config.task, sum(len(of.items) for of in chosen)) as advance:
            found[config.task] = summarise(config, chosen, tested.score(chosen, advance))
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        _print(found)


def _print(found: dict[str, Any]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from corpusmill.pipeline.intervals import score_text
    from corpusmill.train.benchmarks import metrics_of, remarks

    table = Table(box=box.SIMPLE_HEAD)
    for title, justify in (("task", "left"), ("items", "right"), ("metric", "left"), ("score", "right"), ("chance", "right")):
        table.add_column(title, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for name, summary in found.items():
        items = f"{summary['items']:,}" + (f" of {summary['total']:,}" if summary["items"] < summary["total"] else "")
        for number, metric in enumerate(metrics_of(name)):
            chance = f"{summary['chance']:.1%}" if summary["chance"] is not None and metric.startswith("acc") else ""
            about = (summary["title"], items) if not number else ("", "")
            score = summary["metrics"][metric]
            table.add_row(*about, metric, score_text(metric, score["value"], score["stderr"]), chance)
        for part, of in summary["groups"].items() if name == "core" else ():
            score = of["metrics"]["centered"]
            table.add_row(f"  {part}", f"{of['items']:,}", "centered", score_text("centered", score["value"], score["stderr"]), "")
    console = Console(highlight=False)
    console.print(table)
    for summary in found.values():
        for sentence in remarks(summary):
            console.print(sentence, markup=False)
