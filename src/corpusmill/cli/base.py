"""The Typer application and its groups, and the arguments that several commands share."""

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from corpusmill.pipeline.errors import CorpusmillError

#: The commands in the order of `corpusmill --help`.
GROUPS = {
    "Run": ("run", "recipe", "plan", "status", "warm"),
    "Look": ("report", "explore", "why", "inspect", "sample", "clusters", "query"),
    "Decide": ("steps", "sweep", "retune", "fork", "diff", "ablate"),
    "Data": ("verify", "raw", "card", "push", "labels", "takedown"),
    "Model": ("chat", "generate", "serve", "score", "export", "sft inspect"),
    "Classifier": ("classifier train", "classifier evaluate"),
    "Tokens": ("trace", "tokens append", "tokens export"),
}


#: The width in which the tables of a pipe fit.
PIPE = 240


class Commands(TyperGroup):
    """Lists commands by `GROUPS`, those of a group of commands with its name before theirs."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        try:
            return super().invoke(ctx)
        except Exception as error:
            if "unexpected extra argument" in (message := getattr(error, "message", "")):
                options = {name for option in error.ctx.command.params for name in option.opts}  # type: ignore[attr-defined]
                if "--set" in options and "=" in message:
                    message += "; a value is given by --set KEY=VALUE."
                elif "--output" in options:
                    message += "; --output names the file or folder that it writes."
                error.message = message  # type: ignore[attr-defined]
            raise

    def format_commands(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        width = max(len(name) for names in GROUPS.values() for name in names)
        for title, names in GROUPS.items():
            rows = []
            for name in names:
                command: Any = self
                for word in name.split():
                    command = command.get_command(ctx, word)
                rows.append((name.ljust(width), command.get_short_help_str(limit=200)))
            with formatter.section(title):
                formatter.write_dl(rows)


app = typer.Typer(
    cls=Commands,
    name="corpusmill",
    help="From raw web crawls to training tokens and a small aligned language model, with every decision visible.",
    epilog="Example: corpusmill run fineweb crawl/*.warc.gz --output runs/first",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
#: `corpusmill tokens ...`: commands for finished token shards.
tokens_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(
    tokens_app,
    name="tokens",
    help="Work with token shards. (The stage tokens of a recipe makes them, as in corpusmill run corpus INPUT --output RUN.)",
    epilog="Example: corpusmill tokens export runs/demo --format megatron --output exports/demo",
)
#: `corpusmill sft ...`: a command that shows the examples of instruction tuning.
sft_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(
    sft_app,
    name="sft",
    help="Show what instruction tuning learns. (The stage sft of a run tunes: corpusmill run RUN --from sft --to sft.)",
    epilog="Example: corpusmill sft inspect runs/demo",
)
#: `corpusmill classifier ...`: text classifiers, from their training to their evaluation.
classifier_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(
    classifier_app,
    name="classifier",
    help="Train and evaluate text classifiers (quality, toxicity, ...).",
    epilog="Example: corpusmill classifier train labelled.jsonl --output models/toxicity",
)


def make_console(soft_wrap: bool = False) -> Any:
    """Returns a console on standard output. Only a terminal wraps lines and names; a pipe gets them whole, unless COLUMNS gives a width."""
    from rich.console import Console

    piped = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(highlight=False, soft_wrap=soft_wrap, width=PIPE if piped else None)


def warn_if_stale(run: str | None) -> str | None:
    """Prints on standard error which stages of a run are stale, and returns `run`. Commands call it before they show a run. Prints nothing
    for a folder that is no run."""
    _warn_if_stale(run)
    return run


def model_folder(given: str) -> str:
    """Returns the folder of a model: `given`, or that of the last model of a run, which a message on standard error names. Another
    message says where the model's stage is stale. Raises InputError."""
    from corpusmill.pipeline.errors import InputError
    from corpusmill.pipeline.names import not_a_run
    from corpusmill.pipeline.storage import Storage
    from corpusmill.report.read import RunReader

    model = given
    if Storage(given).exists("run.json"):
        model = f"{given.rstrip('/')}/{RunReader(given).models()[-1]}/model"
        print(f"Model: {model}", file=sys.stderr, flush=True)
    elif "://" not in given and not os.path.exists(given):
        raise InputError(not_a_run(given, "model or run"))
    run, *names = model.rstrip("/").rsplit("/", 2)
    if len(names) == 2 and names[1] == "model":
        _warn_if_stale(run, names[0])
    return model


def _warn_if_stale(run: str | None, stage: str | None = None) -> None:
    from contextlib import suppress

    from corpusmill.pipeline.safe import safe_line
    from corpusmill.pipeline.storage import Storage
    from corpusmill.report.read import RunReader

    with suppress(CorpusmillError, OSError, ValueError):  # the command itself reports what is wrong with the folder
        stale = RunReader(run).stale if run and Storage(run).exists("run.json") else None
        if stale and (stage is None or stage in stale.because):
            print(safe_line(stale.sentence, 1000), file=sys.stderr, flush=True)


RunFolder = Annotated[str, typer.Argument(metavar="RUN", help="The folder of a run.", show_default=False)]
#: A run that a command shows, after a note about its stale stages.
ShownRun = Annotated[str, typer.Argument(metavar="RUN", help="The folder of a run.", show_default=False, callback=warn_if_stale)]
ModelFolder = Annotated[
    str,
    typer.Argument(
        metavar="MODEL|RUN",
        help="A model's folder, or a run, for its last model.",
        show_default=False,
        callback=model_folder,
    ),
]
AlthoughStale = Annotated[bool, typer.Option("--stale", help="Write it even if a stage that it depends on is stale; the files say so.")]
Trust = Annotated[bool, typer.Option("--trust", help="Load steps that are code of the run's own, to look at what they decide.")]
Sets = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe's value, for example dedup.threshold=0.8.")
]
Thresholds = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Another threshold, for example filter.thresholds.gopher_short_doc=30."),
]
