"""The work of the stage `sft`: makes examples, trains on packed rows of them, measures. What `align` has in common with it is here, too:
adapters (LoRA), new special tokens, and the training around the loop."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pyarrow as pa
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from corpusmill.pipeline.config import parse_json
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.schemas import with_columns
from corpusmill.pipeline.shards import read_table
from corpusmill.pipeline.stage import Output
from corpusmill.pipeline.storage import Storage, is_remote
from corpusmill.pipeline.watch.progress import Progress
from corpusmill.train import tasks, tuning
from corpusmill.train.checkpoint import (
    LOG,
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
from corpusmill.train.compute import deterministic
from corpusmill.train.data import IGNORED, Batch, DataShare, Order, Packed, counted_places, needed, pack, steps_of, to_device, within_budget
from corpusmill.train.loop import FitResult, fit, with_precision
from corpusmill.train.model import Llama, Objective, StepLoss, blank_model, named_generator
from corpusmill.train.options import LoraConfig, row_length
from corpusmill.train.parallel import ParallelDims, is_sharded
from corpusmill.train.parallel.model import ParallelModel
from corpusmill.train.template import (
    NOTHING,
    ChatEncoder,
    Encoded,
    Message,
    TemplateRefusal,
    assistant_turn,
    chat_files,
    load_chat,
    require_learnable,
    seam,
    user_turn,
)
from corpusmill.train.tuning import ADAPTED, DROPPED_FILE, EXAMPLES_FILE, ITEM_COLUMNS, MESSAGES, AlignConfig, SftConfig, StartModel
from corpusmill.train.user_files import conversations

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
    """Adds an adapter to each projection that `config` names, in place, and freezes all other weights. The model's output stays the
    same."""
    model.requires_grad_(False)
    for name, base in list(model.named_modules()):
        parent, _, child = name.rpartition(".")
        if child in config.targets and isinstance(base, nn.Linear):
            setattr(model.get_submodule(parent), child, LoRALinear(base, config.rank, config.alpha / config.rank))
    draw_adapters(dict(model.named_parameters()), seed)


@torch.no_grad()
def draw_adapters(parameters: Mapping[str, Any], seed: int) -> None:
    """Sets the initial values of adapters: as in `peft`, A is uniform in ±1/sqrt(in), drawn by the seed and its name alone; B is zero."""
    for name, p in parameters.items():
        if name.endswith("lora_A"):
            bound = 1 / math.sqrt(p.shape[1])
            values = torch.empty(p.shape).uniform_(-bound, bound, generator=named_generator(name, seed)).to(p.device)
            if is_sharded(p):
                from torch.distributed.tensor import distribute_tensor

                values = distribute_tensor(values, p.device_mesh, p.placements, src_data_rank=None)  # each rank keeps its shard
            p.copy_(values)
        elif name.endswith("lora_B"):
            p.zero_()


def round_frozen(model: Llama, precision: str) -> None:
    """Stores the frozen matrices of an adapted model in bf16, in place: half the memory for what products take in bf16 anyway.

    `precision` is `bf16` or `bf16-params`. Norms and the adapters, which are trained, stay fp32; with `bf16`, which is autocast, so do the
    embedding's rows, and with them the sums of the residual stream.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            module.weight.data = module.weight.data.bfloat16()
    if precision == "bf16":
        model.model.embed_tokens.register_forward_hook(lambda embedding, given, rows: rows.float())


def adapters(model: nn.Module) -> dict[str, LoRALinear]:
    """Returns the adapted modules by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoRALinear)}


@torch.no_grad()
def merged_weights(model: Llama) -> dict[str, Tensor]:
    """Returns the weights, by name, of the plain Llama that computes the same as the adapted one."""
    weights = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith((".lora_A", ".lora_B"))}
    return weights | {f"{name}.weight": m.weight + m.scale * (m.lora_B @ m.lora_A) for name, m in adapters(model).items()}


def save_adapter(weights: Mapping[str, Tensor], config: LoraConfig, base: str, folder: Path) -> None:
    """Writes an adapter's weights, which belong to the model folder `base`, to a folder that `peft` opens; an old folder is replaced."""
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
        write_tensors(temporary / "adapter_model.safetensors", {f"base_model.model.{name}.weight": p for name, p in weights.items()})


def merged(folder: str, config: LoraConfig, weights: Mapping[str, Tensor]) -> Llama:
    """Returns the model of a folder, as the folder has it, with an adapter of these `weights`, by name, merged into it."""
    model = load_model(folder)
    adapt(model, config, seed=0)
    for name, tensor in weights.items():
        model.get_parameter(name).data = tensor
    return model_of(model.arch, merged_weights(model))


