"""The work of the stage `sft`: makes packed rows of examples, adds rows for new tokens to a model, trains, measures."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from corpusmill.pipeline.safe import safe_line
from corpusmill.pipeline.schemas import REPORT, with_columns
from corpusmill.pipeline.shards import read_table
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.progress import Progress
from corpusmill.train import tasks
from corpusmill.train.checkpoint_dir import LOG, CheckpointDir
from corpusmill.train.data import IGNORED, Batch, DataShare, Order, Packed, counted_places, in_turn, needed, pack, steps_of, to_device
from corpusmill.train.finetune import start_from, train_job
from corpusmill.train.losses import StepLoss, TokenObjective, summed_nats
from corpusmill.train.model import Llama
from corpusmill.train.model_folder import load_model, model_of, model_tensors, save_model
from corpusmill.train.parallel.dims import ParallelDims
from corpusmill.train.parallel.model import ParallelModel
from corpusmill.train.sft import EXAMPLES_FILE, SftConfig
from corpusmill.train.template import ChatEncoder, Encoded, Message, TemplateRefusal, assistant_turn, chat_files, load_chat, user_turn
from corpusmill.train.tuning import StartModel
from corpusmill.train.user_files import BadRow, UserRow, first_question, read_all, read_instruction, read_messages, read_text

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

REPORT_COLUMNS = with_columns(
    REPORT,
    [
        pa.field("kind", pa.string()),
        pa.field("held_out", pa.bool_()),
        pa.field("n_tokens", pa.int64()),  # of the whole conversation, before truncation
        pa.field("n_target_tokens", pa.int64()),  # learned tokens, after truncation
        pa.field("truncated", pa.bool_()),
        pa.field("note", pa.string()),  # why it was dropped, where the rule's name does not say it all
    ],
)


@dataclass(frozen=True)
class Example:
    """An example. Where a file's row is not one, `bad` has the reason, and there are no messages."""

    id: str
    url: str | None
    kind: str
    held_out: bool
    messages: list[Message]
    bad: BadRow | None = None


@dataclass(frozen=True)
class Prepared:
    """An example as tokens. `failed`: the reasons why it is dropped; `tokens` are then None. `encoded`: the whole, before truncation."""

    example: Example
    tokens: Encoded | None
    failed: list[str]
    encoded: Encoded
    truncated: bool
    note: str | None = None

    @property
    def n_tokens(self) -> int:
        return len(self.encoded.ids)

    @property
    def n_targets(self) -> int:
        return int(self.tokens.mask[1:].sum()) if self.tokens else 0


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
    """Returns an example for every row of the user's files. The first question decides whether an example is held out."""
    return read_all(files, partial(_example, held_out), "an example")


def _example(held_out: float, place: str, row: UserRow | BadRow) -> Example:
    try:
        if isinstance(row, BadRow):
            raise row
        messages = example_messages(place, row)
    except BadRow as bad:
        return Example(place, None, "file", False, [], bad)
    return Example(place, None, "file", tasks.is_held_out(first_question(messages), held_out), messages)


def example_messages(place: str, row: UserRow) -> list[Message]:
    """Returns the conversation in a row of any usual format. Raises BadRow, which names `place`."""
    for key in ("messages", "conversations", "conversation"):
        if row.get(key) is not None:
            return read_messages(place, row[key])
    if row.get("instruction") is not None and row.get("output") is not None:
        return [user_turn(read_instruction(place, row)), assistant_turn(read_text(place, row, "output"))]
    if row.get("prompt") is not None and row.get("completion") is not None:
        return _turns(place, row, "prompt", user_turn) + _turns(place, row, "completion", assistant_turn)
    raise BadRow(
        f"{place}: no example that can be learned from: expected `messages` (or `conversations`), `instruction` and `output`, or "
        f"`prompt` and `completion`; it has {safe_line(', '.join(sorted(row)), 200) or 'nothing'}."
    )


def _turns(place: str, row: UserRow, key: str, turn: Callable[[str], Message]) -> list[Message]:
    """Reads a field that holds one turn's text, or a list of messages."""
    return read_messages(place, row[key]) if isinstance(row[key], list) else [turn(read_text(place, row, key))]


def prepare(example: Example, encoder: ChatEncoder, context: int) -> Prepared:
    """Tokenises an example and cuts it to a row of `context` places. It is dropped for one of these reasons:

    the rule of a BadRow    the row is not an example
    `template_refused`      the template refuses the conversation
    `no_answer`             the assistant has no turn
    `empty_answer`          a turn of the assistant is empty
    `too_long`              all targets lie beyond the model's context
    `nothing_to_learn`      there are no targets
    """
    none = Encoded(np.zeros(0, np.int32), np.zeros(0, np.bool_))
    if example.bad:
        return Prepared(example, None, [example.bad.rule], none, False, str(example.bad))
    try:
        encoded = encoder.encode(example.messages)
    except TemplateRefusal as refusal:
        return Prepared(example, None, ["template_refused"], none, False, str(refusal))
    truncated = len(encoded.ids) > context + 1
    tokens = Encoded(encoded.ids[: context + 1], encoded.mask[: context + 1])
    answers = [message["content"] for message in example.messages if message["role"] == "assistant"]
    failed = ["empty_answer"] if any(not answer.strip() for answer in answers) else [] if answers else ["no_answer"]
    if answers and not failed and not tokens.mask[1:].any():
        failed = ["too_long" if truncated and encoded.mask[1:].any() else "nothing_to_learn"]
    return Prepared(example, None if failed else tokens, failed, encoded, truncated)


