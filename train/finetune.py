"""The work around the loop that tuning and alignment share on each process: loads a model, adapts it (LoRA), saves it."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from corpusmill.pipeline.cache import local_model
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.storage import Storage, is_remote
from corpusmill.pipeline.watch.progress import Progress
from corpusmill.train.checkpoint import CheckpointDir, SavedState, new_folder, write_json, write_tensors
from corpusmill.train.compute import chosen, compiles, deterministic
from corpusmill.train.data import DataShare, Order, steps_of
from corpusmill.train.loop import FitResult, fit
from corpusmill.train.losses import Objective
from corpusmill.train.model import Llama, named_generator
from corpusmill.train.model_folder import load_model, model_of, save_model
from corpusmill.train.options import LoraConfig, row_length
from corpusmill.train.parallel.dims import ParallelDims
from corpusmill.train.parallel.model import ParallelModel
from corpusmill.train.template import chat_files, load_chat
from corpusmill.train.tuning import ADAPTED, StartModel, TuningConfig, sha256_of

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
        return F.linear(x.to(self.weight.dtype), self.weight) + self.scale * F.linear(F.linear(x, self.lora_A), self.lora_B)

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


class RoundedEmbedding(nn.Embedding):
    """An embedding whose weight is bf16, and its rows fp32: with autocast, the sums of the residual stream are fp32."""

    def __init__(self, base: nn.Embedding):
        super().__init__(base.num_embeddings, base.embedding_dim, _weight=base.weight)

    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids).float()


def round_frozen(model: Llama, precision: str) -> None:
    """Stores the frozen matrices of an adapted model in bf16, in place: half the memory for what products take in bf16 anyway.

    `precision` is `bf16` or `bf16-params`. Norms stay fp32, as do the adapters, which are trained.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            module.weight.data = module.weight.data.bfloat16()
    if precision == "bf16" and model.model.embed_tokens is not None:
        model.model.embed_tokens = RoundedEmbedding(model.model.embed_tokens).requires_grad_(False)


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