def merged_state(state: SavedState, run: Storage) -> Llama | None:
    """Returns the run's model merged with the adapter of a saved state; None if the state holds a whole model's weights."""
    if not state.work.exists(ADAPTED):
        return None
    adapter = parse_json(state.work.read_bytes(ADAPTED))
    folder = adapter["base"] if Path(adapter["base"]).is_absolute() or is_remote(adapter["base"]) else run.path(adapter["base"])
    found = {ref.path.rpartition("/")[2]: ref.fingerprint for ref in model_files(folder, "adapter")}
    if not adapter["sha256"].items() <= found.items():
        raise InputError(f"{folder}: is not the model any more that the adapter of {state.storage.root} was trained for.")
    return merged(folder, LoraConfig.model_validate(adapter["lora"]), state.weights())


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


C = TypeVar("C", SftConfig, AlignConfig)


def blank_start(folder: Path, config: SftConfig | AlignConfig) -> Llama:
    """Returns a blank model of a folder's shape, which each rank fills in part. If an adapter is to be trained, the model has one, and the
    frozen weights are bf16 where the precision is."""
    model = blank_model(read_architecture(folder))
    if config.lora.rank:
        adapt(model, config.lora, config.seed)
        if config.loop.precision != "fp32":
            round_frozen(model, config.loop.precision)
    return model


def settled(config: C, dims: ParallelDims, checkpoint_dir: CheckpointDir) -> C:
    """Returns the configuration with the precision that all processes compute in."""
    return config.model_copy(update={"loop": with_precision(config.loop, dims, checkpoint_dir.states)})


class FinetuningJob(Objective):
    """A training as each process does it. Subclasses are objectives of the loop; they call `plan` when they know their examples.

    Raises InputError if the processes can't evenly divide a step's rows or the model.
    """

    metrics: Sequence[str] = ()

    def __init__(self, config: SftConfig | AlignConfig, start: StartModel, dims: ParallelDims, title: str):
        self.config, self.start, self.dims, self.title = config, start, dims, title
        self.encoder, self.folder = load_chat(start.storage), Path(start.storage.root)
        self.model = blank_start(self.folder, config)
        self.context = row_length(config.context, self.model.arch.context, f"{title}.context")
        try:
            dims.config.require_even(config.batch, {**self.model.arch.shared_sizes(), "row of tokens": self.context})
        except ValueError as error:
            raise InputError(f"{title}.parallel: {error}.") from error
        self.before, self.after = dict[str, float](), dict[str, float]()  # the held-out measurements of the start model, and the latest

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

    def figures(self, result: FitResult) -> dict[str, Any]:
        """Returns what `metrics.json` says of this kind of training."""
        raise NotImplementedError

    def measure_reference(self, parallel_model: ParallelModel) -> None:
        """Measures what later steps are compared with, on the start model."""

    def begin(self, parallel_model: ParallelModel) -> None:
        """Is given the start model, as it is laid out over the processes, before the first step or a saved state."""
        draw_adapters(parallel_model.parameters, self.config.seed)
        self.measure_reference(parallel_model)
        self.before = self.measure(parallel_model)

    def evaluate(self, parallel_model: ParallelModel, done: int) -> dict[str, float]:
        """Returns the held-out measurements after `done` steps, for the log."""
        self.after = self.measure(parallel_model)
        return {f"held_out_{name}": value for name, value in self.after.items()}

    def train(self, checkpoint_dir: CheckpointDir, progress: Progress | None = None) -> dict[str, Any]:
        """Trains, and saves the model. Returns the content of `metrics.json`."""
        if self.dims.is_main:
            checkpoint_dir.begin(chat_files(self.encoder, self.model.arch.context))
        result = fit(
            self.model, self, self.loop, dims=self.dims, start=self.folder, first=self.begin, state=checkpoint_dir,
            log=checkpoint_dir.log_file, describe=self.describe, evaluate=self.evaluate, evaluate_every=self.config.evaluate_every,
            progress=progress, title=self.title, length=self.context,
        )  # fmt: skip
        if self.before and not self.after:  # the process was killed after the last step
            with deterministic(self.loop.threads):
                self.evaluate(result.parallel_model, result.steps)
        saved = result.states.latest() if self.dims.world > 1 else None
        if self.dims.is_main:
            self._save(saved.weights() if saved else None, checkpoint_dir.folder)
        checkpoint_dir.leave(self.dims)
        return {
            "context": self.context,
            "steps_an_epoch": steps_of(1, self.config.batch, self.order.examples),
            "steps": result.steps,
            "skipped_steps": result.skipped,
            "train_loss": result.loss,
            "precision": result.precision,
            "warnings": result.warnings,
            **self.figures(result),
        }

    def _save(self, weights: Mapping[str, Tensor] | None, work: Path) -> None:
        """Saves the trained model to `work/model`; where several processes have parts of it, from the `weights` of the last state. An
        adapter is saved to `work/adapter`, too, and the model has it merged with the start model as its folder has it, unrounded."""
        model, lora = self.model, self.config.lora
        if lora.rank:
            weights = weights or {name: p.detach().cpu() for name, p in model.named_parameters() if p.requires_grad}
            save_adapter(weights, lora, self.start.name, work / "adapter")
            model = merged(self.start.folder, lora, weights)
        elif weights:
            model = model_of(model.arch, weights)
        save_model(model, work / "model", tokenizer_files(Storage(str(work / "tokenizer"))))


