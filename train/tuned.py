"""What instruction tuning and preference alignment do on each process before and after the loop."""

from pathlib import Path

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.special_tokens import IM_END
from corpusmill.train.checkpoint import load_model, model_of, save_model, save_tokenizer
from corpusmill.train.loop import FitResult
from corpusmill.train.model import Llama
from corpusmill.train.parallel.layout import Layout
from corpusmill.train.state import read_weights
from corpusmill.train.template import ChatEncoder, template_files


def start_from(folder: str, layout: Layout, rows: int, title: str) -> Llama:
    """The model of a folder, whole on each process. Raises InputError where the layout can't share out a step's rows, or the model."""
    model = load_model(folder, layout.device)
    try:
        layout.config.require_even(rows, model.arch.shared_sizes())
    except ValueError as error:
        raise InputError(f"{title}.parallel: {error}.") from error
    return model


def keep_tokenizer(model: Llama, encoder: ChatEncoder, work: Path) -> None:
    """Saves what a model needs beside its weights into `work/tokenizer`, from where each saved state can be made a model folder."""
    save_tokenizer(
        {"tokenizer.json": encoder.tokenizer_json, **template_files(model.arch.context, encoder.template.source, IM_END)},
        work / "tokenizer",
    )


def leave_model(model: Llama, folder: str, result: FitResult, layout: Layout, work: Path) -> None:
    """Saves the trained model into `work/model`: `model`, or where it is spread its last state. `folder` is where it started from."""
    if layout.is_main:
        if layout.world > 1:
            saved = result.states.latest()
            model = model_of(model.arch, read_weights(saved.path)) if saved else load_model(folder)
        save_model(model, work / "model", work / "tokenizer")
    layout.barrier()
