"""Commands that carry out a recipe or one of its stages, or decide again."""

from pathlib import Path
from typing import Annotated, Any

import typer

from corpusmill.cli.base import (
    DryRun,
    EngineName,
    EngineOption,
    Interrupted,
    RunFolder,
    Sets,
    Strict,
    Workers,
    app,
    make_engine,
    sft_app,
    tokens_app,
)


def _carry_out(plan: Any, engine: EngineName, workers: int) -> None:
    from corpusmill.pipeline.interrupts import exit_code_of, of_an_interrupt

    try:
        _execute(plan, engine, workers)
    except (KeyboardInterrupt, Exception) as error:
        if not of_an_interrupt(error):
            raise
        raise Interrupted(exit_code_of(error)) from error


def _execute(plan: Any, engine: EngineName, workers: int) -> None:
    from rich.console import Console

    from corpusmill.pipeline.errors import Incomplete
    from corpusmill.pipeline.progress import Progress
    from corpusmill.pipeline.report.answers.dry_run import dry_run_lines
    from corpusmill.pipeline.report.answers.terminal import closing_lines, stage_summary
    from corpusmill.pipeline.run import StageResult, execute

    console = Console(highlight=False, soft_wrap=True)

    def on_stage(result: StageResult) -> None:
        if plan.dry_run:
            dry_run_lines(plan.folder, plan.sections[result.name].model_dump(mode="json"), console)
        else:
            stage_summary(plan.folder, result, console)

    lost = execute(
        plan,
        make_engine(engine, workers),
        Progress(),
        say=lambda sentence: console.print(f"Note: {sentence}", markup=False),
        on_stage=on_stage,
    )
    if plan.last is None:
        from corpusmill.pipeline.report.page.html import write_report

        closing_lines(plan.folder, write_report(plan.folder), console)
    if lost:
        raise Incomplete(lost)


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
    strict: Strict = False,
) -> None:
    """Run a recipe on raw crawls: every stage, or some of them; finished work is never done twice."""
    from corpusmill.pipeline.run import new_plan

    _carry_out(new_plan(output, _recipe_path(recipe), inputs or [], set_ or [], from_, to, strict=strict), engine, workers)


def _recipe_path(recipe: str) -> str:
    """The recipe itself, or the one of that name that ships with the package."""
    shipped = Path(__file__).parent.parent / "recipes" / f"{recipe}.yaml"
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
        strict: Strict = False,
    ) -> None:
        from corpusmill.pipeline.run import new_plan, plan_of_existing

        if recipe:
            plan = new_plan(run, _recipe_path(recipe), input_ or [], set_ or [], stage, stage, dry_run, strict)
        else:
            plan = plan_of_existing(run, set_ or [], stage, stage, dry_run, strict)
        _carry_out(plan, engine, workers)

    command.__doc__ = f"{STAGE_HELP[stage]} Works on an existing run."
    group, name = {"tokens": (tokens_app, "encode"), "sft": (sft_app, "tune")}.get(stage, (app, stage))
    group.command(name, epilog=f"Example: corpusmill {stage} runs/demo")(command)


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
        run, set_ or [], make_engine(engine, workers), Progress(), on_decided=lambda result: show(run, result, console), write=not dry_run
    )
