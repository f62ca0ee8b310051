"""Commands that export results of a run: a model for other programs, a card of its documents."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from corpusmill.cli.base import AlthoughStale, RunFolder, app
from corpusmill.pipeline.config import parse_json
from corpusmill.pipeline.errors import InputError

if TYPE_CHECKING:
    from corpusmill.report.read import RunReader

GENERATION = "generation_config.json"
#: The defaults of generation: temperature and top k, where the run's evaluation sets no other, and the most new tokens.
TEMPERATURE, TOP_K, LONGEST = 0.7, 50, 256


@app.command(
    epilog="Example: corpusmill export runs/demo models/demo --license apache-2.0, or: corpusmill export runs/demo models/at-400 --step 400"
)
def export(
    run: RunFolder,
    output: Annotated[Path, typer.Argument(metavar="OUT", help="The folder that is written.", show_default=False)],
    model: Annotated[str | None, typer.Option(help="pretrain, sft or align; by default the last that has run.", show_default=False)] = None,
    step: Annotated[
        int | None, typer.Option(min=0, help="The state saved after this number of steps (status lists them).", show_default=False)
    ] = None,
    name: Annotated[str | None, typer.Option(help="The card's title; by default the folder's name.", show_default=False)] = None,
    license_: Annotated[str | None, typer.Option("--license", help="Licence in the card; unknown without it.", show_default=False)] = None,
    dtype: Annotated[Literal["fp32", "bf16", "fp16"], typer.Option(help="Type of the weights; fp32 is what was trained.")] = "fp32",
    force: Annotated[bool, typer.Option("--force", help="Replace a model folder that is there.")] = False,
    stale: AlthoughStale = False,
) -> None:
    """Write a model as a folder that transformers opens. With its tokenizer, chat template and a model card; a saved state has no card."""
    if step is not None:
        from corpusmill.train.checkpoint import export_state

        others = {"--name": name, "--license": license_, "--dtype": dtype != "fp32", "--force": force}
        if given := [option for option, value in others.items() if value]:
            raise InputError(f"export: --step writes a saved state as it is, without a card, so it takes no {given[0]}.")
        print(f"{output}: the model of {export_state(run, step, output, model).stage} after {step} steps.")
        return
    stage, warning = export_model(str(run), output, model, name=name, license_=license_, dtype=dtype, force=force, although_stale=stale)
    if warning:
        print(f"warning: {warning}")
    print(f"{output}: the model of {stage}, and its card, README.md.")


def export_model(
    run: str, output: Path, stage: str | None = None, *, name: str | None = None, license_: str | None = None, dtype: str = "fp32",
    force: bool = False, although_stale: bool = False,
) -> tuple[str, str | None]:  # fmt: skip
    """Writes the folder `output` with the model of a stage (default: the last that has trained one). Returns the stage, and a
    warning where it is stale.

    The weights are those of the run, rounded to `dtype`. Raises InputError if there is no such model, if `output` exists (`force`
    replaces a model folder, but nothing else), and if the stage is stale. With `although_stale` it goes on, and the card says so.
    """
    import torch

    from corpusmill.pipeline.cache import local_model
    from corpusmill.pipeline.storage import Storage
    from corpusmill.report.model_card import model_card
    from corpusmill.report.read import RunReader
    from corpusmill.report.stale import refuse_stale
    from corpusmill.train.checkpoint import load_model, save_model, tokenizer_files

    reader = RunReader(run)
    stage = _stage(reader, stage)
    warning = refuse_stale(reader, stage, although_stale)
    _require_free(output, force)
    folder = local_model(reader.storage.path(f"{stage}/model"))
    model = load_model(folder, dtype={"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[dtype])
    card = model_card(run, stage, model.arch, name or output.resolve().name, license_)
    files = tokenizer_files(Storage(str(folder)))
    save_model(model, output, {**files, GENERATION: _generation(folder, reader, model.arch.context), "README.md": card.encode()})
    return stage, warning


def _stage(reader: "RunReader", wanted: str | None) -> str:
    """Returns the stage whose model is exported. Raises InputError if it is not finished."""
    from corpusmill.pipeline.names import instead_of
    from corpusmill.report.read import TRAINED

    if wanted is not None and wanted not in TRAINED:
        raise InputError(f"export: --model {wanted}: no such stage{instead_of(wanted, TRAINED)}.")
    having = reader.models()
    if wanted is not None and wanted not in having:
        raise InputError(f"{reader.storage.root}: {wanted} has not finished, so it has no model; {', '.join(having)} has one.")
    return wanted or having[-1]


def _require_free(output: Path, force: bool) -> None:
    if output.is_file():
        raise InputError(f"{output}: is a file.")
    if not output.is_dir() or not any(output.iterdir()):
        return
    if not force:
        raise InputError(f"{output}: already exists, and is not empty; --force replaces it.")
    if not (output / "config.json").is_file():
        raise InputError(f"{output}: is no model folder (it has no config.json), so it is not replaced.")


def _generation(folder: Path, reader: "RunReader", context: int) -> bytes:
    """Returns the model's `generation_config.json`, which has its end tokens, with the sampling settings of the run's evaluation added."""
    path = folder / GENERATION
    try:
        given: dict[str, Any] = parse_json(path.read_bytes()) if path.is_file() else {}
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}).") from error
    settings = reader.settings("evaluate")
    temperature, top_k = settings.get("temperature", TEMPERATURE), settings.get("top_k", TOP_K)
    if temperature:
        drawn = {"do_sample": True, "temperature": temperature, "top_k": top_k}
    else:
        drawn = {"do_sample": False}
    generation = {**given, **drawn, "max_new_tokens": min(LONGEST, max(1, context // 2))}
    return json.dumps(generation, indent=2, sort_keys=True).encode() + b"\n"


Licence = Annotated[str | None, typer.Option("--licence", "--license", metavar="ID", help="Its licence, for example cc-by-4.0.")]
Description = Annotated[str | None, typer.Option(metavar="FILE", help="Markdown that comes first in the card.")]


@app.command(epilog="Example: corpusmill card runs/demo --licence odc-by --name 'Manuals of 2026'")
def card(
    run: RunFolder,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FOLDER", help="Where to write; by default the run's folder.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="What the collection is called; by default as the run's folder.")] = None,
    licence: Licence = None,
    description: Description = None,
    eu: Annotated[bool, typer.Option("--eu", help="Write the EU's summary of training content: training-content.md.")] = False,
    small: Annotated[bool, typer.Option("--small", help="With --eu: as a small company may, with fewer domains.")] = False,
    stale: AlthoughStale = False,
) -> None:
    """Write a data card of a run's documents. It is README.md, for the dataset hub."""
    from corpusmill.pipeline.errors import InputError
    from corpusmill.report.card.data_card import write_card
    from corpusmill.report.card.eu import write_summary

    if small and not eu:
        raise InputError("--small is for --eu.")
    if eu:
        print(write_summary(run, output, small, although_stale=stale))
        return

    print(write_card(run, output, name, licence, description, although_stale=stale))