# ---- examples ----------------------------------------------------------------------------------------
#
# Examples come from the user's files, or from tasks on the run's own documents.

#: The schema of `sft/data/examples.parquet`: each example and the document (or file and line) it came from.
EXAMPLES = pa.schema([*ITEM_COLUMNS, pa.field("messages", MESSAGES, nullable=False)])
#: The schema of `sft/dropped/examples.parquet`: the examples that can't be learned from, and why. A row that is no example has no messages.
DROPPED = with_columns(EXAMPLES, [pa.field("failed", pa.list_(pa.string())), pa.field("note", pa.string())])


@dataclass(frozen=True)
class Example(tuning.DataItem):
    """An example. `kind`: title, continuation, heading, or file. `encoded`: all its tokens; `tokens`: those that fit into a row, None if it
    is dropped."""

    messages: list[Message] = field(default_factory=list)
    encoded: Encoded = NOTHING
    tokens: Encoded | None = None
    truncated: bool = False
    n_tokens: int = 0
    n_target_tokens: int = 0
    columns: ClassVar = [
        pa.field("n_tokens", pa.int64()),  # of the whole conversation, before truncation
        pa.field("n_target_tokens", pa.int64()),  # learned tokens, after truncation
        pa.field("truncated", pa.bool_()),
    ]


def make(run: StageRun, config: SftConfig, start: StartModel, given: Sequence[FileRef]) -> Output:
    """Makes all examples, decides which are kept, and writes a report row for each. Raises NothingKept if none is left to learn."""
    encoder, row = chat_of(start, config, "sft")
    if config.files:
        examples = read_examples(config.files, config.held_out)
    else:
        limits = config.examples, config.per_document, config.max_chars
        held_out = tuning.held_out_rule(run, config.held_out)
        examples = build_examples(tuning.document_tables(run), f"sft {config.seed}", *limits, held_out)
    examples = [prepare(example, encoder, row) for example in examples]
    dropped = {DROPPED_FILE: tuning.items_table([example for example in examples if example.failed], DROPPED)}
    output = tuning.publish_items(run, given, examples, EXAMPLES, dropped, [])
    output.counts["truncated"] = sum(example.truncated for example in examples)
    if cut := sum(example.truncated for example in examples if not example.failed):
        output.warnings.append(f"{cut} examples are longer than a row of {row} tokens, and learned up to there (sft.context).")
    output.warnings += seam(encoder)
    return output


def build_examples(
    tables: Iterable[pa.Table], salt: str, limit: int, per_document: int, max_chars: int, held_out: Callable[[str], bool]
) -> list[Example]:
    """Returns at most `limit` tasks, at most `per_document` of one document, in the order of their hashes."""
    built = tasks.choose(tables, salt, limit, per_document, lambda source: tasks.instructions(source, max_chars))
    return [
        Example(task.source.id, task.source.url, task.kind, held_out(task.source.id), [user_turn(task.prompt), assistant_turn(task.answer)])
        for task in built
    ]


#: Returns the examples in the user's files (a list of paths), a share of them held out.
read_examples = partial(tuning.read_items, Example, conversations, "an example", "no_example")


