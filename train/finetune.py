"""The work around the loop that tuning and alignment share: loads a model, adds tokens or an adapter (LoRA) to it, trains and saves it."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from corpusmill.pipeline.cache import local_model
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.storage import Storage, is_remote
from corpusmill.pipeline.watch.progress import Progress
from corpusmill.train.checkpoint import (
    START,
    CheckpointDir,
    SavedState,
    load_model,
    model_files,
    model_of,
    model_tensors,
    new_folder,
    read_architecture,
    save_model,
    tokenizer_files,
    write_json,
    write_tensors,
)
from corpusmill.train.compute import chosen, compiles, deterministic
from corpusmill.train.data import DataShare, Order, steps_of
from corpusmill.train.loop import FitResult, fit
from corpusmill.train.losses import Objective
from corpusmill.train.model import Llama, named_generator
from corpusmill.train.options import LoraConfig, row_length
from corpusmill.train.parallel import ParallelDims
from corpusmill.train.parallel.model import ParallelModel
from corpusmill.train.template import ChatEncoder, chat_files, load_chat, require_learnable
from corpusmill.train.tuning import ADAPTED, AlignConfig, SftConfig, StartModel

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


def adapt(model: Llama, config: LoraConfig, seed: int) -> None:
    """Adds an adapter to each projection that `config` names, in place, and freezes all other weights. The model's output stays the same.

    As in `peft`, A begins uniform in ±1/sqrt(in), drawn by the seed and its name alone; B begins at zero.
    """
    model.requires_grad_(False)
    for name, base in list(model.named_modules()):
        parent, _, child = name.rpartition(".")
        if child in config.targets and isinstance(base, nn.Linear):
            module = LoRALinear(base, config.rank, config.alpha / config.rank)
            setattr(model.get_submodule(parent), child, module)
            bound, generator = 1 / math.sqrt(module.in_features), named_generator(f"{name}.lora_A", seed)
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
    return weights | {f"{name}.weight": m.weight + m.scale * (m.lora_B @ m.lora_A) for name, m in adapters(model).items()}


def save_adapter(model: Llama, config: LoraConfig, base: str, folder: Path) -> None:
    """Writes the adapter of a model, which belongs to the model folder `base`, to a folder that `peft` opens; an old folder is replaced."""
    weights = {f"base_model.model.{name}.weight": p for name, p in model.named_parameters() if p.requires_grad}
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
        write_tensors(temporary / "adapter_model.safetensors", weights)


@torch.no_grad()
def with_weights(folder: str, lora: LoraConfig, seed: int, weights: Mapping[str, Tensor], device: torch.device | str = "cpu") -> Llama:
    """Returns the model of a folder, with a new adapter if `lora` has a rank, and with these weights, by name, in place of its own."""
    model = load_model(folder, device)
    if lora.rank:
        adapt(model, lora, seed)
    for name, tensor in weights.items():
        model.get_parameter(name).data = tensor
    return model


def merged_model(state: SavedState, work: Storage, run: Storage) -> Llama | None:
    """Returns the run's model merged with the adapter of a saved state; None if the state holds a whole model's weights. `work` is the
    folder of its training."""
    if not work.exists(ADAPTED):
        return None
    adapter = json.loads(work.read_bytes(ADAPTED))
    folder = adapter["base"] if Path(adapter["base"]).is_absolute() or is_remote(adapter["base"]) else run.path(adapter["base"])
    found = {ref.path.rpartition("/")[2]: ref.fingerprint for ref in model_files(folder, "adapter")}
    if not adapter["sha256"].items() <= found.items():
        raise InputError(f"{folder}: is not the model any more that the adapter of {state.storage.root} was trained for.")
    model = with_weights(str(local_model(folder)), LoraConfig.model_validate(adapter["lora"]), 0, state.weights())
    return model_of(model.arch, merged_weights(model))


# ---- new special tokens ------------------------------------------------------------------------------
#
# A new row, of the embedding and of the head, is the mean of the rows before it. So a new token's logit is the mean of the old ones, and
# the model's distribution hardly changes (Hewitt, "Initializing New Word Embeddings for Pretrained Language Models", 2021).
# `transformers`' `resize_token_embeddings` draws from a narrow normal distribution around the same mean. Here equal rows diverge at the
# first step, as their tokens stand in different places.


def with_template(config: SftConfig, start: StartModel, checkpoint_dir: CheckpointDir) -> StartModel:
    """Returns the model to tune: `start` if it has the tokenizer and template of the recipe, else a copy that has them. Raises InputError
    where an adapter would have to learn new tokens."""
    old, new = load_chat(start.storage), load_chat(start.storage, config.template)
    added = sorted(number for token, number in new.special_ids.items() if old.tokenizer.token_to_id(token) is None)
    if config.lora.rank and added:
        what = f"the template {config.template} needs tokens that {start.folder} lacks"
        raise InputError(f"sft.lora.rank: {what}, and an adapter can't learn them; set it to 0, or take another template.")
    if (old.tokenizer_json, old.source, old.special) == (new.tokenizer_json, new.source, new.special):
        return start
    model = grown(load_model(start.folder), added)
    save_model(model, checkpoint_dir.folder / START, chat_files(new, model.arch.context))
    checkpoint_dir.keep(START)
    return replace(start, folder=Storage(checkpoint_dir.work).path(START))


@torch.no_grad()
def grown(model: Llama, tokens: Sequence[int]) -> Llama:
    """Returns a model in which the rows of `tokens` (ids, also beyond its vocabulary) are the mean of the others; tied heads stay tied. The
    mean is taken in float64, so its rounding does not depend on order."""
    if not tokens:
        return model
    rows, weights = max(model.arch.vocab_size, max(tokens) + 1), model_tensors(model)
    known = torch.ones(model.arch.vocab_size, dtype=torch.bool)
    known[[token for token in tokens if token < len(known)]] = False
    for name in {"model.embed_tokens.weight", "lm_head.weight"} & weights.keys():
        mean = weights[name][known].double().mean(dim=0).to(weights[name].dtype)
        weights[name] = torch.cat([weights[name], mean.expand(rows - len(known), -1)])
        weights[name][list(tokens)] = mean
    return model_of(model.arch.model_copy(update={"vocab_size": rows}), weights)


# ---- around the loop ---------------------------------------------------------------------------------


def chat_of(start: StartModel, config: SftConfig | AlignConfig, title: str) -> tuple[ChatEncoder, int]:
    """Returns the tokenizer with the template that the recipe asks for, and the length of rows. Raises InputError if nothing can be learned
    with this template."""
    encoder = load_chat(start.storage, config.template if isinstance(config, SftConfig) else "keep")
    require_learnable(encoder)
    return encoder, row_length(config.context, read_architecture(Path(start.storage.root)).context, f"{title}.context")


def start_from(folder: str, dims: ParallelDims, config: SftConfig | AlignConfig) -> Llama:
    """Returns the model of a folder, whole on each process. If an adapter is to be trained, the model has a new one, and the frozen weights
    are bf16 where the precision is."""
    precision = chosen(dims.device, config.loop.precision)
    rounds = config.lora.rank > 0 and precision != "fp32"
    model = with_weights(folder, config.lora, config.seed, {}, "cpu" if rounds else dims.device)
    if rounds:
        round_frozen(model, precision)
    return model.to(dims.device)


class FinetuningJob(Objective):
    """A training as each process does it. Subclasses are objectives of the loop; they call `plan` when they know their examples.

    Raises InputError if the processes can't evenly divide a step's rows or the model.
    """

    metrics: Sequence[str] = ()

    def __init__(self, config: SftConfig | AlignConfig, start: StartModel, dims: ParallelDims, title: str):
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
        steps = min(self.config.loop.steps, steps_of(self.config.epochs, self.config.batch, examples))
        self.loop = self.config.loop.model_copy(update={"steps": steps})

    def describe(self, step: int, share: DataShare, number: int) -> list[str]:
        """Returns the ids of the examples in a micro-batch, for the log of skipped steps."""
        raise NotImplementedError

    def measure(self, parallel_model: ParallelModel) -> dict[str, float]:
        """Measures on the held-out data, with the same result on every process; returns nothing without any."""
        raise NotImplementedError

    def figures(self, result: FitResult, before: dict[str, float], after: dict[str, float]) -> dict[str, Any]:
        """Returns what `metrics.json` says of this kind of training, with the measurements `before` and `after` it."""
        raise NotImplementedError

    def train(self, checkpoint_dir: CheckpointDir, progress: Progress | None = None) -> dict[str, Any]:
        """Trains, and saves the model. Returns the content of `metrics.json`."""
        if self.dims.is_main:
            checkpoint_dir.begin(chat_files(self.encoder, self.model.arch.context))
        after: dict[str, float] = {}  # the latest measurement

        def evaluate(parallel_model: ParallelModel, done: int) -> dict[str, float]:
            after.update(self.measure(parallel_model))
            return {f"held_out_{name}": value for name, value in after.items()}

        with deterministic(self.loop.threads):
            before = self.measure(ParallelModel(self.model, self.loop.precision))
        result = fit(
            self.model, self, self.loop, dims=self.dims, state=checkpoint_dir, log=checkpoint_dir.log_file, describe=self.describe,
            evaluate=evaluate if before else None, evaluate_every=self.config.evaluate_every, progress=progress, title=self.title,
            length=self.context,
        )  # fmt: skip
        if before and not after:  # the process was killed after the last step
            with deterministic(self.loop.threads):
                evaluate(result.parallel_model, result.steps)
        saved = result.states.latest() if self.dims.world > 1 else None
        if self.dims.is_main:
            self._save(saved.weights() if saved else {}, checkpoint_dir.folder)
        checkpoint_dir.leave(self.dims)
        return {
            "context": self.context,
            "steps_an_epoch": steps_of(1, self.config.batch, self.order.examples),
            "steps": result.steps,
            "skipped_steps": result.skipped,
            "train_loss": result.loss,
            **self.figures(result, before, after),
        }

    def _save(self, weights: Mapping[str, Tensor], work: Path) -> None:
        """Saves the trained model to `work/model`; where several processes have parts of it, from the `weights` of the last state. An
        adapter is saved to `work/adapter`, too, and the model has it merged with the start model as its folder has it, unrounded."""
        model, lora = self.model, self.config.lora
        if self.dims.world == 1:
            weights = {name: p.detach().cpu() for name, p in model.named_parameters() if p.requires_grad}
        if self.dims.world > 1 or lora.rank:
            model = with_weights(self.start.folder, lora, self.config.seed, weights)
        if lora.rank:
            save_adapter(model, lora, self.start.name, work / "adapter")
            model = model_of(model.arch, merged_weights(model))
        save_model(model, work / "model", tokenizer_files(Storage(str(work / "tokenizer"))))
