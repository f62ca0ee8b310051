"""Model folders that open in `transformers`: safetensors and JSON, no pickle.

The class in `config.json` is `Qwen3ForCausalLM` with QK-norm; else `MistralForCausalLM` with a sliding window; else `LlamaForCausalLM`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from corpusmill.pipeline.cache import local_model, sha256_of
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.storage import Storage, stays_inside
from corpusmill.train.checkpoint import TensorFiles, first_line, new_folder, write_json, write_tensors
from corpusmill.train.model import Llama, blank_model
from corpusmill.train.options import LLAMA3, YARN, Architecture, RopeScaling
from corpusmill.train.template import token_ids

# ---- model folders -----------------------------------------------------------------------------------

WEIGHTS = "model.safetensors"
#: The tokenizer's files, which are copied into a model folder.
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


def save_model(model: Llama, folder: Path, files: Mapping[str, bytes] = MappingProxyType({})) -> None:
    """Writes a model folder: `config.json`, `generation_config.json`, `model.safetensors`, and `files` by name, the tokenizer's. `folder`
    appears only when all is written; it replaces an old folder."""
    arch, dtype = model.arch, str(model.lm_head.weight.dtype).removeprefix("torch.")
    bos, eos, pad, ends = token_ids(files)
    config = to_hugging_face(arch, bos_token_id=bos, eos_token_id=eos, pad_token_id=pad, dtype=dtype)
    generation = {"bos_token_id": bos, "eos_token_id": ends, "pad_token_id": pad, "do_sample": True}
    with new_folder(folder) as temporary:
        write_json(temporary / "config.json", config)
        write_json(temporary / "generation_config.json", generation)
        write_tensors(temporary / WEIGHTS, model_tensors(model))
        for name, content in sorted(files.items()):
            (temporary / name).write_bytes(content)


def tokenizer_files(folder: Storage) -> dict[str, bytes]:
    """Returns the tokenizer's files of a folder, by name. Raises CorpusmillError if `tokenizer.json` is missing."""
    found = {name: folder.read_bytes(name) for name in TOKENIZER_FILES if folder.exists(name)}
    if TOKENIZER_FILES[0] not in found:
        raise CorpusmillError(f"{folder.path(TOKENIZER_FILES[0])}: no such file, and a model is saved with its tokenizer.")
    return found


def model_files(folder: str, option: str) -> list[FileRef]:
    """Returns the files of a user's model folder; `option` is the configuration's name for it, for messages."""
    here = local_model(folder)
    if not (here / "config.json").is_file():
        raise InputError(f"{option}: {folder} is no model folder, as it has no config.json.")
    paths = [path for path in sorted(here.iterdir()) if path.suffix in (".json", ".jinja", ".safetensors")]
    return [FileRef(Storage(folder).path(path.name), sha256_of(path), path.stat().st_size) for path in paths]


def model_tensors(model: Llama) -> dict[str, Tensor]:
    """Returns the weights by name, without a tied head, as Hugging Face stores them."""
    tensors = dict(model.state_dict())
    if model.arch.tied:
        tensors.pop("lm_head.weight", None)
    return tensors


def read_architecture(folder: Path) -> Architecture:
    """Returns the shape that a folder's `config.json` describes. Raises InputError if it is missing or not usable."""
    path = folder / "config.json"
    try:
        return from_hugging_face(json.loads(path.read_bytes()))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file, so {folder} is not a model folder.") from error
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror}).") from error
    except KeyError as error:
        raise InputError(f"{path}: the key {error} is missing.") from error
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise InputError(f"{path}: not the configuration of a model that this program can load ({first_line(error)}).") from error


def load_model(folder: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Llama:
    """Returns the model of a folder (or its URL) that `save_model` or `transformers` wrote. InputError names the file and what is wrong."""
    folder = local_model(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such model folder.")
    model = blank_model(read_architecture(folder)).to(dtype)
    read_weights(model, folder, device)
    return model


def read_weights(model: Llama, folder: Path, device: torch.device | str) -> None:
    """Gives a blank model, or this rank's part of it, storage and the folder's weights. Raises InputError where they have other shapes."""
    _check_tokenizer(folder, model.arch)
    files, whole = TensorFiles(folder / WEIGHTS, _weight_files(folder)), model_tensors(blank_model(model.arch))
    files.require(whole, {*whole}, {"lm_head.weight"} if model.arch.tied else ())
    model.to_empty(device=device)
    model.tie()
    files.fill({name: tensor for name, tensor in model_tensors(model).items() if name in whole}, convert=True)  # all but adapters


def model_of(arch: Architecture, weights: Mapping[str, Tensor]) -> Llama:
    """Returns the model of this shape with these weights."""
    model = blank_model(arch)
    model.load_state_dict(weights, strict=not arch.tied, assign=True)
    model.tie()
    return model


def _weight_files(folder: Path) -> list[Path]:
    """Returns `model.safetensors`, or the files that its index names."""
    index = folder / f"{WEIGHTS}.index.json"
    if not index.is_file():
        return [folder / WEIGHTS]
    try:
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
        if all(stays_inside(name) and "/" not in name for name in names):
            return [folder / name for name in names]
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise InputError(f"{index}: not an index of safetensors files.") from error
    raise InputError(f"{index}: names files that lie elsewhere.")


def _check_tokenizer(folder: Path, arch: Architecture) -> None:
    """Raises InputError if a tokenizer beside the weights has ids that the embedding lacks."""
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


# ---- config.json -------------------------------------------------------------------------------------
#
# A model's shape as Hugging Face's `config.json`, from which `transformers` builds the same model.

#: The class in `transformers`, and the values that it assumes for missing keys (transformers 5.23).
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", {}),
    "mistral": ("MistralForCausalLM", {"num_key_value_heads": 8, "sliding_window": 4096}),
    "qwen3": ("Qwen3ForCausalLM", {"num_key_value_heads": 32, "head_dim": 128, "sliding_window": 4096, "max_window_layers": 28}),
}
#: Our names of the values that `config.json` has under these keys.
KEYS = {
    "vocab_size": "vocab_size", "hidden_size": "width", "intermediate_size": "ffn", "num_hidden_layers": "layers",
    "num_attention_heads": "heads", "num_key_value_heads": "kv_heads", "head_dim": "head_dim", "max_position_embeddings": "context",
    "rms_norm_eps": "norm_eps", "rope_theta": "rope_theta", "tie_word_embeddings": "tied",
}  # fmt: skip
#: Keys that would change the model's arithmetic, and the only values that our model supports.
FIXED = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "partial_rotary_factor": 1.0}
SCALING = {"llama3": LLAMA3, "yarn": YARN}