def prepare(example: Example, encoder: ChatEncoder, context: int) -> Example:
    """Returns an example with its tokens, cut to a row of `context` places. It is dropped for one of these reasons:

    the rule of a BadRow    the row is not an example
    `template_refused`      the template refuses the conversation
    `no_answer`             the assistant has no turn
    `empty_answer`          a turn of the assistant is empty
    `too_long`              all targets lie beyond the row
    `nothing_to_learn`      there are no targets
    """
    if not example.messages:
        return example
    try:
        encoded = encoder.encode(example.messages)
    except TemplateRefusal as refusal:
        return replace(example, failed=["template_refused"], note=str(refusal))
    truncated, tokens = len(encoded.ids) > context + 1, Encoded(encoded.ids[: context + 1], encoded.mask[: context + 1])
    answers = [message["content"].strip() for message in example.messages if message["role"] == "assistant"]
    failed = []
    if not answers or not all(answers):
        failed = ["empty_answer" if answers else "no_answer"]
    elif not tokens.mask[1:].any():
        failed = ["too_long" if encoded.mask[1:].any() else "nothing_to_learn"]
    found = replace(example, failed=failed, encoded=encoded, truncated=truncated, n_tokens=len(encoded.ids))
    return found if failed else replace(found, tokens=tokens, n_target_tokens=int(tokens.mask[1:].sum()))


def pack_examples(examples: Sequence[Example], held_out: bool, encoder: ChatEncoder, context: int) -> tuple[Packed, list[Example]]:
    """Packs the examples of one side of the held-out split that can be learned; returns the rows, and these examples in their order."""
    prepared = [prepare(example, encoder, context) for example in examples if example.held_out == held_out]
    kept = [example for example in prepared if example.tokens is not None]
    return pack([example.tokens for example in kept if example.tokens is not None], context), kept


# ---- the training ------------------------------------------------------------------------------------


def train(
    dims: ParallelDims, progress: Progress | None, config: dict[str, Any], run: str, folder: str, name: str, work: str
) -> dict[str, Any]:
    """Trains on this process. The first process writes the folder `work/model`. Returns the content of `metrics.json`."""
    examples, checkpoint_dir = read_table(Storage(run).child("sft"), EXAMPLES_FILE), CheckpointDir(work, f"{run}/sft/{LOG}")
    options = settled(SftConfig.model_validate(config), dims, checkpoint_dir)
    return TuningJob(options, StartModel(name, folder), examples, dims).train(checkpoint_dir, progress)


class TuningJob(FinetuningJob):
    """The training of instruction tuning, and its objective. An example is a packed row."""

    def __init__(self, config: SftConfig, start: StartModel, examples: pa.Table, dims: ParallelDims):
        super().__init__(config, start, dims, "sft")
        given = [Example(**row) for row in examples.to_pylist()]
        self.rows, self.examples = pack_examples(given, False, self.encoder, self.context)
        self.held_out, self.held_out_examples = pack_examples(given, True, self.encoder, self.context)
        self.plan(self.rows.n_rows)

    def figures(self, result: FitResult) -> dict[str, Any]:
        return {
            "examples": len(self.examples),
            "held_out_examples": len(self.held_out_examples),
            "rows": self.rows.n_rows,
            "row_fill": self.rows.fill,
            "target_tokens": result.count,
            "held_out_loss_before": self.before.get("loss"),
            "held_out_loss_after": self.after.get("loss"),
        }

    def batches(self, step: int, share: DataShare) -> Iterator[Any]:
        for rows in self.order.micro_batches(step, share):
            ids, targets, segments = self._tensors(self.rows, rows)
            yield to_device((ids, targets, segments, counted_places(targets)), self.dims.device)

    def loss(self, model: Llama, batch: Any) -> StepLoss:
        """Returns the nats of the batch's targets: the assistant's contents and end tokens."""
        ids, targets, segments, places = batch
        nats = model(ids, segments, targets=targets, places=places, summed=True)
        return StepLoss(nats, len(places), tokens=ids.numel())

    def describe(self, step: int, share: DataShare, number: int) -> list[str]:
        return [self.examples[example].id for row in self.order.micro_batches(step, share)[number] for example in self.rows.members[row]]

    @torch.no_grad()
    def measure(self, parallel_model: ParallelModel) -> dict[str, float]:
        """Returns `loss`: nats per target over the held-out examples; nothing without any."""
        total, count = 0.0, 0
        for rows in within_budget([self.context] * self.held_out.n_rows):
            ids, targets, segments = to_device(self._tensors(self.held_out, rows), self.dims.device)
            total += float(parallel_model.nats(ids, targets, segments).double().sum())
            count += int((targets != IGNORED).sum())
        return {"loss": total / count} if count else {}

    def _tensors(self, packed: Packed, rows: list[int]) -> Batch:
        ids, targets, segments = (torch.from_numpy(values[rows]) for values in (packed.ids, packed.targets, packed.segments))
        return ids, targets, needed(segments)
