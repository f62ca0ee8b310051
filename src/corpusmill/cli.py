"""The command line: the only place that knows all rooms. Libraries are imported where a command needs them."""

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from corpusmill.pipeline.errors import CorpusmillError

app = typer.Typer(
    name="corpusmill",
    help="From raw web crawls to training tokens and a small aligned language model, with every decision visible.",
    epilog="Example: corpusmill run recipes/demo.yaml crawl/*.warc.gz --output runs/first",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)


class EngineName(StrEnum):
    ray = "ray"
    inline = "inline"


RunFolder = Annotated[str, typer.Argument(metavar="RUN", help="The folder of a run.", show_default=False)]
ModelFolder = Annotated[Path, typer.Argument(metavar="MODEL", help="A model's folder, for example RUN/align/model.", show_default=False)]
Sets = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe's value, for example dedup.threshold=0.8.")
]
EngineOption = Annotated[EngineName, typer.Option(help="ray: parallel, here or on RAY_ADDRESS; inline: in this process, to debug.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what it would remove (stages that can: dedup).")]
Workers = Annotated[int, typer.Option(min=0, help="Parallel workers; 0 means one for each CPU.")]


def _engine(name: EngineName, workers: int) -> Any:
    if name is EngineName.inline:
        from corpusmill.pipeline.engine import InlineEngine

        return InlineEngine()
    from corpusmill.pipeline.engine_ray import RayEngine

    return RayEngine(workers)


def _carry_out(plan: Any, engine: EngineName, workers: int) -> None:
    from rich.console import Console

    from corpusmill.pipeline.progress import Progress
    from corpusmill.pipeline.report.dry_run import dry_run_lines
    from corpusmill.pipeline.report.terminal import closing_lines, stage_summary
    from corpusmill.pipeline.run import StageResult, execute

    console = Console(highlight=False, soft_wrap=True)

    def on_stage(result: StageResult) -> None:
        if plan.dry_run:
            dry_run_lines(plan.folder, plan.sections[result.name].model_dump(mode="json"), console)
        else:
            stage_summary(plan.folder, result, console)

    execute(
        plan,
        _engine(engine, workers),
        Progress(),
        say=lambda sentence: console.print(f"Note: {sentence}", markup=False),
        on_stage=on_stage,
    )
    if plan.last is None:
        from corpusmill.pipeline.report.html import write_report

        closing_lines(plan.folder, write_report(plan.folder), console)


@app.command(epilog="Example: corpusmill run recipes/demo.yaml crawl/ --output runs/demo --set dedup.threshold=0.8 --to dedup")
def run(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe file, or the name of one that ships (demo, fineweb).")],
    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="INPUT...", help="Files, folders, globs or URLs of crawls, or cc:CC-MAIN-2026-04?segments=3."),
    ] = None,
    output: Annotated[str, typer.Option(help="The run's folder; an existing run goes on where it stopped.")] = "runs/run",
    set_: Sets = None,
    engine: EngineOption = EngineName.ray,
    workers: Workers = 0,
    from_: Annotated[str | None, typer.Option("--from", metavar="STAGE", help="The first stage to run.")] = None,
    to: Annotated[str | None, typer.Option("--to", metavar="STAGE", help="The last stage to run.")] = None,
) -> None:
    """Run a recipe on raw crawls: every stage, or some of them; finished work is never done twice."""
    from corpusmill.pipeline.run import new_plan

    _carry_out(new_plan(output, _recipe_path(recipe), inputs or [], set_ or [], from_, to), engine, workers)


def _recipe_path(recipe: str) -> str:
    """The recipe itself, or the one of that name that ships with the package."""
    shipped = Path(__file__).parent / "recipes" / f"{recipe}.yaml"
    return str(shipped) if not Path(recipe).exists() and shipped.exists() else recipe


STAGE_HELP = {
    "ingest": "Read crawls and collections (WARC, ARC, WET, JSONL, Parquet, HTML, text) and extract the main text of every page.",
    "filter": "Measure every document (language, Gopher, FineWeb, C4, quality) and decide which go on.",
    "dedup": "Find exact and near duplicates, verify them, and keep the best copy of each.",
    "tokenizer": "Train a byte-level BPE tokenizer on the documents that were kept.",
    "tokens": "Encode the documents into shuffled token shards in which every token has an address.",
    "pretrain": "Pre-train a compact Llama on the token shards.",
    "sft": "Tune the model to follow instructions.",
    "align": "Align the tuned model with preferences (DPO).",
    "evaluate": "Measure the models on text and preferences that they have not seen.",
}


