"""What a training leaves: model folders that open in `transformers`, and states from which it resumes with the same bits. Both are
safetensors and JSON, no pickle.

Every rank writes one file of a state. When all are complete, the first rank writes `state.json`, which makes them a state; to remove a
state, `state.json` goes first. Where the run lies on a store, this machine's cache has temporary copies.
"""

import copy
import json
import math
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import torch
import torch.distributed as dist
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from corpusmill.pipeline.cache import cache_folder, fetch_file, local_model, locked, sha256_of
from corpusmill.pipeline.config import digest, parse_json
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.names import instead_of, not_a_run
from corpusmill.pipeline.shards import publish
from corpusmill.pipeline.storage import TEMPORARY, Storage, fsync_folder, stays_inside
from corpusmill.train.model import Llama, blank_model
from corpusmill.train.options import LLAMA3, YARN, Architecture, RopeScaling
from corpusmill.train.parallel import ParallelDims, is_sharded, local_of
from corpusmill.train.template import token_ids

if TYPE_CHECKING:
    from corpusmill.pipeline.runner import StageRun

# ---- files -------------------------------------------------------------------------------------------


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yields a temporary folder, which becomes `target` (and replaces an old one) when the block succeeds, and is removed when it fails."""
    temporary = target.with_name(f"{TEMPORARY}{target.name}")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        shutil.rmtree(target, ignore_errors=True)
        os.replace(temporary, target)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError) and not isinstance(error, CorpusmillError):
            raise InputError(f"{target}: can't be written ({error.strerror}).") from error
        raise


def write_json(path: Path, value: Any) -> None:
    path.write_bytes(json.dumps(value, indent=2, sort_keys=True).encode() + b"\n")


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: tuple[str, str] = ("format", "pt")) -> None:
    """Writes a safetensors file durably, with one metadata entry. With several, their order would vary, and equal tensors would get other
    bytes. Raises InputError, with the file's name, where it can't be written."""
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        mode = path.stat().st_mode  # safetensors makes files that only their owner can read
        save_file(ready, path, metadata=dict([metadata]))
        path.chmod(mode)
        with open(path, "rb+") as file:
            os.fsync(file.fileno())
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: can't be written ({first_line(error)}).") from error


def first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")


# ---- parts of tensors --------------------------------------------------------------------------------
#
# Files have the format of torch.distributed.checkpoint (DCP), whose plans decide which rank writes which part of a tensor (plain or
# DTensor, on all ranks or some), each part once. A single process needs no plan, and does not wait a second for DCP's import.
#
# DCP's HuggingFaceStorageWriter writes three metadata entries, whose order differs between processes, builds a file in memory before it
# writes it, and plans anew in every save. Its reader takes no file of another type of numbers, and fails in many ways on damaged ones.

#: The metadata entry in which DCP's reader finds the place where each part begins in its tensor.
OFFSETS = "DCP_SHARDING_INFO"

#: A part of a tensor: where it begins, in each dimension.
Begin = list[int]


def begins_of(tensors: Mapping[str, Tensor], gather: Callable[[Any], list[Any]] | None = None, rank: int = 0) -> dict[str, Begin]:
    """Returns where this rank's part of each tensor begins; with `gather`, by which all ranks agree, only of the parts that it writes."""
    sharded = {name: tensor for name, tensor in tensors.items() if gather or is_sharded(tensor)}
    begins = {name: [0] * tensor.dim() for name, tensor in tensors.items() if name not in sharded}
    if sharded:
        from torch.distributed.checkpoint import DefaultSavePlanner  # takes a second

        planner = DefaultSavePlanner(flatten_state_dict=False)
        planner.set_up_planner(sharded, is_coordinator=rank == 0)
        plan = planner.create_local_plan()
        if gather:
            plan = planner.create_global_plan(gather(plan))[0][rank]
        begins |= {item.index.fqn: list(item.index.offset or ()) for item in plan.items}
    empty = {name for name in begins if not local_of(tensors[name]).numel() and tensors[name].numel()}  # fewer rows than ranks
    return {name: begin for name, begin in begins.items() if name not in empty}


