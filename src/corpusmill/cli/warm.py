"""The command `warm`, which compiles kernels beforehand, for example while a container image is built."""

import gzip
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from corpusmill.cli.base import Sets, app

DATA_STAGES = ("ingest", "filter", "dedup", "tokenizer", "tokens")


@app.command(epilog="Example: corpusmill warm recipes/demo.yaml, and in a Dockerfile: ENV NUMBA_CACHE_DIR=/opt/kernels")
def warm(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe file, or the name of one that ships.")] = "fineweb",
    inputs: Annotated[
        list[str] | None, typer.Argument(metavar="INPUT", help="A few pages of your own, where the filter would keep no English ones.")
    ] = None,
    set_: Sets = None,
) -> None:
    """Compile the kernels of a recipe beforehand. It runs the recipe on a few pages, and keeps only the kernels.

    Each kind of processor has kernels of its own. For an image that is built on another kind than it runs on, set for both
    NUMBA_CPU_NAME=x86-64-v3 and NUMBA_CPU_FEATURES= (empty).
    """
    import os
    import tempfile
    import time

    from corpusmill.pipeline.cache import kernels_folder
    from corpusmill.pipeline.extras import require
    from corpusmill.pipeline.recipe import read_recipe, recipe_path, stage_class

    def entries() -> dict[str, int]:
        return {path.name: path.stat().st_size for path in kernels_folder().glob("*.nb[ic]")}

    started, before = time.monotonic(), entries()
    path = recipe_path(recipe)
    sections = read_recipe(path, set_ or [])
    for name, section in sections.items():  # before minutes of work, also for stages that are not run here
        require(name, *stage_class(name)(section).libraries())
    with tempfile.TemporaryDirectory(prefix="corpusmill-warm-") as folder:
        stages = [name for name in DATA_STAGES if name in sections]
        if "ingest" in stages:
            if not inputs:
                write_pages(Path(folder, "pages"))
            _run_data_stages(folder, path, inputs or [f"{folder}/pages"], set_ or [], sections, stages[-1])
        _pack_rows(sections)
    after = entries()
    compiled = sum(name.endswith(".nbc") for name in after.keys() - before.keys())
    print(
        f"{compiled} kernels compiled, {sum(name.endswith('.nbc') for name in before)} were there; "
        f"{sum(after.values()) / 1e6:.1f} MB in {os.fspath(kernels_folder())}; {time.monotonic() - started:.0f} seconds."
    )


def write_pages(folder: Path) -> None:
    """Writes Python's language reference as WARC (HTML), JSONL and Parquet: enough files for several tasks, with some pages twice."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from corpusmill.pipeline.crawl import WarcWriter

    texts = _texts()
    folder.mkdir()
    for number in range(2):
        with open(folder / f"pages-{number}.warc.gz", "wb") as file:
            writer = WarcWriter(file, "corpusmill warm")
            for name, text in texts[number::2]:
                page = f"<html><head><title>{name}</title></head><body><article><h1>{name}</h1>{_paragraphs(text)}</article></body></html>"
                writer.page(f"http://pages.invalid/{name}", page.encode())
    rows = [{"text": text, "url": f"http://rows.invalid/{name}"} for name, text in texts]
    with gzip.open(folder / "rows.jsonl.gz", "wt") as lines:
        lines.writelines(json.dumps(row) + "\n" for row in rows[::3])
    pq.write_table(pa.Table.from_pylist([{**row, "text": f"{row['text']}\nOnce more."} for row in rows[::4]]), folder / "rows.parquet")


def _texts() -> list[tuple[str, str]]:
    from pydoc_data.topics import topics

    return sorted((name, text) for name, text in topics.items() if len(text) > 1500)


def _paragraphs(text: str) -> str:
    from html import escape

    return "".join(f"<p>{escape(paragraph)}</p>" for paragraph in text.split("\n\n"))


def _run_data_stages(folder: str, recipe: str, inputs: list[str], overrides: list[str], sections: Any, last: str) -> None:
    from corpusmill.pipeline.engine import InlineEngine
    from corpusmill.pipeline.run import Outcome, Watching, execute, new_plan
    from corpusmill.pipeline.watch.progress import Progress

    if "dedup" in sections:
        overrides = [*overrides, "dedup.alarm=warn"]
        if sections["dedup"].index is not None:  # these pages are not for the user's index
            overrides.append(f"dedup.index.path={folder}/index")
    outcome = Outcome(f"{folder}/run")
    plan = new_plan(f"{folder}/run", recipe, inputs, overrides, last=last)
    execute(
        plan, InlineEngine(), Progress(), print, lambda result: print(f"{result.name}: {result.seconds:.0f} seconds"), Watching(outcome)
    )
    empty = next((name for name, stage in outcome.stages.items() if stage["kept"] == 0), None)
    if empty:
        print(f"Note: {empty} kept none of these pages, so the first run compiles what follows it; give warm a few pages of your own.")


def _pack_rows(sections: Any) -> None:
    """Compiles the kernel of training, which packs rows of examples."""
    if "sft" in sections or "align" in sections:
        import numpy as np

        from corpusmill.train.data import fitted

        fitted(np.array([3, 2], np.int64), 4)