def _stage_command(stage: str) -> None:
    def command(
        run: RunFolder,
        recipe: Annotated[str | None, typer.Option(help="The recipe, where the run is new or its recipe changes.")] = None,
        input_: Annotated[list[str] | None, typer.Option("--input", metavar="INPUT", help="An input, where the run is new.")] = None,
        set_: Sets = None,
        engine: EngineOption = EngineName.ray,
        workers: Workers = 0,
        dry_run: DryRun = False,
    ) -> None:
        from corpusmill.pipeline.run import new_plan, plan_of_existing

        if recipe:
            plan = new_plan(run, _recipe_path(recipe), input_ or [], set_ or [], stage, stage, dry_run)
        else:
            plan = plan_of_existing(run, set_ or [], stage, stage, dry_run)
        _carry_out(plan, engine, workers)

    command.__doc__ = f"{STAGE_HELP[stage]} Works on an existing run."
    app.command(stage, epilog=f"Example: corpusmill {stage} runs/demo")(command)


for _stage in STAGE_HELP:
    _stage_command(_stage)


@app.command(
    epilog="Example: corpusmill retune runs/demo --set filter.thresholds.gopher_short_doc=30 --set filter.thresholds.list_ratio=off"
)
def retune(
    run: RunFolder,
    set_: Sets = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")] = False,
    engine: EngineOption = EngineName.ray,
    workers: Workers = 0,
) -> None:
    """Decide again with other thresholds (a number, off, or on), from the values of the report, without measuring anything."""
    from rich.console import Console

    from corpusmill.filters.retune import retune as decide_again
    from corpusmill.filters.retune_view import show
    from corpusmill.pipeline.progress import Progress

    console = Console(highlight=False, soft_wrap=True)
    decide_again(
        run, set_ or [], _engine(engine, workers), Progress(), on_decided=lambda result: show(run, result, console), write=not dry_run
    )


