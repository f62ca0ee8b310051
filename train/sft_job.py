"""The work of the stage `sft`: makes packed rows of examples, adds rows for new tokens to a model, trains, measures."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import torch
from torch import Tensor

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.schemas import with_columns
from corpusmill.pipeline.shards import read_table
from corpusmill.pipeline.stage import Output
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.progress import Progress
from corpusmill.train import tasks, tuning
from corpusmill.train.checkpoint import LOG, START, CheckpointDir
from corpusmill.train.data import IGNORED, Batch, DataShare, Packed, counted_places, needed, pack, to_device, within_budget
from corpusmill.train.finetune import FinetuningJob
from corpusmill.train.losses import StepLoss, TokenObjective, summed_nats
from corpusmill.train.model import Llama
from corpusmill.train.model_folder import load_model, model_of, model_tensors, read_architecture, save_model
from corpusmill.train.options import row_length
from corpusmill.train.parallel.dims import ParallelDims
from corpusmill.train.parallel.model import ParallelModel
from corpusmill.train.sft import DROPPED_FILE, EXAMPLES_FILE, SftConfig
from corpusmill.train.template import (
    NOTHING,
    ChatEncoder,
    Encoded,
    Message,
    TemplateRefusal,
    assistant_turn,
    chat_files,
    choose_chat,
    load_chat,
    require_learnable,
    seam,
    user_turn,
)
from corpusmill.train.tuning import REPORT_FILE, StartModel
from corpusmill.train.user_files import BadRow, conversations, first_question, read_all

if TYPE_CHECKING:
    from corpusmill.pipeline.runner import StageRun

# ---- examples ----------------------------------------------------------------------------------------
#
# Examples come from the user's files, or from tasks on the run's own documents.

MESSAGES = pa.list_(pa.struct([pa.field("role", pa.string()), pa.field("content", pa.string())]))

#: The schema of `sft/data/examples.parquet`: each example and the document (or file and line) it came from.
EXAMPLES = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("url", pa.string()),
        pa.field("kind", pa.string(), nullable=False),  # title, continuation, heading; file for the user's examples
        pa.field("held_out", pa.bool_(), nullable=False),  # only measured, never learned
        pa.field("messages", MESSAGES, nullable=False),
    ]
)

#: The schema of `sft/dropped/examples.parquet`: the examples that can't be learned from, and why. A row that is no example has no messages.
DROPPED = with_columns(EXAMPLES, [pa.field("failed", pa.list_(pa.string())), pa.field("note", pa.string())])

REPORT_COLUMNS = tuning.report_schema(
    [
        pa.field("n_tokens", pa.int64()),  # of the whole conversation, before truncation
        pa.field("n_target_tokens", pa.int64()),  # learned tokens, after truncation
        pa.field("truncated", pa.bool_()),
    ]
)


@dataclass(frozen=True)
class Example(tuning.DataItem):
    """An example; a row that is none has no messages."""

    messages: list[Message]

    def turns(self) -> list[Message]:
        return self.messages


@dataclass(frozen=True)
class PreparedExample(tuning.PreparedItem):
    """An example as tokens. `tokens`: what is learned, None if it is dropped; `encoded`: the whole, before it is cut to a row."""

    tokens: Encoded | None
    encoded: Encoded
    truncated: bool

    @property
    def n_targets(self) -> int:
        return int(self.tokens.mask[1:].sum()) if self.tokens else 0


def make_examples(run: "StageRun", config: SftConfig, start: StartModel, given: Sequence[FileRef]) -> Output:
    """Makes all examples, decides which are kept, and writes a report row for each. Raises NothingKept if none is left to learn."""
    folder = start.storage
    encoder = choose_chat(folder, config.template)
    require_learnable(encoder)
    row = row_length(config.context, read_architecture(Path(folder.root)).context, "sft.context")
    if config.files:
        examples = read_examples(config.files, config.held_out)
    else:
        limits = config.examples, config.per_document, config.max_chars
        held_out = tuning.held_out_rule(run, config.held_out)
        examples = build_examples(tuning.document_tables(run), f"sft {config.seed}", *limits, held_out)
    prepared = [prepare(example, encoder, row) for example in examples]
    files = {
        EXAMPLES_FILE: tuning.items_table([p.item for p in prepared if not p.failed], EXAMPLES),
        DROPPED_FILE: dropped_table(prepared),
        REPORT_FILE: report_table(prepared),
    }
    output = tuning.made(run, "examples", given, prepared, files, [])
    output.counts["truncated"] = sum(p.truncated for p in prepared)
    if cut := sum(p.truncated for p in prepared if not p.failed):
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


def read_examples(files: Sequence[str], held_out: float) -> list[Example]:
    """Returns the examples in the user's files. The first question decides whether an example is held out."""
    return [
        Example(name, None, "file", False, [], bad=found)
        if isinstance(found, BadRow)
        else Example(name, None, "file", tasks.is_held_out(first_question(found), held_out), found)
        for name, found in read_all(files, conversations, "an example")
    ]


