"""The Typer application and its groups, and the arguments that several commands share."""

import sys
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from corpusmill.pipeline.errors import CorpusmillError


class Interrupted(CorpusmillError):
    """Ctrl-C or SIGTERM in a command that goes on where it stopped when it is run again."""

    def __init__(self, code: int, option: str = ""):
        """`option`: an option that the user has to add the next time; empty where none is needed."""
        reason = "interrupted" if code == 130 else "terminated"
        super().__init__(f"{reason}; run the same command again {option and f'with {option} '}to go on where it stopped.")
        self.exit_code = code


class Commands(TyperGroup):
    """Lists `tokens` and `sft`, which are groups of commands, at their places among the stages. Typer would list them after all other
    commands."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        names = super().list_commands(ctx)
        before = {"tokens": "tokenizer", "sft": "pretrain"}
        return sorted(names, key=lambda name: names.index(before[name]) + 0.5 if name in before else names.index(name))


def stage_group(stage_command: str) -> type[TyperGroup]:
    """Returns a group for a stage with subcommands: `corpusmill STAGE RUN` runs the stage, as for all stages, unless RUN is the name of
    a subcommand."""

    class StageGroup(TyperGroup):
        def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
            if args and args[0] not in self.commands and args[0] != "--help":
                args = [stage_command, *args]
            return super().parse_args(ctx, args)

    return StageGroup


app = typer.Typer(
    cls=Commands,
    name="corpusmill",
    help="From raw web crawls to training tokens and a small aligned language model, with every decision visible.",
    epilog="Example: corpusmill run recipes/demo.yaml crawl/*.warc.gz --output runs/first",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
#: `corpusmill tokens ...`: the stage, and commands for finished token shards.
tokens_app = typer.Typer(cls=stage_group("encode"), no_args_is_help=True, rich_markup_mode=None)
app.add_typer(
    tokens_app,
    name="tokens",
    help="Encode documents into token shards (`tokens RUN` means `tokens encode RUN`), or work with shards that are there.",
    epilog="Example: corpusmill tokens runs/demo",
)
#: `corpusmill sft ...`: the stage, and a command that shows its examples.
sft_app = typer.Typer(cls=stage_group("tune"), no_args_is_help=True, rich_markup_mode=None)
app.add_typer(
    sft_app,
    name="sft",
    help="Tune the model to follow instructions (`sft RUN` means `sft tune RUN`), or show its training examples.",
    epilog="Example: corpusmill sft runs/demo, and then: corpusmill sft inspect runs/demo",
)
#: `corpusmill classifier ...`: text classifiers, from their training to their evaluation.
classifier_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(
    classifier_app,
    name="classifier",
    help="Train, evaluate and apply text classifiers (quality, toxicity, ...).",
    epilog="Example: corpusmill classifier train --data labelled.jsonl --output models/toxicity",
)


EngineName = Literal["auto", "ray", "inline"]


def warn_if_stale(run: str | None) -> str | None:
    """Prints on standard error which stages of a run are stale, and returns `run`. Commands call it before they show a run. Prints nothing
    for a folder that is no run."""
    _warn_if_stale(run)
    return run


def warn_if_model_stale(model: str) -> str:
    """Prints a note where the stage of a run's model (RUN/align/model) is stale, and returns `model`."""
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
        metavar="MODEL", help="A model's folder, for example RUN/align/model.", show_default=False, callback=warn_if_model_stale
    ),
]
ALTHOUGH_STALE = "Write it even if a stage that it depends on is stale; the files say so."
AlthoughStale = Annotated[bool, typer.Option("--stale", help=ALTHOUGH_STALE)]
Sets = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe's value, for example dedup.threshold=0.8.")
]
EngineOption = Annotated[
    EngineName, typer.Option(help="auto: Ray, except for what is small; ray: parallel, here or on RAY_ADDRESS; inline: in this process.")
]
Strict = Annotated[bool, typer.Option("--strict", help="End at the first task that fails, instead of going on without it.")]
Redo = Annotated[
    bool,
    typer.Option("--redo", help="Let other inputs or another recipe replace stages that are finished."),
]
Workers = Annotated[int, typer.Option(min=0, help="Parallel workers; 0 means one for each CPU.")]
TaskTimeout = Annotated[
    float | None,
    typer.Option(
        min=0,
        metavar="SECONDS",
        help="A task that takes longer than this, and as long again for each 32 MiB of its input, is ended and tried once more, "
        "then given up; 0: no limit.  [default: 3600]",
    ),
]


MetricsPort = Annotated[
    int | None,
    typer.Option(
        min=0, max=65535, metavar="PORT", help="Serve Prometheus metrics (/metrics) on this port during the run; 0: any free port."
    ),
]
MetricsHost = Annotated[str, typer.Option(metavar="HOST", help="Where that port listens; by default on this machine alone.")]
MetricsFile = Annotated[
    str | None, typer.Option(metavar="FILE", help="Write metrics to this file after each phase, for a node exporter's textfile collector.")
]
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Metrics:
    """Where to serve and write the metrics of a command; None: nowhere."""

    port: int | None
    host: str
    file: str | None


def make_engine(name: EngineName, workers: int, task_timeout: float | None) -> Any:
    from corpusmill.pipeline.cache import kernels_folder
    from corpusmill.pipeline.engine import TASK_TIMEOUT, InlineEngine

    kernels_folder()  # if it can't be written, this process reports that, instead of each worker

    timeout = TASK_TIMEOUT if task_timeout is None else task_timeout
    if name == "inline":
        return InlineEngine(timeout)
    from corpusmill.pipeline.on_ray.engine import RayEngine

    return RayEngine(workers, timeout, here_first=name == "auto")