@app.command(epilog="Example: corpusmill push runs/demo me/manuals --licence odc-by, and then the same with --yes")
def push(
    run: RunFolder,
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="A dataset repository; it is made if it is not there.")],
    yes: Annotated[
        bool, typer.Option("--yes", help="Send it. Without this, the command lists what it would send, and sends nothing.")
    ] = False,
    public: Annotated[bool, typer.Option("--public", help="Everyone can read it; by default a new repository is private.")] = False,
    removed: Annotated[bool, typer.Option(help="Also send the removed documents, with the rules that they failed.")] = True,
    name: Annotated[str | None, typer.Option(help="What the collection is called; by default as the repository.")] = None,
    licence: Licence = None,
    description: Description = None,
    stale: AlthoughStale = False,
) -> None:
    """Publish a run on the Hugging Face hub. Its documents, the removed ones with their reasons, the report and the card."""
    from corpusmill.report.card.push import plan

    planned = plan(
        run, repository, public=public, removed=removed, name=name, licence=licence, description=description, although_stale=stale
    )
    print("\n".join(planned.lines()), flush=True)
    if not yes:
        print("Nothing has been sent. The same command with --yes sends it.")
        return
    address = planned.send(lambda sentence: print(sentence, flush=True))
    print(f"Sent: {address}")