@app.command(epilog="Example: corpusmill sweep runs/demo --rule gopher_short_doc --from 10 --to 200 --plot sweep.html")
def sweep(
    run: RunFolder,
    rule: Annotated[str, typer.Option(help="The rule whose threshold is to vary.")],
    from_: Annotated[float, typer.Option("--from", help="The first threshold.")],
    to: Annotated[float, typer.Option("--to", help="The last threshold.")],
    steps: Annotated[int, typer.Option(min=1, max=1000, help="How many thresholds.")] = 11,
    plot: Annotated[str | None, typer.Option(metavar="FILE", help="Write a page with a chart, too.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object in place of the table.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="CSV in place of the table.")] = False,
) -> None:
    """Say how many documents and characters each threshold of a rule would keep, alone and together with the other rules."""
    from json import dumps

    from rich.console import Console

    from corpusmill.filters import sweep_view
    from corpusmill.filters.sweep import sweep as try_thresholds

    result = try_thresholds(run, rule, from_, to, steps)
    if json or csv:
        print(dumps(result.as_json(), indent=2) if json else sweep_view.as_csv(result).rstrip())
    else:
        sweep_view.show(result, Console(highlight=False, soft_wrap=True))
    if plot:
        sweep_view.write_plot(result, plot)


@app.command(epilog="Example: corpusmill steps gopher_quality")
def steps(step: Annotated[str | None, typer.Argument(metavar="STEP", help="A step of the filter stage.")] = None) -> None:
    """List the steps of the filter stage, or one step's options, columns and rules."""
    from rich.console import Console

    from corpusmill.filters.steps_view import show_step, show_steps

    console = Console(highlight=False)
    if step is None:
        show_steps(console)
    else:
        show_step(step, console)


@app.command(epilog="Example: corpusmill report runs/demo")
def report(run: RunFolder) -> None:
    """Write RUN/report.html and show its main tables here."""
    from rich.console import Console

    from corpusmill.pipeline.report.html import write_report
    from corpusmill.pipeline.report.terminal import render_report

    path = write_report(run)
    render_report(run, Console())
    print(f"The whole report: {path}")


@app.command(epilog="Example: corpusmill inspect runs/demo --stage filter --rule gopher_short_doc --limit 5")
def inspect(
    target: Annotated[str, typer.Argument(metavar="RUN|FILE", help="A run, or one Parquet, JSONL or token file.", show_default=False)],
    stage: Annotated[str | None, typer.Option(help="A stage of the run.")] = None,
    rule: Annotated[str | None, typer.Option(help="Only documents that failed this rule.")] = None,
    kept: Annotated[bool | None, typer.Option("--kept/--dropped", help="Only documents that were kept, or dropped.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Rows to show.")] = 20,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a row.")] = False,
) -> None:
    """Look into a run's reports or any shard: rows, values, and which rules failed."""
    from rich.console import Console

    from corpusmill.pipeline.report.inspect import inspect as show

    show(target, stage=stage, rule=rule, kept=kept, limit=limit, as_json=json, console=Console())


@app.command(epilog="Example: corpusmill why runs/demo http://example.org/page.html")
def why(
    run: RunFolder,
    document: Annotated[str, typer.Argument(metavar="URL-OR-ID", help="A document's URL, or its id or the id's beginning.")],
) -> None:
    """Say what happened to one document in each stage, with every value that was measured."""
    from rich.console import Console

    from corpusmill.pipeline.report.why import why as explain

    explain(run, document, Console())


@app.command(epilog="Example: corpusmill clusters runs/demo --doubtful --limit 5")
def clusters(
    run: RunFolder,
    largest: Annotated[bool, typer.Option("--largest", help="Only the largest clusters.")] = False,
    doubtful: Annotated[bool, typer.Option("--doubtful", help="Only those with the least similar copies.")] = False,
    random: Annotated[bool, typer.Option("--random", help="Only clusters drawn at random.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, max=1000, help="Clusters of a list; with --id: copies.", show_default=False)] = None,
    seed: Annotated[int, typer.Option(min=0, help="Another seed draws other clusters.")] = 0,
    id_: Annotated[str | None, typer.Option("--id", metavar="ID-OR-URL", help="Only the cluster of this document.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a cluster.")] = False,
) -> None:
    """Show groups of copies: the largest, the most doubtful, random ones, with what differs from the document that was kept."""
    from rich.console import Console

    from corpusmill.pipeline.errors import InputError
    from corpusmill.pipeline.report.clusters_view import clusters as show

    options = {"--largest": largest, "--doubtful": doubtful, "--random": random, "--id": id_ is not None}
    chosen = [name for name, on in options.items() if on]
    if len(chosen) > 1:
        raise InputError(f"clusters: {chosen[0]} and {chosen[1]} exclude each other.")
    which = chosen[0].removeprefix("--") if chosen and id_ is None else None
    show(run, which=which, limit=limit, seed=seed, document=id_, as_json=json, console=Console(highlight=False))


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


@app.command(epilog="Example: corpusmill raw runs/demo 5f2c09d1 --head")
def raw(
    run: RunFolder,
    document: Annotated[str, typer.Argument(metavar="ID-OR-URL", help="Its id, the id's beginning, or its URL; kept or dropped.")],
    head: Annotated[bool, typer.Option("--head", help="Only the headers, of the archive and of HTTP.")] = False,
    body: Annotated[bool, typer.Option("--body", help="Only the body, HTTP's encodings undone.")] = False,
    text: Annotated[bool, typer.Option("--text", help="Only the text that ingest made of it.")] = False,
) -> None:
    """Show the original of a document again, byte for byte, out of the crawl file that it came from."""
    from corpusmill.pipeline.errors import InputError
    from corpusmill.pipeline.report.raw import raw as show

    chosen = [name for name, on in (("head", head), ("body", body), ("text", text)) if on]
    if len(chosen) > 1:
        raise InputError(f"raw: --{chosen[0]} and --{chosen[1]} exclude each other.")
    show(run, document, (chosen or ["record"])[0])


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


def _fail(message: str, code: int) -> None:
    print(f"corpusmill: {message}", file=sys.stderr)
    sys.exit(code)


def main() -> None:
    """The `corpusmill` command: what a user can cause ends in one sentence and an exit code, never in a trace."""
    try:
        app(prog_name="corpusmill")
    except CorpusmillError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted; run the same command again to go on where it stopped.", 130)
    except BrokenPipeError:  # `corpusmill inspect ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except MemoryError:
        _fail("out of memory; use fewer workers, or smaller pieces (ingest.piece_mb).", 1)
    except Exception as error:  # the last boundary
        if os.environ.get("CORPUSMILL_DEBUG"):
            raise
        _fail(f"internal error ({type(error).__name__}: {error}); set CORPUSMILL_DEBUG=1 to see where.", 1)