def to_hugging_face(
    arch: Architecture, *, eos_token_id: int | None, bos_token_id: int | None, pad_token_id: int | None, dtype: str
) -> dict[str, Any]:
    """Returns the `config.json` from which `transformers` builds the same model."""
    kind = "qwen3" if arch.qk_norm else "mistral" if arch.window or arch.width % arch.heads else "llama"
    scaling = arch.rope_scaling and {**arch.rope_scaling.model_dump(), **SCALING[arch.rope_scaling.rope_type]}
    config = {
        "architectures": [KINDS[kind][0]],
        "model_type": kind,
        **{key: getattr(arch, name) for key, name in KEYS.items()},
        "rope_scaling": scaling,  # transformers 4 reads this and `rope_theta`; transformers 5 reads `rope_parameters`
        "rope_parameters": {**(scaling or {"rope_type": "default"}), "rope_theta": arch.rope_theta},
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "bos_token_id": bos_token_id,
        "eos_token_id": eos_token_id,
        "pad_token_id": pad_token_id,
        "initializer_range": 0.02,
        "torch_dtype": dtype,
        "use_cache": True,
    }
    if kind == "mistral":
        config["sliding_window"] = arch.window or None
    if kind == "qwen3":  # its first `max_window_layers` layers have no window
        windowed = {"sliding_window": arch.window, "layer_types": ["sliding_attention"] * arch.layers}
        config |= {"use_sliding_window": bool(arch.window), "max_window_layers": 0, **(windowed if arch.window else {})}
    return config


def from_hugging_face(config: dict[str, Any]) -> Architecture:
    """Returns the shape in a `config.json`. Raises ValueError for a model that ours can't compute, KeyError for a missing key."""
    kind = config.get("model_type")
    if kind not in KINDS:
        raise ValueError(f"model_type is {kind!r}, expected one of {', '.join(KINDS)}")
    config = {"rms_norm_eps": 1e-6, "tie_word_embeddings": False} | KINDS[kind][1] | config
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    for key, expected in FIXED.items():
        if (found := rope.get(key, config.get(key, expected))) != expected:
            raise ValueError(f"{key} is {found!r}, expected {expected!r}")
    heads, width, context = config["num_attention_heads"], config["hidden_size"], config["max_position_embeddings"]
    if not heads or not context:  # the values of other keys are divided by these
        raise ValueError("num_attention_heads or max_position_embeddings is 0")
    config["num_key_value_heads"] = config.get("num_key_value_heads") or heads
    config["head_dim"] = config.get("head_dim") or width // heads
    config["rope_theta"] = rope.get("rope_theta") or config.get("rope_theta") or 10000.0
    return Architecture(
        **{name: config[key] for key, name in KEYS.items()},
        rope_scaling=_scaling_from_hugging_face(rope, config.get("original_max_position_embeddings"), context),
        window=_window_from_hugging_face(kind, config),
        qk_norm=kind == "qwen3",
    )


def _scaling_from_hugging_face(rope: dict[str, Any], original: int | None, context: int) -> RopeScaling | None:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return None
    if kind not in SCALING:
        raise ValueError(f"rope_type {kind!r} is not supported")
    fixed: dict[str, Any] = {**SCALING[kind], "truncate": True}
    if kind == "yarn":
        fixed |= {"mscale": None, "mscale_all_dim": None, "attention_factor": None}
    for key, expected in fixed.items():
        found = rope[key] if key in LLAMA3 else rope.get(key)  # without its factors `transformers` refuses llama3, too
        if found is not None and found != expected:
            raise ValueError(f"rope scaling with {key} {found!r} is not supported")
    original = original or rope.get("original_max_position_embeddings") or context
    factor = rope["factor"] if rope["factor"] is not None else context / original
    return RopeScaling(rope_type=kind, factor=factor, original_max_position_embeddings=original)


def _window_from_hugging_face(kind: str, config: dict[str, Any]) -> int:
    if kind == "llama" or (kind == "qwen3" and not config.get("use_sliding_window")):
        return 0
    types = config.get("layer_types")
    if kind == "qwen3" and types is None:
        full = min(config["max_window_layers"], config["num_hidden_layers"])
        types = ["full_attention"] * full + ["sliding_attention"] * (config["num_hidden_layers"] - full)
    if types and len(set(types)) > 1:
        raise ValueError("some layers have a sliding window and others have not, which is not supported")
    return 0 if types and types[0] == "full_attention" else config["sliding_window"] or 0