class TensorFiles:
    """The tensors in safetensors files of a folder `place`, whatever layout wrote them. Raises InputError if one is missing or damaged."""

    def __init__(self, place: Path, paths: Sequence[Path]):
        self.place = place
        #: By name: where each part begins, and a slice that is read when it is indexed.
        self.parts: dict[str, list[tuple[Begin, Any]]] = {}
        for path in paths:
            try:
                with safe_open(path, "pt") as file:
                    begins = parse_json((file.metadata() or {}).get(OFFSETS, "{}"))
                    for name in file.keys():  # noqa: SIM118 - it is no mapping
                        part = file.get_slice(name)
                        zeros = [0] * len(part.get_shape())
                        begin = [int(at) for at in begins[name]["saved_offsets"]] if begins else zeros
                        if len(begin) != len(zeros) or min(begin, default=0) < 0:
                            raise ValueError(f"{name} can't begin at {begin}")
                        self.parts.setdefault(name, []).append((begin, part))
            except FileNotFoundError as error:
                raise InputError(f"{path}: no such file.") from error
            except (OSError, SafetensorError, ValueError, TypeError, KeyError) as error:
                raise InputError(f"{path}: not a whole safetensors file, perhaps cut short ({first_line(error)}).") from error

    def shape(self, name: str) -> list[int]:
        """Returns the shape of a whole tensor. Raises InputError if a part is missing."""
        sizes = [part.get_shape() for _, part in self.parts[name]]
        ends = [[at + size for at, size in zip(begin, shape)] for (begin, _), shape in zip(self.parts[name], sizes)]
        shape = [max(each) for each in zip(*ends)]
        if sum(map(math.prod, sizes)) != math.prod(shape):
            raise InputError(f"{self.place}: {name} is not whole, or is there twice.")
        return shape

    def require(self, tensors: Mapping[str, Tensor], everywhere: set[str], spare: Collection[str] = ()) -> None:
        """Raises InputError unless the files have tensors of these shapes, and the names that all ranks have together, `everywhere`, but no
        others than `spare` ones."""
        if missing := sorted(everywhere - self.parts.keys()):
            raise InputError(f"{self.place}: {missing[0]} is missing ({len(missing)} in all), so it is of another model.")
        if surplus := sorted(self.parts.keys() - everywhere - set(spare)):
            raise InputError(f"{self.place}: holds {surplus[0]}, which this model does not have ({len(surplus)} such in all).")
        for name, tensor in tensors.items():
            if (shape := self.shape(name)) != list(tensor.shape):
                raise InputError(f"{self.place}: {name} has the shape {shape}, and in this model {list(tensor.shape)}.")

    @torch.no_grad()
    def fill(self, tensors: Mapping[str, Tensor], convert: bool = False) -> None:
        """Fills tensors (of DTensors, this rank's parts) of the saved shapes. Raises InputError for another type, unless `convert`."""
        for name, begin in begins_of(tensors).items():
            target = local_of(tensors[name])
            for at, part in self.parts[name]:
                ours, theirs = [], []
                for here, size, there, length in zip(begin, target.shape, at, part.get_shape()):
                    low, high = max(here, there), min(here + size, there + length)
                    ours.append(slice(low - here, max(low, high) - here))
                    theirs.append(slice(low - there, max(low, high) - there))
                values = part[tuple(theirs)]
                if values.dtype != target.dtype and not convert:
                    raise InputError(f"{self.place}: {name} is of {values.dtype}, and in this model of {target.dtype}.")
                target[tuple(ours)] = values.to(target.device, target.dtype)


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
        return from_hugging_face(parse_json(path.read_bytes()))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file, so {folder} is not a model folder.") from error
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror}).") from error
    except KeyError as error:
        raise InputError(f"{path}: the key {error} is missing.") from error
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
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
        names = sorted(set(parse_json(index.read_bytes())["weight_map"].values()))
        if all(stays_inside(name) and "/" not in name for name in names):
            return [folder / name for name in names]
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(f"{index}: not an index of safetensors files.") from error
    raise InputError(f"{index}: names files that lie elsewhere.")


