"""The work around the loop that tuning and alignment share on each process: loads a model, adapts it (LoRA), saves it."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from corpusmill.pipeline.cache import local_model
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.storage import Storage, is_remote
from corpusmill.pipeline.watch.progress import Progress
from corpusmill.train.checkpoint import read_weights
from corpusmill.train.checkpoint_dir import CheckpointDir, new_folder, write_json, write_tensors
from corpusmill.train.compute import deterministic
from corpusmill.train.loop import FitResult, fit
from corpusmill.train.model import Llama, named_generator
from corpusmill.train.model_folder import load_model, model_of, save_model
from corpusmill.train.options import LoopConfig, LoraConfig
from corpusmill.train.parallel.dims import ParallelDims
from corpusmill.train.parallel.model import LocalModel, ParallelModel
from corpusmill.train.template import ChatEncoder, chat_files
from corpusmill.train.tuning import ADAPTED, StartModel, sha256_of

if TYPE_CHECKING:
    from corpusmill.train.align import AlignConfig
    from corpusmill.train.sft import SftConfig


# ---- LoRA --------------------------------------------------------------------------------------------
#
# Weights stay frozen, and a product of two narrow matrices is learned for each (https://arxiv.org/abs/2106.09685).


class LoRALinear(nn.Linear):
    """Computes x W' + scale (x A') B' for `x` `[..., in]`: `weight` W `[out, in]` is frozen, `lora_A` is `[rank, in]`, `lora_B` `[out,
    rank]`.

    All three are parameters of the module itself, so that code which spreads or shards an `nn.Linear` handles this module, too.
    """

    def __init__(self, base: nn.Linear, rank: int, scale: float):
        super().__init__(base.in_features, base.out_features, bias=False, device="meta")
        self.weight, self.scale = base.weight, scale
        self.lora_A = nn.Parameter(self.weight.new_empty(rank, base.in_features))
        self.lora_B = nn.Parameter(self.weight.new_zeros(base.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight) + self.scale * F.linear(F.linear(x, self.lora_A), self.lora_B)

    def merged(self) -> Tensor:
        """Returns W + scale B A in the weight's type."""
        return self.weight + self.scale * (self.lora_B @ self.lora_A)


def adapt(model: Llama, config: LoraConfig, seed: int) -> None:
    """Adds an adapter to each projection that `config` names, in place, and freezes all other weights. The model's output stays the same.

    As in `peft`, A begins uniform in ±1/sqrt(in), drawn by the seed and its name alone; B begins at zero.
    """
    linear = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    model.requires_grad_(False)
    for name, base in [(name, module) for name, module in linear if name.rpartition(".")[2] in config.targets]:
        parent, _, child = name.rpartition(".")
        module = LoRALinear(base, config.rank, config.alpha / config.rank)
        setattr(model.get_submodule(parent), child, module)
        bound = 1 / math.sqrt(module.in_features)
        generator = named_generator(f"{name}.lora_A", seed)
        module.lora_A.data.copy_(torch.empty(module.lora_A.shape).uniform_(-bound, bound, generator=generator))


def adapters(model: nn.Module) -> dict[str, LoRALinear]:
    """Returns the adapted modules by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoRALinear)}


@torch.no_grad()
def merged_weights(model: Llama) -> dict[str, Tensor]:
    """Returns the weights, by name, of the plain Llama that computes the same as the adapted one."""
    weights = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith((".lora_A", ".lora_B"))}
    return weights | {f"{name}.weight": module.merged() for name, module in adapters(model).items()}


# ---- adapters as files -------------------------------------------------------------------------------
#
# A folder in the format of `peft`: `adapter_config.json` and `adapter_model.safetensors`.

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."


def peft_config(config: LoraConfig, base: str) -> dict[str, Any]:
    """Returns the `adapter_config.json` of an adapter for the model folder `base`."""
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": config.rank,
        "lora_alpha": int(config.alpha) if config.alpha.is_integer() else config.alpha,
        "lora_dropout": 0.0,
        "target_modules": list(config.targets),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }


def save_adapter(weights: Mapping[str, Tensor], config: LoraConfig, base: str, folder: Path) -> None:
    """Writes `weights`, named as parameters (`... .lora_A`), to a folder that `peft` opens; an old folder is replaced."""
    with new_folder(folder) as temporary:
        write_json(temporary / CONFIG, peft_config(config, base))
        write_tensors(temporary / WEIGHTS, {f"{PREFIX}{name}.weight": tensor for name, tensor in weights.items()})


# ---- before and after the loop -----------------------------------------------------------------------


def start_from(folder: str, dims: ParallelDims, config: "SftConfig | AlignConfig", title: str) -> Llama:
    """Returns the model of a folder, whole on each process, with a new adapter if one is to be trained. Raises InputError if the
    processes can't evenly divide a step's rows or the model."""
    model = load_model(folder, dims.device)
    try:
        dims.config.require_even(config.batch, model.arch.shared_sizes())
    except ValueError as error:
        raise InputError(f"{title}.parallel: {error}.") from error
    if config.lora.rank:
        adapt(model, config.lora, config.seed)
    return model


class TrainingJob(Protocol):
    """A training: a model, its encoder and configuration, and how it is measured."""

    start: StartModel
    dims: ParallelDims
    encoder: ChatEncoder
    model: Llama

    @property
    def config(self) -> "SftConfig | AlignConfig": ...

    @property
    def loop(self) -> LoopConfig: ...

    def measure(self, parallel_model: ParallelModel) -> dict[str, float]:
        """Measures on the held-out data, with the same result on every process; returns nothing without any."""
        ...


def train_job(
    job: TrainingJob, objective: Any, checkpoint_dir: CheckpointDir, progress: Progress | None, title: str
) -> tuple[FitResult, dict[str, float], dict[str, float]]:
    """Trains, and saves the model. Returns the loop's result and the held-out measurements before and after."""
    if job.dims.is_main:
        checkpoint_dir.begin(chat_files(job.encoder, job.model.arch.context))
    after: dict[str, float] = {}  # the latest measurement

    def evaluate(parallel_model: ParallelModel, done: int) -> dict[str, float]:
        after.update(job.measure(parallel_model))
        return {f"held_out_{name}": value for name, value in after.items()}

    with deterministic(job.loop.threads):
        before = job.measure(LocalModel(job.model, job.loop.precision))
    result = fit(
        job.model, objective, job.loop, dims=job.dims, state=checkpoint_dir.states, log=checkpoint_dir.log_file,
        describe=objective.describe, evaluate=evaluate if before else None, evaluate_every=job.config.evaluate_every, progress=progress,
        title=title,
    )  # fmt: skip
    if before and not after:  # the process was killed after the last step
        with deterministic(job.loop.threads):
            evaluate(result.parallel_model, result.steps)
    leave_model(job.model, job.start, result, job.dims, job.config, checkpoint_dir)
    return result, before, after


def leave_model(
    model: Llama, start: StartModel, result: FitResult, dims: ParallelDims, config: "SftConfig | AlignConfig", checkpoint_dir: CheckpointDir
) -> None:  # fmt: skip
    """Saves the trained model to `model` in the working folder. On several processes it is read from the last state. An adapter is saved to
    `adapter`, too, and `model` has it merged."""
    spread, work = dims.world > 1, checkpoint_dir.folder
    saved = result.states.latest() if spread else None
    if dims.is_main:
        if spread:
            model = _with_weights(start.folder, config.lora, config.seed, read_weights(saved.path) if saved else {})
        if config.lora.rank:
            save_adapter({name: p for name, p in model.named_parameters() if p.requires_grad}, config.lora, start.name, work / "adapter")
            model = model_of(model.arch, merged_weights(model))
        save_model(model, work / "model", work / "tokenizer")
    checkpoint_dir.leave(dims)


def merged_model(state: Path, work: Storage, run: Storage) -> Llama | None:
    """Returns the run's model merged with the adapter of a saved state; None if the state holds a whole model's weights. `work` is the
    folder of its training."""
    if not work.exists(ADAPTED):
        return None
    adapter = json.loads(work.read_bytes(ADAPTED))
    folder = adapter["base"] if Path(adapter["base"]).is_absolute() or is_remote(adapter["base"]) else run.path(adapter["base"])
    here, lora = local_model(folder), LoraConfig.model_validate(adapter["lora"])
    if any(sha256_of(here / name) != sha256 for name, sha256 in adapter["sha256"].items()):
        raise InputError(f"{folder}: is not the model any more that the adapter of {work.path(f'state/{state.name}')} was trained for.")
    model = _with_weights(str(here), lora, 0, read_weights(state))
    return model_of(model.arch, merged_weights(model))


@torch.no_grad()
def _with_weights(folder: str, lora: LoraConfig, seed: int, weights: Mapping[str, Tensor]) -> Llama:
    """Returns the model of a folder, with a new adapter if `lora` has a rank, and with these weights, by name, in place of its own."""
    model = load_model(folder)
    if lora.rank:
        adapt(model, lora, seed)
    for name, tensor in weights.items():
        model.get_parameter(name).data = tensor
    return model