def save_adapter(weights: Mapping[str, Tensor], config: LoraConfig, base: str, folder: Path) -> None:
    """Writes `weights`, named as parameters (`... .lora_A`), of an adapter for the model folder `base` to a folder that `peft` opens; an
    old folder is replaced."""
    described = {
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
    with new_folder(folder) as temporary:
        write_json(temporary / "adapter_config.json", described)
        write_tensors(temporary / "adapter_model.safetensors", {f"base_model.model.{name}.weight": t for name, t in weights.items()})


# ---- around the loop ---------------------------------------------------------------------------------


def start_from(folder: str, dims: ParallelDims, config: TuningConfig) -> Llama:
    """Returns the model of a folder, whole on each process. If an adapter is to be trained, the model has a new one, and the frozen weights
    are bf16 where the precision is."""
    precision = chosen(dims.device, config.loop.precision)
    rounds = config.lora.rank > 0 and precision != "fp32"
    model = load_model(folder, "cpu" if rounds else dims.device)
    if config.lora.rank:
        adapt(model, config.lora, config.seed)
    if rounds:
        round_frozen(model, precision)
    return model.to(dims.device)


class FinetuningJob(Objective):
    """A training as each process does it. Subclasses are objectives of the loop; they call `plan` when they know their examples.

    Raises InputError if the processes can't evenly divide a step's rows or the model.
    """

    metrics: Sequence[str] = ()

    def __init__(self, config: TuningConfig, start: StartModel, dims: ParallelDims, title: str):
        self.config, self.start, self.dims, self.title = config, start, dims, title
        self.encoder = load_chat(start.storage)
        self.model = start_from(start.folder, dims, config)
        self.context = row_length(config.context, self.model.arch.context, f"{title}.context")
        try:
            dims.config.require_even(config.batch, {**self.model.arch.shared_sizes(), "row of tokens": self.context})
        except ValueError as error:
            raise InputError(f"{title}.parallel: {error}.") from error
        if dims.world == 1:  # what is measured before the first step comes from the same kernels as all that follows
            self.model.switch(checkpointing=config.loop.checkpointing, compiled=compiles(dims.device, config.loop.compile))

    def plan(self, examples: int) -> None:
        """Sets the order of `examples`, and the number of steps."""
        self.order = Order(examples, self.config.batch, self.config.micro_batch, self.config.seed)
        self.steps_an_epoch = steps_of(1, self.config.batch, examples)
        steps = min(self.config.loop.steps, steps_of(self.config.epochs, self.config.batch, examples))
        self.loop = self.config.loop.model_copy(update={"steps": steps})

    def describe(self, step: int, share: DataShare, number: int) -> list[str]:
        """Returns the ids of the examples in a micro-batch, for the log of skipped steps."""
        raise NotImplementedError

    def measure(self, parallel_model: ParallelModel) -> dict[str, float]:
        """Measures on the held-out data, with the same result on every process; returns nothing without any."""
        raise NotImplementedError

    def fit(self, checkpoint_dir: CheckpointDir, progress: Progress | None) -> tuple[FitResult, dict[str, float], dict[str, float]]:
        """Trains, and saves the model. Returns the loop's result and the held-out measurements before and after."""
        if self.dims.is_main:
            checkpoint_dir.begin(chat_files(self.encoder, self.model.arch.context))
        after: dict[str, float] = {}  # the latest measurement

        def evaluate(parallel_model: ParallelModel, done: int) -> dict[str, float]:
            after.update(self.measure(parallel_model))
            return {f"held_out_{name}": value for name, value in after.items()}

        with deterministic(self.loop.threads):
            before = self.measure(ParallelModel(self.model, self.loop.precision))
        result = fit(
            self.model, self, self.loop, dims=self.dims, state=checkpoint_dir.states, log=checkpoint_dir.log_file, describe=self.describe,
            evaluate=evaluate if before else None, evaluate_every=self.config.evaluate_every, progress=progress, title=self.title,
            length=self.context,
        )  # fmt: skip
        if before and not after:  # the process was killed after the last step
            with deterministic(self.loop.threads):
                evaluate(result.parallel_model, result.steps)
        self._leave(result, checkpoint_dir)
        return result, before, after

    def figures(self, result: FitResult) -> dict[str, Any]:
        """Returns the figures of a training for `metrics.json`."""
        return {
            "context": self.context,
            "steps_an_epoch": self.steps_an_epoch,
            "steps": result.steps,
            "skipped_steps": result.skipped,
            "train_loss": result.loss,
        }

    def _leave(self, result: FitResult, checkpoint_dir: CheckpointDir) -> None:
        """Saves the trained model to `model` in the working folder. On several processes it is read from the last state. An adapter is
        saved to `adapter`, too, and `model` has it merged with the start model as its folder has it, unrounded."""
        spread, lora, work, model = self.dims.world > 1, self.config.lora, checkpoint_dir.folder, self.model
        saved = result.states.latest() if spread else None
        if self.dims.is_main:
            if spread or lora.rank:
                trained = {name: p.detach().cpu() for name, p in model.named_parameters() if p.requires_grad}
                weights = trained if not spread else saved.weights() if saved else {}
                model = _with_weights(self.start.folder, lora, self.config.seed, weights)
            if lora.rank:
                save_adapter({name: p for name, p in model.named_parameters() if p.requires_grad}, lora, self.start.name, work / "adapter")
                model = model_of(model.arch, merged_weights(model))
            save_model(model, work / "model", work / "tokenizer")
        checkpoint_dir.leave(self.dims)


def merged_model(state: SavedState, work: Storage, run: Storage) -> Llama | None:
    """Returns the run's model merged with the adapter of a saved state; None if the state holds a whole model's weights. `work` is the
    folder of its training."""
    if not work.exists(ADAPTED):
        return None
    adapter = json.loads(work.read_bytes(ADAPTED))
    folder = adapter["base"] if Path(adapter["base"]).is_absolute() or is_remote(adapter["base"]) else run.path(adapter["base"])
    here, lora = local_model(folder), LoraConfig.model_validate(adapter["lora"])
    if any(sha256_of(here / name) != sha256 for name, sha256 in adapter["sha256"].items()):
        raise InputError(
            f"{folder}: is not the model any more that the adapter of {work.path(f'state/{state.path.name}')} was trained for."
        )
    model = _with_weights(str(here), lora, 0, state.weights())
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
