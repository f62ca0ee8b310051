"""What instruction tuning and preference alignment do on each process before and after the loop."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from corpusmill.pipeline.cache import local_model, sha256_of
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.storage import Storage, is_remote
from corpusmill.train.adapter import save_adapter
from corpusmill.train.chat_folder import chat_files
from corpusmill.train.checkpoint import load_model, model_of, save_model, save_tokenizer
from corpusmill.train.loop import FitResult
from corpusmill.train.lora import adapt, merged_weights
from corpusmill.train.model import Llama
from corpusmill.train.options import LoraConfig
from corpusmill.train.parallel.layout import Layout
from corpusmill.train.state import read_weights
from corpusmill.train.template import ChatEncoder
from corpusmill.train.tuning import ADAPTED, Start
from corpusmill.train.workplace import Workplace

if TYPE_CHECKING:
    from corpusmill.train.align import AlignConfig
    from corpusmill.train.sft import SftConfig


def start_from(folder: str, layout: Layout, config: "SftConfig | AlignConfig", title: str) -> Llama:
    """The model of a folder, whole on each process, with a new adapter where that is what is trained. Raises InputError where the layout
    can't share out a step's rows, or the model."""
    model = load_model(folder, layout.device)
    try:
        layout.config.require_even(config.batch, model.arch.shared_sizes())
    except ValueError as error:
        raise InputError(f"{title}.parallel: {error}.") from error
    if config.lora.rank:
        adapt(model, config.lora, config.seed)
    return model


def keep_beside(model: Llama, encoder: ChatEncoder, place: Workplace) -> None:
    """Saves the tokenizer, which saved states need to become model folders, and takes over the logs of earlier steps."""
    save_tokenizer(chat_files(encoder, model.arch.context), place.folder / "tokenizer")
    place.keep("tokenizer")
    place.fetch_logs()


def leave_model(
    model: Llama, start: Start, result: FitResult, layout: Layout, config: "SftConfig | AlignConfig", place: Workplace
) -> None:  # fmt: skip
    """Saves the trained model into the working folder's `model`: `model`, or where it is spread its last state. An adapter is saved into
    `adapter`, too, and added to the model's weights."""
    spread, work = layout.world > 1, place.folder
    saved = result.states.latest() if spread else None
    if layout.is_main:
        if spread:
            model = _with_weights(start.folder, config.lora, config.seed, read_weights(saved.path) if saved else {})
        if config.lora.rank:
            save_adapter({name: p for name, p in model.named_parameters() if p.requires_grad}, config.lora, start.name, work / "adapter")
            model = model_of(model.arch, merged_weights(model))
        save_model(model, work / "model", work / "tokenizer")
    place.leave(layout)


def merged_model(state: Path, work: Storage, run: Storage) -> Llama | None:
    """The model that a saved state's adapter makes of the run's model that it belongs to; None where the state is a model's weights.
    `work` is the folder of its training."""
    if not work.exists(ADAPTED):
        return None
    told = json.loads(work.read_bytes(ADAPTED))
    folder = told["base"] if Path(told["base"]).is_absolute() or is_remote(told["base"]) else run.path(told["base"])
    here, lora = local_model(folder), LoraConfig.model_validate(told["lora"])
    if any(sha256_of(here / name) != sha256 for name, sha256 in told["sha256"].items()):
        raise InputError(f"{folder}: is not the model any more that the adapter of {work.path(f'state/{state.name}')} was trained for.")
    model = _with_weights(str(here), lora, 0, read_weights(state))
    return model_of(model.arch, merged_weights(model))


@torch.no_grad()
def _with_weights(folder: str, lora: LoraConfig, seed: int, weights: Mapping[str, Tensor]) -> Llama:
    """The model of a folder, with these weights, by name, in place of its own or of a new adapter's."""
    model = load_model(folder)
    if lora.rank:
        adapt(model, lora, seed)
    for name, tensor in weights.items():
        model.get_parameter(name).data = tensor
    return model