def _check_tokenizer(folder: Path, arch: Architecture) -> None:
    """Raises InputError if a tokenizer beside the weights has ids that the embedding lacks."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        return
    try:
        tokenizer = parse_json(path.read_bytes())
        ids = [*tokenizer["model"]["vocab"].values(), *(token["id"] for token in tokenizer.get("added_tokens", []))]
        highest = max(ids, default=-1)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(f"{path}: not a tokenizer ({first_line(error)}).") from error
    if highest >= arch.vocab_size:
        raise InputError(f"{path}: has ids up to {highest}, but the model's vocabulary is {arch.vocab_size}; it is another model's.")


# ---- config.json -------------------------------------------------------------------------------------
#
# A model's shape as Hugging Face's `config.json`, from which `transformers` builds the same model: `Qwen3ForCausalLM` with QK-norm; else
# `MistralForCausalLM` with a sliding window; else `LlamaForCausalLM`.

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


# ---- saved states ------------------------------------------------------------------------------------

STEP = "step-{:08d}"
FILE = "shard-{:05d}-of-{:05d}.safetensors"
STATE = "state.json"
#: What the names of a model's weights begin with in a state.
MODEL = "model/"


def on_disk(folder: Storage) -> Path:
    """Returns where this machine works on a folder of a training: there, or for a folder on a store in the cache."""
    stage, _, rest = folder.root.rpartition("/checkpoints/")
    return cache_folder() / "training" / digest(stage)[:16] / rest if folder.remote else Path(folder.root)


class RankFile(BaseModel):
    """One process's file of a state."""

    model_config = ConfigDict(strict=True)

    bytes: int
    sha256: str


class SavedState(BaseModel):
    """A state that lies in `storage`, with the content of its `state.json`: `record` are values saved with it, `parallel` is the layout
    that saved it."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)

    step: int
    record: dict[str, Any]
    score: float | None
    parallel: dict[str, Any]
    ranks: Annotated[list[RankFile], Field(min_length=1)]
    storage: Storage

    @property
    def bytes(self) -> int:
        """The bytes of all its tensors."""
        return sum(rank.bytes for rank in self.ranks)

    @property
    def work(self) -> Storage:
        """The folder of the training that saved it: RUN/STAGE/checkpoints/TRAINING."""
        return Storage(self.storage.root.rpartition("/state/")[0])

    @property
    def stage(self) -> str:
        return self.work.root.split("/")[-3]

    @property
    def date(self) -> datetime:
        """The time when it was saved."""
        return datetime.fromtimestamp(self.storage.times().get(STATE) or 0.0, UTC)

    def damage(self, rank: int) -> str | None:
        """Returns what is wrong with this rank's file, or None. Fetches a file from a store first; raises InputError if that fails."""
        name, described, here = FILE.format(rank, len(self.ranks)), self.ranks[rank], Storage(str(on_disk(self.storage)))

        def look() -> str | None:
            if (size := here.size(name)) != described.bytes:
                what = "no such file" if size < 0 else f"{size} bytes, and {described.bytes} were written"
                return f"{self.storage.path(name)}: {what}."
            try:
                changed = here.sha256(name) != described.sha256
            except InputError as unreadable:
                return str(unreadable)
            return f"{self.storage.path(name)}: its content has changed since it was written." if changed else None

        if not self.storage.remote:
            return look()
        path = Path(here.path(name))
        with locked(path), suppress(FileNotFoundError):
            if look():
                fetch_file(self.storage, name, path)
        return look()

    def tensors(self) -> TensorFiles:
        place = on_disk(self.storage)
        return TensorFiles(place, [place / FILE.format(rank, len(self.ranks)) for rank in range(len(self.ranks))])

    def weights(self) -> dict[str, Tensor]:
        """Returns the whole weights by name, in one process, whatever layout saved them."""
        files = self.tensors()
        parts = {name: parts[0][1] for name, parts in sorted(files.parts.items()) if name.startswith(MODEL)}
        tensors = {name: part[:0].new_empty(files.shape(name)) for name, part in parts.items()}
        files.fill(tensors)
        return {name.removeprefix(MODEL): tensor for name, tensor in tensors.items()}

    def forget(self) -> None:
        """Removes this machine's copy of a state that lies on a store."""
        if self.storage.remote:
            shutil.rmtree(on_disk(self.storage), ignore_errors=True)