def prepare(example: Example, encoder: ChatEncoder, context: int) -> PreparedExample:
    """Tokenises an example and cuts it to a row of `context` places. It is dropped for one of these reasons:

    the rule of a BadRow    the row is not an example
    `template_refused`      the template refuses the conversation
    `no_answer`             the assistant has no turn
    `empty_answer`          a turn of the assistant is empty
    `too_long`              all targets lie beyond the row
    `nothing_to_learn`      there are no targets
    """
    if example.bad:
        return PreparedExample(example, [example.bad.rule or "no_example"], None, NOTHING, False, note=str(example.bad))
    try:
        encoded = encoder.encode(example.messages)
    except TemplateRefusal as refusal:
        return PreparedExample(example, ["template_refused"], None, NOTHING, False, note=str(refusal))
    truncated = len(encoded.ids) > context + 1
    tokens = Encoded(encoded.ids[: context + 1], encoded.mask[: context + 1])
    answers = [message["content"] for message in example.messages if message["role"] == "assistant"]
    failed = ["empty_answer"] if any(not answer.strip() for answer in answers) else [] if answers else ["no_answer"]
    if answers and not failed and not tokens.mask[1:].any():
        failed = ["too_long" if truncated and encoded.mask[1:].any() else "nothing_to_learn"]
    return PreparedExample(example, failed, None if failed else tokens, encoded, truncated)


def pack_examples(examples: Sequence[Example], held_out: bool, encoder: ChatEncoder, context: int) -> tuple[Packed, list[Example]]:
    """Packs the examples of one side of the held-out split that can be learned; returns the rows, and these examples in their order."""
    prepared = [prepare(example, encoder, context) for example in examples if example.held_out == held_out]
    kept = [(p.item, p.tokens) for p in prepared if p.tokens is not None]
    return pack([tokens for _, tokens in kept], context), [example for example, _ in kept]


def dropped_table(prepared: Sequence[PreparedExample]) -> pa.Table:
    dropped = [p for p in prepared if p.failed]
    return tuning.items_table([p.item for p in dropped], DROPPED, failed=[p.failed for p in dropped], note=[p.note for p in dropped])


def report_table(prepared: Sequence[PreparedExample]) -> pa.Table:
    """Returns one row for every example."""
    counts = {"n_tokens": [len(p.encoded.ids) for p in prepared], "n_target_tokens": [p.n_targets for p in prepared]}
    return tuning.report_table(prepared, REPORT_COLUMNS, truncated=[p.truncated for p in prepared], **counts)


# ---- new special tokens ------------------------------------------------------------------------------
#
# Adds rows to a model for tokens of a chat template that it did not have.
#
# A new row, of the embedding and of the head, is the mean of the rows before it. So a new token's logit is the mean of the old ones, and
# the model's distribution hardly changes (Hewitt, "Initializing New Word Embeddings for Pretrained Language Models", 2021).
# `transformers`' `resize_token_embeddings`, which TRL's `clone_chat_template` calls, draws from a normal distribution around the same
# mean, with 1e-9 of the covariance. The mean needs no random draw. Equal rows diverge at the first step, as their tokens stand in
# different places.


def with_template(config: SftConfig, start: StartModel, checkpoint_dir: CheckpointDir) -> StartModel:
    """Returns the model to tune: `start` if it has the tokenizer and template of the recipe, else a copy that has them. Raises InputError
    where an adapter would have to learn new tokens."""
    folder = start.storage
    encoder = choose_chat(folder, config.template)
    if config.lora.rank and new_ids(load_chat(folder), encoder):
        what = f"the template {config.template} needs tokens that {start.folder} lacks"
        raise InputError(f"sft.lora.rank: {what}, and an adapter can't learn them; set it to 0, or take another template.")
    if prepared_folder(folder, encoder, checkpoint_dir.folder / START) is folder:
        return start
    checkpoint_dir.keep(START)
    return replace(start, folder=Storage(checkpoint_dir.work).path(START))


