"""Model folders that open in `transformers`, and the training state from which a run resumes bit by bit.

Weights and moments are safetensors, everything else is JSON; nothing is pickled.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.special_tokens import EOT_ID, IM_END_ID, PAD_ID
from corpusmill.pipeline.storage import TEMPORARY, fsync_folder
from corpusmill.train.architecture import Architecture, from_hugging_face, to_hugging_face
from corpusmill.train.model import Llama

WEIGHTS = "model.safetensors"
#: Files of the tokenizer that a model folder carries along.
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


def save_model(model: Llama, folder: Path, tokenizer: Path | Mapping[str, bytes] | None = None) -> None:
    """Writes a model folder: `config.json`, `generation_config.json`, `model.safetensors` and the tokenizer's files.

    `tokenizer` is a folder whose `TOKENIZER_FILES` are copied, or the files themselves by name. `folder` appears only
    when everything in it is on the disk; one that was there is replaced.
    """
    files = tokenizer if isinstance(tokenizer, Mapping) else _tokenizer_files(tokenizer)
    arch, dtype = model.arch, str(model.lm_head.weight.dtype).removeprefix("torch.")
    config = to_hugging_face(arch, bos_token_id=EOT_ID, eos_token_id=EOT_ID, pad_token_id=PAD_ID, dtype=dtype)
    generation = {"bos_token_id": EOT_ID, "eos_token_id": [EOT_ID, IM_END_ID], "pad_token_id": PAD_ID, "do_sample": True}
    temporary = _begin(folder)
    _write_json(temporary / "config.json", config)
    _write_json(temporary / "generation_config.json", generation)
    _write_tensors(temporary / WEIGHTS, model_tensors(model))
    for name, content in sorted(files.items()):
        _write(temporary / name, content)
    _finish(temporary, folder)


def _tokenizer_files(folder: Path | None) -> dict[str, bytes]:
    if folder is None:
        return {}
    return {name: (folder / name).read_bytes() for name in TOKENIZER_FILES if (folder / name).is_file()}


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
        raise InputError(f"{path}: not the configuration of a model that this program can load ({_first_line(error)}).") from error


def load_model(folder: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Llama:
    """The model of a folder that `save_model` or `transformers` wrote. InputError names the file and what is wrong."""
    folder = Path(folder)
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
    model = model.to_empty(device=device).to(dtype)
    if arch.tied:
        model.lm_head.weight = model.model.embed_tokens.weight
    model.load_state_dict(tensors, strict=not arch.tied)
    return model


def _read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of `model.safetensors`, or of the pieces that its index names."""
    index = folder / f"{WEIGHTS}.index.json"
    names = [WEIGHTS]
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise InputError(f"{index}: not an index of safetensors files.") from error
    tensors: dict[str, Tensor] = {}
    for name in names:
        tensors |= _read_tensors(folder / name)
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
        raise InputError(f"{path}: not a tokenizer ({_first_line(error)}).") from error
    if highest >= arch.vocab_size:
        raise InputError(f"{path}: has ids up to {highest}, but the model's vocabulary is {arch.vocab_size}; it is another model's.")


# ---- training state ---------------------------------------------------------------------------------

STEP = "step-{:08d}"
KEPT = 2


def save_state(folder: Path, step: int, weights: dict[str, Tensor], moments: dict[str, Tensor], record: dict[str, Any]) -> None:
    """Saves the state after `step` steps as `folder/step-00000123`, atomically, and keeps the latest two.

    `record` is JSON; floats come back bit by bit. Raises CorpusmillError, with the state before it intact.
    """
    target = folder / STEP.format(step)
    temporary = _begin(target)
    _write_tensors(temporary / "weights.safetensors", weights)
    _write_tensors(temporary / "moments.safetensors", moments)
    sizes = {f"{name}.safetensors": (temporary / f"{name}.safetensors").stat().st_size for name in ("weights", "moments")}
    _write_json(temporary / "state.json", {"step": step, "bytes": sizes, "record": record})
    _finish(temporary, target)
    for old in _saved(folder)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def load_state(folder: Path) -> tuple[int, dict[str, Tensor], dict[str, Tensor], dict[str, Any]] | None:
    """The latest whole state: `(steps done, weights, moments, record)`; None where there is none.

    A state that is damaged is passed over for the one before it: redoing its steps gives the same bits.
    """
    for path in reversed(_saved(folder)):
        try:
            state = json.loads((path / "state.json").read_bytes())
            if any((path / name).stat().st_size != size for name, size in state["bytes"].items()):
                continue
            weights, moments = _read_tensors(path / "weights.safetensors"), _read_tensors(path / "moments.safetensors")
            return int(state["step"]), weights, moments, state["record"]
        except (OSError, ValueError, KeyError, InputError):
            continue
    return None


def _saved(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*")) if folder.is_dir() else []


# ---- files ------------------------------------------------------------------------------------------


def _begin(target: Path) -> Path:
    """A fresh temporary folder beside `target`; ones that a crash left there are removed."""
    temporary = target.with_name(f"{TEMPORARY}{target.name}")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"{target}: can't be written ({error.strerror}).") from error
    return temporary


def _finish(temporary: Path, target: Path) -> None:
    try:
        fsync_folder(temporary)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(temporary, target)
        fsync_folder(target.parent)
    except OSError as error:
        raise CorpusmillError(f"{target}: can't be written ({error.strerror}).") from error


def _write(path: Path, content: bytes) -> None:
    try:
        with open(path, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        shutil.rmtree(path.parent, ignore_errors=True)
        raise CorpusmillError(f"{path}: can't be written ({error.strerror}).") from error


def _write_json(path: Path, value: Any) -> None:
    _write(path, json.dumps(value, indent=2, sort_keys=True).encode() + b"\n")


def _write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(ready, path, metadata={"format": "pt"})
        with open(path, "rb+") as file:
            os.fsync(file.fileno())
    except (OSError, SafetensorError) as error:
        shutil.rmtree(path.parent, ignore_errors=True)
        raise CorpusmillError(f"{path}: can't be written ({_first_line(error)}).") from error


def _read_tensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file.") from error
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: not a whole safetensors file, perhaps cut short ({_first_line(error)}).") from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")