def saved_states(folder: Storage) -> list[SavedState]:
    """Returns the whole states in a folder, by step; not those whose `state.json` is missing or not complete."""
    found = []
    for name in folder.folders():
        with suppress(FileNotFoundError, ValueError, TypeError):
            state = parse_json(folder.read_bytes(f"{name}/{STATE}"))
            found.append(SavedState.model_validate({**state, "storage": folder.child(name)}))
    return found


def _remove(folder: Storage, wanted: Callable[[str], bool]) -> None:
    """Removes the states, whole or not, with the names that are `wanted`."""
    for name in filter(wanted, folder.folders()):
        folder.remove(f"{name}/{STATE}")
        folder.remove_folder(name)


# ---- the states of a training ------------------------------------------------------------------------
#
# A background thread writes the files; training waits only while its tensors are copied. The thread's collectives have a process group of
# their own (`ParallelDims.patient`), so that they can't mix with those of the training.

T = TypeVar("T")


class States(AbstractContextManager["States"]):
    """The saved states of one training, in a folder or in that of a CheckpointDir: `step-00000123/`, each with a file from each process and
    `state.json`. A state appears whole or not at all.

    The latest `keep` states are kept, the `keep_best` with the lowest scores, and those of the steps `marked`. All ranks call the same
    methods in the same order. A failure on one rank is raised on all. With `background`, `save` returns once the tensors are copied; a
    later failure is raised by the next call of `save` or `finish`. As a context manager, it waits for the last write.
    """

    def __init__(
        self,
        folder: "Path | CheckpointDir",
        dims: ParallelDims,
        keep: int = 2,
        keep_best: int = 0,
        background: bool = False,
        marked: Collection[int] = (),
    ):
        self.folder = Storage(str(folder)) if isinstance(folder, Path) else folder.states
        self.before = (lambda: None) if isinstance(folder, Path) else folder.keep_logs  # is called just before a state becomes whole
        self.dims, self.keep, self.keep_best, self.marked = dims, keep, keep_best, marked
        self.thread = ThreadPoolExecutor(1, "state") if background else None
        self.writing: Future[None] | None = None
        self.begins: dict[str, Begin] | None = None  # of the parts that this rank writes
        self.copies: dict[str, Tensor] = {}

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.thread:
            self.thread.shutdown()
        if kind is None:
            self.finish()

    def save(self, step: int, tensors: Mapping[str, Tensor], record: dict[str, Any], score: float | None = None) -> None:
        """Saves the state after `step` steps. `record` is JSON; its floats are restored bit by bit. A lower `score` is better; one that is
        not finite is none. Raises CorpusmillError if that fails; earlier states stay intact."""
        self.finish()
        if self.begins is None:
            gather = (lambda plan: self._together(lambda: plan)) if self.dims.world > 1 else None
            self.begins = begins_of(tensors, gather, self.dims.rank)
        parts = {name: local_of(tensors[name]).detach() for name in self.begins}
        score = score if score is not None and math.isfinite(score) else None
        # copies, as the training continues while it is written
        state = {"step": step, "record": copy.deepcopy(record), "score": score, "parallel": self.dims.config.model_dump(mode="json")}
        if self.thread:
            self.writing = self.thread.submit(self._write, self._copied(parts), state)
        else:
            self._write(parts, state)

    def _copied(self, parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copies the parts to CPU memory; valid until the next call. The memory is reused, as new memory takes five times as long."""
        if not self.copies:
            self.copies = {name: torch.empty_like(part, device="cpu", pin_memory=part.is_cuda) for name, part in parts.items()}
        for name, part in parts.items():
            self.copies[name].copy_(part, non_blocking=True)
        for device in {part.device for part in parts.values() if part.is_cuda}:
            torch.cuda.current_stream(device).synchronize()  # the copies wait in the stream of the device that they come from
        return self.copies

    def _write(self, parts: Mapping[str, Tensor], state: dict[str, Any]) -> None:
        name, world = STEP.format(state["step"]), self.dims.world
        begins = json.dumps({name: {"saved_offsets": (self.begins or {})[name]} for name in parts}, sort_keys=True)
        folder = self.folder.child(name)

        def remove() -> None:
            _remove(self.folder, lambda other: other == name)

        def write() -> dict[str, Any]:
            path = on_disk(folder) / FILE.format(self.dims.rank, world)
            write_tensors(path, tensors=parts, metadata=(OFFSETS, begins))
            here = Storage(str(path.parent))
            described = {"bytes": here.size(path.name), "sha256": here.sha256(path.name)}
            if folder.remote:
                publish(folder, path.name, path)
                path.unlink()
            return described

        def commit(ranks: list[dict[str, Any]]) -> None:
            self.before()
            for number in () if folder.remote else range(world):
                if not folder.exists(FILE.format(number, world)):
                    raise CorpusmillError(f"{folder.root}: process {number} wrote elsewhere; all processes need to see the same folder.")
            folder.write_bytes(STATE, json.dumps({**state, "ranks": ranks}, indent=2, sort_keys=True).encode() + b"\n")
            if not folder.remote:
                fsync_folder(self.folder.root)
            self._prune(state["step"])

        try:
            self._first(remove)
            ranks = self._together(write)
            self._first(lambda: commit(ranks))
        except BaseException:
            if self.dims.is_main:
                with suppress(CorpusmillError, OSError):  # the first error is the one to tell
                    remove()
            raise

    def finish(self) -> None:
        """Waits until the current state is written. Raises CorpusmillError if that failed."""
        if self.writing:
            writing, self.writing = self.writing, None
            writing.result()

    def latest(self, wanted: Callable[[int], Mapping[str, Any]] = lambda step: {}, others: Sequence[Storage] = ()) -> SavedState | None:
        """Returns the latest whole state, or None. A damaged one gives way to an earlier one: its steps are redone with the same bits.

        `wanted(step)`: the entries that the record of a state of that step must have. States of the folder itself come before those of the
        `others`. Raises InputError where the folder has only states with other entries.
        """

        def difference(saved: SavedState) -> str | None:
            return _difference("record", saved.record, wanted(saved.step))

        def candidates() -> list[SavedState]:
            saved = saved_states(self.folder)
            own = [state for state in saved if not difference(state)]
            if saved and not own:
                which = f"{saved[-1].storage.root}: holds the state of another configuration"
                raise InputError(f"{which} ({difference(saved[-1])}); remove it to begin anew.")
            theirs = [state for other in others for state in saved_states(other) if not difference(state)]
            return [state for some in (own, theirs) for state in sorted(some, key=lambda state: -state.step)]

        return self._first_whole(candidates)

    def best(self) -> SavedState | None:
        """Returns the whole state with the lowest score; None if no state has a score."""
        return self._first_whole(lambda: by_score(saved_states(self.folder)))

    def load(self, saved: SavedState, tensors: Mapping[str, Tensor]) -> None:
        """Fills `tensors` in place, and removes states before this one that are no longer kept; a killed run may not have done so. Raises
        InputError if the state has other tensors, shapes or types."""
        everywhere = set[str]().union(*self._together(lambda: set(tensors)))

        def fill() -> None:
            files = saved.tensors()
            files.require(tensors, everywhere)
            files.fill(tensors)

        self._together(fill)
        saved.forget()
        self._first(lambda: self._prune(saved.step))

    def load_weights(self, saved: SavedState, parameters: Mapping[str, Tensor]) -> None:
        """Fills `parameters` in place with the state's weights, and changes nothing else."""
        self._together(lambda: saved.tensors().fill({MODEL + name: p for name, p in parameters.items()}))

    def _together(self, work: Callable[[], T]) -> list[T]:
        """Runs `work` on every rank. Returns all results in the order of ranks, or raises the first failure on every rank."""
        if self.dims.world == 1:
            return [work()]
        result: tuple[Any, CorpusmillError | None]
        try:
            result = work(), None
        except CorpusmillError as failure:
            result = None, failure
        except Exception as failure:  # noqa: BLE001 - it is raised on all ranks
            result = None, CorpusmillError(f"process {self.dims.rank} of {self.dims.world}: {type(failure).__name__}: {failure}")
        results: list[tuple[Any, CorpusmillError | None]] = [result] * self.dims.world
        dist.all_gather_object(results, result, group=self.dims.patient)
        for _, error in results:
            if error is not None:
                raise error
        return [value for value, _ in results]

    def _first(self, work: Callable[[], T]) -> T:
        """Runs `work` on the first rank. Returns its result on every rank."""
        return self._together(lambda: work() if self.dims.is_main else None)[0]  # type: ignore[return-value]

    def _prune(self, step: int) -> None:
        """Removes what is left of earlier steps that are not kept. States after `step` are damaged; they will be overwritten."""
        found = [saved for saved in saved_states(self.folder) if saved.step <= step]
        kept = {saved.step for saved in [*found[-self.keep :], *by_score(found)[: self.keep_best]]}
        names = {STEP.format(number) for number in kept.union(self.marked)}
        _remove(self.folder, lambda name: name < STEP.format(step) and name not in names)

    def _first_whole(self, candidates: Callable[[], list[SavedState]]) -> SavedState | None:
        """Returns the first rank's first candidate whose files are all whole. Ranks divide the checks among them; from a store each rank
        fetches all files, as it may be alone on its machine."""
        self.finish()
        rank, world = self.dims.rank, self.dims.world
        for saved in self._first(candidates):
            mine = range(len(saved.ranks)) if saved.storage.remote else range(rank, len(saved.ranks), world)
            if all(self._together(lambda s=saved, mine=mine: not any(map(s.damage, mine)))):  # type: ignore[misc]
                return saved
        return None


def by_score(found: Sequence[SavedState]) -> list[SavedState]:
    """Returns those that have a score, the lowest first, and equal ones by step."""
    return sorted((saved for saved in found if saved.score is not None), key=lambda saved: (saved.score, saved.step))


def _difference(name: str, saved: Any, wanted: Any) -> str | None:
    """Returns the first of the `wanted` values that differs, in words; None if all are equal."""
    if isinstance(saved, dict) and isinstance(wanted, dict):
        names = sorted(wanted if name == "record" else saved.keys() | wanted.keys())  # a record has further entries
        return next(filter(None, (_difference(f"{name}.{key}", saved.get(key), wanted.get(key)) for key in names)), None)
    return None if saved == wanted else f"{name} was {json.dumps(saved)} and is {json.dumps(wanted)}"


# ---- the folder of a training ------------------------------------------------------------------------
#
# Where the run lies on a store, the store gets all that a training needs to resume on another machine: its saved states, its logs with
# each state, and the tokenizer, which turns a state into a model folder. The copy on a machine is scratch space that may be lost.

#: The log with a line for each training step, within the stage's folder.
LOG = "logs/train.jsonl"
#: Folders that a training writes for its stage to publish.
LEFT = ("adapter", "model")
#: The model that a training starts from, if it is its parent with added tokens; exists during the training.
START = "start"


class CheckpointDir:
    """The folders of a training: `work` is RUN/STAGE/checkpoints/TRAINING, `log` is RUN/STAGE/logs/train.jsonl; paths or URLs that are the
    same for all processes."""

    def __init__(self, work: str, log: str):
        self.work, self.storage, self.logs = work, Storage(work), Storage(log.rpartition("/")[0])
        #: Where this machine's processes work on the training.
        self.folder = on_disk(self.storage)
        #: The log of steps; the other logs are in the same folder.
        self.log_file = self.folder / "logs" / Path(log).name if self.storage.remote else Path(log)
        self.states = self.storage.child("state")

    @classmethod
    def of(cls, run: "StageRun", identity: str) -> "CheckpointDir":
        """Returns the folder of a training task, by the task's identity."""
        return cls(run.storage.path(f"checkpoints/{identity[:16]}"), run.storage.path(LOG))

    def others(self) -> list[str]:
        """Returns the folders with the saved states of the stage's other trainings."""
        folder, _, own = self.work.rpartition("/")
        return [f"{folder}/{name}/state" for name in Storage(folder).folders() if name != own]

    def begin(self, tokenizer: Mapping[str, bytes]) -> None:
        """Prepares the folder; called by the first process before it trains. Saves the tokenizer, without which a saved state makes no
        model folder, and fetches the logs of earlier steps from the store."""
        with new_folder(self.folder / "tokenizer") as temporary:
            for name, content in sorted(tokenizer.items()):
                (temporary / name).write_bytes(content)
        self.keep("tokenizer")
        if self.storage.remote:
            shutil.rmtree(self.log_file.parent, ignore_errors=True)
            for name in self.logs.list_files():
                fetch_file(self.logs, name, self.log_file.parent / name)

    def keep_logs(self) -> None:
        """Uploads the logs to the store. Raises CorpusmillError if they were removed meanwhile."""
        if self.storage.remote:
            if not self.log_file.is_file():
                raise CorpusmillError(f"{self.log_file}: was removed while the training writes its log there.")
            _upload(self.log_file.parent, self.logs)

    def keep(self, name: str) -> None:
        """Uploads a folder of the working folder to the store."""
        if self.storage.remote:
            _upload(self.folder / name, self.storage.child(name))

    def leave(self, dims: ParallelDims) -> None:
        """Is called by all processes after the first has written the files that the stage publishes.

        With several processes the stage may run on another machine, so the files are uploaded to the store and removed here. The logs are
        uploaded once more, as trackers write until they are closed, after the last state.
        """
        if dims.is_main:
            self.keep_logs()
        for name in LEFT if dims.is_main and dims.world > 1 else ():
            self.keep(name)
        dims.barrier()
        if dims.world > 1:
            self.clear()

    def left(self) -> list[Path]:
        """Returns the files to publish. Files from another machine are fetched, and removed from the store."""
        for name in LEFT if self.storage.remote else ():
            for path in self.storage.list_files(name):
                fetch_file(self.storage, path, self.folder / path)
            self.storage.remove_folder(name)
        return [path for name in LEFT for path in sorted((self.folder / name).glob("*"))]

    def clear(self) -> None:
        """Removes this machine's copy of a training whose run lies on a store."""
        if self.storage.remote:
            shutil.rmtree(self.folder, ignore_errors=True)


def _upload(folder: Path, storage: Storage) -> None:
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        publish(storage, path.relative_to(folder).as_posix(), path)


# ---- the saved states of a run -----------------------------------------------------------------------

STAGES = ("pretrain", "sft", "align")


def checkpoints(run: str, stage: str | None = None) -> list[SavedState]:
    """Returns the saved states of a run (of one stage). A stage has a training for each configuration that it was run with: each training's
    by step, the training that was saved last at the end."""
    if stage not in (None, *STAGES):
        raise InputError(f"{stage} is no stage that trains{instead_of(stage, STAGES)}.")
    storage = Storage(run)
    if not storage.remote and not Path(storage.root).is_dir():
        raise InputError(not_a_run(run))
    found: list[SavedState] = []
    for name in STAGES if stage is None else (stage,):
        folder = storage.child(f"{name}/checkpoints")
        known = [saved_states(folder.child(f"{training}/state")) for training in folder.folders()]
        for states in sorted(filter(None, known), key=lambda states: max(saved.date for saved in states)):
            found += states
    return found


def export_state(run: str, step: int, output: Path, stage: str | None = None) -> SavedState:
    """Writes the model of a stage after `step` steps as a folder that opens in `transformers`. Raises InputError if there is no such state.

    Without a `stage`, the first stage with that step; among several trainings, the one that was saved last.
    """
    from corpusmill.train.sft import merged_state

    known = checkpoints(run, stage)
    having = [saved for saved in known if saved.step == step]
    if not having:
        there = ", ".join(map(str, sorted({saved.step for saved in known})))
        raise InputError(f"{run}: no state was saved after {step} steps" + (f"; there are {there}." if there else ", nor any other."))
    chosen = [saved for saved in having if saved.stage == having[0].stage][-1]
    if output.exists():
        raise InputError(f"{output}: already exists.")
    try:
        if damage := next(filter(None, map(chosen.damage, range(len(chosen.ranks)))), None):
            raise InputError(damage)
        with torch.no_grad():
            model = merged_state(chosen, Storage(run)) or model_of(Architecture.model_validate(chosen.record["model"]), chosen.weights())
        save_model(model, output, tokenizer_files(chosen.work.child("tokenizer")))
    finally:
        chosen.forget()
    return chosen
