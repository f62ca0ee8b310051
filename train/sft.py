"""The work of the stage `sft`: makes examples, trains on packed rows of them, measures."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

import pyarrow as pa
import torch

from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.schemas import with_columns
from corpusmill.pipeline.shards import read_table
from corpusmill.pipeline.stage import Output
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.progress import Progress
from corpusmill.train import tasks, tuning
from corpusmill.train.checkpoint import LOG, CheckpointDir
from corpusmill.train.data import IGNORED, Batch, DataShare, Packed, counted_places, needed, pack, to_device, within_budget
from corpusmill.train.finetune import FinetuningJob, chat_of
from corpusmill.train.loop import FitResult
from corpusmill.train.losses import StepLoss, TokenObjective, summed_nats
from corpusmill.train.model import Llama
from corpusmill.train.parallel import ParallelDims
from corpusmill.train.parallel.model import ParallelModel
from corpusmill.train.template import NOTHING, ChatEncoder, Encoded, Message, TemplateRefusal, assistant_turn, seam, user_turn
from corpusmill.train.tuning import DROPPED_FILE, EXAMPLES_FILE, ITEM_COLUMNS, MESSAGES, SftConfig, StartModel
from corpusmill.train.user_files import conversations

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
    output = tuning.publish_items(run, "examples", given, examples, (EXAMPLES_FILE, EXAMPLES), dropped, [])
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
    examples = read_table(Storage(run).child("sft"), EXAMPLES_FILE)
    job = TuningJob(SftConfig.model_validate(config), StartModel(name, folder), examples, dims)
    return job.train(CheckpointDir(work, f"{run}/sft/{LOG}"), progress)


class TuningJob(FinetuningJob, TokenObjective):
    """The training of instruction tuning, and its objective. An example is a packed row."""

    def __init__(self, config: SftConfig, start: StartModel, examples: pa.Table, dims: ParallelDims):
        super().__init__(config, start, dims, "sft")
        given = [Example(**row) for row in examples.to_pylist()]
        self.rows, self.examples = pack_examples(given, False, self.encoder, self.context)
        self.held_out, self.held_out_examples = pack_examples(given, True, self.encoder, self.context)
        self.plan(self.rows.n_rows)

    def figures(self, result: FitResult, before: dict[str, float], after: dict[str, float]) -> dict[str, Any]:
        return {
            "examples": len(self.examples),
            "held_out_examples": len(self.held_out_examples),
            "rows": self.rows.n_rows,
            "row_fill": self.rows.fill,
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