def examples_table(examples: Sequence[Example]) -> pa.Table:
    columns = {name: [getattr(example, name) for example in examples] for name in EXAMPLES.names}
    return pa.table(columns, EXAMPLES)


def dropped_table(prepared: Sequence[Prepared]) -> pa.Table:
    dropped = [p for p in prepared if p.failed]
    columns = {name: [getattr(p.example, name) for p in dropped] for name in EXAMPLES.names}
    return pa.table({**columns, "failed": [p.failed for p in dropped], "note": [p.note for p in dropped]}, DROPPED)


def report_table(prepared: Sequence[Prepared]) -> pa.Table:
    """Returns one row for every example: REPORT's columns and the counts."""
    chars = [sum(len(m["content"]) for m in p.example.messages) for p in prepared]
    return pa.table(
        {
            "id": [p.example.id for p in prepared],
            "url": [p.example.url for p in prepared],
            "kept": [not p.failed for p in prepared],
            "failed": [p.failed for p in prepared],
            "chars_in": chars,
            "chars_out": [0 if p.failed else count for p, count in zip(prepared, chars, strict=True)],
            "kind": [p.example.kind for p in prepared],
            "held_out": [p.example.held_out for p in prepared],
            "n_tokens": [p.n_tokens for p in prepared],
            "n_target_tokens": [p.n_targets for p in prepared],
            "truncated": [p.truncated for p in prepared],
            "note": [p.note for p in prepared],
        },
        REPORT_COLUMNS,
    )


# ---- new special tokens ------------------------------------------------------------------------------
#
# Adds rows to a model for tokens of a chat template that it did not have.
#
# A new row, of the embedding and of the head, is the mean of the rows before it. So a new token's logit is the mean of the old ones, and
# the model's distribution hardly changes (Hewitt, "Initializing New Word Embeddings for Pretrained Language Models", 2021).
# `transformers`' `resize_token_embeddings`, which TRL's `clone_chat_template` calls, draws from a normal distribution around the same
# mean, with 1e-9 of the covariance. The mean needs no random draw. Equal rows diverge at the first step, as their tokens stand in
# different places.


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


class TuningJob(TokenObjective):
    """The objective of tuning: a model, its examples as packed rows, and the configuration."""

    def __init__(self, config: SftConfig, start: StartModel, examples: pa.Table, dims: ParallelDims):
        self.config, self.start, self.dims = config, start, dims
        self.encoder = load_chat(start.storage)
        self.model = start_from(start.folder, dims, config, "sft")
        given = [Example(**row) for row in examples.to_pylist()]
        self.rows, self.examples = self._pack([example for example in given if not example.held_out])
        self.held_out, self.held_out_examples = self._pack([example for example in given if example.held_out])
        self.order = Order(self.rows.n_rows, config.batch, config.micro_batch, config.seed)
        steps = min(config.loop.steps, steps_of(config.epochs, config.batch, self.rows.n_rows))
        self.loop = config.loop.model_copy(update={"steps": steps})

    def _pack(self, examples: list[Example]) -> tuple[Packed, list[Example]]:
        context = self.model.arch.context
        prepared = [prepare(example, self.encoder, context) for example in examples]
        kept = [(p.example, p.tokens) for p in prepared if p.tokens is not None]
        return pack([tokens for _, tokens in kept], context), [example for example, _ in kept]

    def train(self, checkpoint_dir: CheckpointDir, progress: Progress | None = None) -> dict[str, Any]:
        """Trains, and saves the model. Returns the content of `metrics.json`."""
        result, before, after = train_job(self, self, checkpoint_dir, progress, "sft")
        return {
            "examples": len(self.examples),
            "held_out_examples": len(self.held_out_examples),
            "rows": self.rows.n_rows,
            "row_fill": self.rows.fill,
            "steps": result.steps,
            "skipped_steps": result.skipped,
            "target_tokens": result.count,
            "train_loss": result.loss,
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

    def describe(self, step: int, share: DataShare, number: int) -> list[str]:
        """Returns the ids of the examples in a micro-batch, for the log of skipped steps."""
        return [self.examples[example].id for row in self.order.micro_batches(step, share)[number] for example in self.rows.members[row]]

    @torch.no_grad()
    def measure(self, parallel_model: ParallelModel) -> dict[str, float]:
        """Returns `loss`: nats per target over the held-out examples; nothing without any."""
        total, count = 0.0, 0
        for rows in in_turn(self.held_out.n_rows):
            ids, targets, segments = to_device(self._tensors(self.held_out, rows), self.dims.device)
            total += float(parallel_model.nats(ids, targets, segments).double().sum())
            count += int((targets != IGNORED).sum())
        return {"loss": total / count} if count else {}

    def _tensors(self, packed: Packed, rows: list[int]) -> Batch:
        ids, targets, segments = (torch.from_numpy(values[rows]) for values in (packed.ids, packed.targets, packed.segments))
        return ids, targets, needed(segments)
