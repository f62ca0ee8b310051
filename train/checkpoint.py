"""Model folders that open in `transformers`: safetensors and JSON, nothing is pickled."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from corpusmill.pipeline.cache import local_model
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.storage import Storage, stays_inside
from corpusmill.train.architecture import Architecture
from corpusmill.train.chat_folder import token_ids
from corpusmill.train.files import first_line, new_folder, read_tensors, write_file, write_json, write_tensors
from corpusmill.train.hugging_face import from_hugging_face, to_hugging_face
from corpusmill.train.model import Llama

WEIGHTS = "model.safetensors"
#: Files of the tokenizer that a model folder carries along.
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


def save_model(model: Llama, folder: Path, tokenizer: Path | Mapping[str, bytes] | None = None) -> None:
    """Writes a model folder: `config.json`, `generation_config.json`, `model.safetensors` and the tokenizer's files.

    `tokenizer` is a folder whose `TOKENIZER_FILES` are copied, or the files themselves by name. `folder` appears only
    when everything in it is on the disk; one that was there is replaced.
    """
    files = tokenizer_files(Storage(str(tokenizer))) if isinstance(tokenizer, Path) else tokenizer or {}
    arch, dtype = model.arch, str(model.lm_head.weight.dtype).removeprefix("torch.")
    ids = token_ids(files)
    config = to_hugging_face(arch, bos_token_id=ids.bos, eos_token_id=ids.eos, pad_token_id=ids.pad, dtype=dtype)
    generation = {"bos_token_id": ids.bos, "eos_token_id": ids.ends, "pad_token_id": ids.pad, "do_sample": True}
    with new_folder(folder) as temporary:
        write_json(temporary / "config.json", config)
        write_json(temporary / "generation_config.json", generation)
        write_tensors(temporary / WEIGHTS, model_tensors(model))
        for name, content in sorted(files.items()):
            write_file(temporary / name, content)


def save_tokenizer(files: Mapping[str, bytes], folder: Path) -> None:
    """Writes a tokenizer's files alone, from where `save_model` takes them for a saved state's model."""
    with new_folder(folder) as temporary:
        for name, content in sorted(files.items()):
            write_file(temporary / name, content)


def tokenizer_files(folder: Storage) -> dict[str, bytes]:
    """The tokenizer's files of a folder, by name. Raises CorpusmillError where it has none."""
    found = {name: folder.read_bytes(name) for name in TOKENIZER_FILES if folder.exists(name)}
    if TOKENIZER_FILES[0] not in found:
        raise CorpusmillError(f"{folder.path(TOKENIZER_FILES[0])}: no such file, and a model is saved with its tokenizer.")
    return found


def model_tensors(model: Llama) -> dict[str, Tensor]:
    """The weights by name; a tied head is left out, as Hugging Face does it."""
    tensors = dict(model.state_dict())
    if model.arch.tied:
        tensors.pop("lm_head.weight")
    return tensors


def read_architecture(folder: Path) -> Architecture:
    """The shape that a folder's `config.json` describes, or one sentence about what is wrong with it."""
    path = folder / "config.json"
    try:
        return from_hugging_face(json.loads(path.read_bytes()))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file, so {folder} is not a model folder.") from error
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror}).") from error
    except KeyError as error:
        raise InputError(f"{path}: the key {error} is missing.") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not the configuration of a model that this program can load ({first_line(error)}).") from error


def load_model(folder: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Llama:
    """The model of a folder (or its URL) that `save_model` or `transformers` wrote. InputError names the file and what is wrong."""
    folder = local_model(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such model folder.")
    arch = read_architecture(folder)
    _check_tokenizer(folder, arch)
    tensors = _read_weights(folder)
    with torch.device("meta"):
        model = Llama(arch)
    expected = model_tensors(model)
    if arch.tied:
        tensors.pop("lm_head.weight", None)
    _check_shapes(folder, {name: t.shape for name, t in expected.items()}, {name: t.shape for name, t in tensors.items()})
    for name in tensors:  # one after the other, so the model is never there twice
        tensors[name] = tensors[name].to(device, dtype, copy=True)
    return _filled(model, tensors)


def model_of(arch: Architecture, weights: Mapping[str, Tensor]) -> Llama:
    """The model that takes over these weights."""
    with torch.device("meta"):
        model = Llama(arch)
    return _filled(model, weights)


def _filled(model: Llama, weights: Mapping[str, Tensor]) -> Llama:
    model.load_state_dict(weights, strict=not model.arch.tied, assign=True)
    model.tie()
    return model


def _read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of `model.safetensors`, or of the pieces that its index names."""
    index = folder / f"{WEIGHTS}.index.json"
    names = [WEIGHTS]
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
            if not all(stays_inside(name) and "/" not in name for name in names):
                raise ValueError("a file lies elsewhere")
        except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
            raise InputError(f"{index}: not an index of safetensors files.") from error
    tensors: dict[str, Tensor] = {}
    for name in names:
        tensors |= read_tensors(folder / name)
    return tensors


def _check_shapes(folder: Path, expected: dict[str, torch.Size], found: dict[str, torch.Size]) -> None:
    path = folder / WEIGHTS
    if missing := sorted(expected.keys() - found.keys()):
        raise InputError(f"{path}: the weight {missing[0]} is missing ({len(missing)} in all).")
    if surplus := sorted(found.keys() - expected.keys()):
        raise InputError(f"{path}: holds {surplus[0]}, which the model of config.json does not have ({len(surplus)} such in all).")
    for name, shape in expected.items():
        if found[name] != shape:
            raise InputError(f"{path}: {name} has the shape {list(found[name])}, config.json says {list(shape)}.")


def _check_tokenizer(folder: Path, arch: Architecture) -> None:
    """A tokenizer beside the weights must not have ids that the embedding lacks."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        return
    try:
        tokenizer = json.loads(path.read_bytes())
        ids = [*tokenizer["model"]["vocab"].values(), *(token["id"] for token in tokenizer.get("added_tokens", []))]
        highest = max(ids, default=-1)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(f"{path}: not a tokenizer ({first_line(error)}).") from error
    if highest >= arch.vocab_size:
        raise InputError(f"{path}: has ids up to {highest}, but the model's vocabulary is {arch.vocab_size}; it is another model's.")