def prepared_folder(parent: Storage, encoder: ChatEncoder, target: Path) -> Storage:
    """Returns the model folder to tune: `parent` if it has this tokenizer and template, else `target`, where a model with them is
    written."""
    parent_chat = load_chat(parent)
    if parent_chat.fingerprint == encoder.fingerprint:
        return parent
    model = grown(load_model(parent.root), new_ids(parent_chat, encoder))
    save_model(model, target, chat_files(encoder, model.arch.context))
    return Storage(str(target))


def new_ids(old: ChatEncoder, new: ChatEncoder) -> list[int]:
    """Returns the ids of the special tokens that only the new tokenizer has."""
    return sorted(number for token, number in new.special_ids.items() if old.tokenizer.token_to_id(token) is None)


@torch.no_grad()
def grown(model: Llama, tokens: Sequence[int]) -> Llama:
    """Returns a model in which the rows of `tokens` (ids, also beyond its vocabulary) are the mean of the others; tied heads stay tied."""
    if not tokens:
        return model
    rows = max(model.arch.vocab_size, max(tokens) + 1)
    weights = {
        name: _with_mean_rows(weight, rows, tokens) if name in ("model.embed_tokens.weight", "lm_head.weight") else weight
        for name, weight in model_tensors(model).items()
    }
    return model_of(model.arch.model_copy(update={"vocab_size": rows}), weights)


def _with_mean_rows(weight: Tensor, rows: int, tokens: Sequence[int]) -> Tensor:
    """Returns `weight` `[vocabulary, width]` with `rows` rows. The mean is taken in float64, so its rounding does not depend on order."""
    known = torch.ones(len(weight), dtype=torch.bool)
    known[[token for token in tokens if token < len(weight)]] = False
    mean = weight[known].double().mean(dim=0).to(weight.dtype)
    larger = torch.cat([weight, mean.expand(rows - len(weight), -1)])
    larger[list(tokens)] = mean
    return larger


# ---- the training ------------------------------------------------------------------------------------


def train(
    dims: ParallelDims, progress: Progress | None, config: dict[str, Any], run: str, folder: str, name: str, work: str
) -> dict[str, Any]:
    """Trains on this process. The first process writes the folder `work/model`. Returns the content of `metrics.json`."""
    examples = read_table(Storage(run).child("sft"), EXAMPLES_FILE)
    tuned = TuningJob(SftConfig.model_validate(config), StartModel(name, folder), examples, dims)
    return tuned.train(CheckpointDir(work, f"{run}/sft/{LOG}"), progress)


class TuningJob(FinetuningJob, TokenObjective):
    """The training of instruction tuning, and its objective. An example is a packed row."""

    def __init__(self, config: SftConfig, start: StartModel, examples: pa.Table, dims: ParallelDims):
        super().__init__(config, start, dims, "sft")
        given = [Example(**row) for row in examples.to_pylist()]
        self.rows, self.examples = pack_examples(given, False, self.encoder, self.context)
        self.held_out, self.held_out_examples = pack_examples(given, True, self.encoder, self.context)
        self.plan(self.rows.n_rows)

    def train(self, checkpoint_dir: CheckpointDir, progress: Progress | None = None) -> dict[str, Any]:
        """Trains, and saves the model. Returns the content of `metrics.json`."""
        result, before, after = self.fit(checkpoint_dir, progress)
        return {
            "examples": len(self.examples),
            "held_out_examples": len(self.held_out_examples),
            "rows": self.rows.n_rows,
            "row_fill": self.rows.fill,
            **self.figures(result),
            "target_tokens": result.count,
            "held_out_loss_before": before.get("loss"),
            "held_out_loss_after": after.get("loss"),
        }

    def batches(self, step: int, share: DataShare) -> Iterator[Any]:
        for rows in self.order.micro_batches(step, share):
            ids, targets, segments = self._tensors(self.rows, rows)
            yield to_device((ids, targets, segments, counted_places(targets)), self.dims.device)

    def loss(self, model: Llama, batch: Any) -> StepLoss:
        """Returns the nats of the batch's targets: the assistant's contents and end tokens."""
        ids, targets, segments, places = batch
        nats = model(ids, segments, targets=targets, read=partial(summed_nats, places=places))
        return StepLoss(nats, len(places), tokens=ids.numel())

    def of_logits(self, logits: Tensor, targets: Tensor) -> StepLoss:
        return replace(super().of_logits(logits, targets), tokens=targets.numel())

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
