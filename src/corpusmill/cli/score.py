"""The command that scores a model folder on benchmarks."""

import json
from typing import Annotated, Any

import typer

from corpusmill.cli.base import ModelFolder, app


@app.command(
    epilog="Example: corpusmill score runs/demo/align/model --task blimp=blimp.zip --task hellaswag --limit 1000",
)
def score(
    model: ModelFolder,
    task: Annotated[list[str], typer.Option(metavar="NAME[=PATH]", help="A benchmark, and the file of its items; can be repeated.")],
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many items of each, chosen by hashes.", show_default=False)] = None,
    shots: Annotated[int, typer.Option(min=0, help="Solved examples before each item.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: all metrics, and parts of a set.")] = False,
) -> None:
    """Score a model folder on benchmark tasks (BLiMP, HellaSwag, ARC, PIQA, WinoGrande, LAMBADA, SciQ)."""
    from pydantic import ValidationError

    from corpusmill.pipeline.errors import ConfigError
    from corpusmill.pipeline.watch.progress import Progress
    from corpusmill.train.benchmark_scores import ModelUnderTest
    from corpusmill.train.benchmarks import read_task
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
        raise ConfigError(f"--task {twice[0]}: stands there twice.")
    sets = [read_task(config) for config in configs]  # first: a file that can't be read costs no time
    tested = ModelUnderTest(model)
    found: dict[str, Any] = {}
    for config, chosen in zip(configs, sets, strict=True):
        with Progress().steps(config.task, len(chosen.items)) as advance:
            found[config.task] = tested.score(config, chosen, advance).summary
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        _print(found)


def _print(found: dict[str, Any]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from corpusmill.train.benchmarks import TASKS, score_text

    table = Table(box=box.SIMPLE_HEAD)
    for title, justify in (("task", "left"), ("items", "right"), ("metric", "left"), ("score", "right"), ("chance", "right")):
        table.add_column(title, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for name, summary in found.items():
        items = f"{summary['items']:,}" + (f" of {summary['total']:,}" if summary["items"] < summary["total"] else "")
        for number, metric in enumerate(TASKS[name].metrics):
            chance = f"{summary['chance']:.1%}" if summary["chance"] is not None else ""
            about = (summary["title"], items) if not number else ("", "")
            table.add_row(*about, metric, score_text(metric, summary["metrics"][metric]), chance)
    console = Console(highlight=False)
    console.print(table)
    for summary in found.values():
        if summary["cut"]:
            sentence = f"{summary['title']}: the beginning of {summary['cut']:,} items did not fit into the model's context."
            console.print(sentence, markup=False)
