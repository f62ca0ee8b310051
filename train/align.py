"""The work of the stage `align`: makes pairs, measures the reference model, trains by a preference loss."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from corpusmill.pipeline.errors import CorpusmillError
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.shards import read_table
from corpusmill.pipeline.stage import Output
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.progress import Progress
from corpusmill.train import tasks, tuning
from corpusmill.train.checkpoint import LOG, CheckpointDir
from corpusmill.train.data import IGNORED, DataShare, counted_places, needed, pack, to_device, within_budget
from corpusmill.train.loop import FitResult
from corpusmill.train.losses import LOSSES, METRICS, LossOptions, PairLogps, pair_metrics
from corpusmill.train.model import Llama, StepLoss
from corpusmill.train.parallel import ParallelDims, total
from corpusmill.train.parallel.model import ParallelModel
from corpusmill.train.sft import FinetuningJob, chat_of, settled
from corpusmill.train.template import LEARN, NOTHING, STOP, ChatEncoder, Encoded, Message, TemplateRefusal, assistant_turn, user_turn
from corpusmill.train.tuning import ITEM_COLUMNS, MESSAGES, PAIRS_FILE, REFERENCE_FREE, AlignConfig, StartModel
from corpusmill.train.user_files import preferences

# ---- pairs -------------------------------------------------------------------------------------------

#: For a pair from documents: the source of the rejected completion.
ORIGIN = [pa.field("rejected_id", pa.string()), pa.field("rejected_url", pa.string())]

#: The schema of `align/data/pairs.parquet`: each pair and the document (or file and line) it came from.
PAIRS = pa.schema([*ITEM_COLUMNS, *(pa.field(name, MESSAGES, nullable=False) for name in ("prompt", "chosen", "rejected")), *ORIGIN])


@dataclass(frozen=True)
class PreferencePair(tuning.DataItem):
    """A pair of completions. `kind`: other, repeated, shuffled, or file. `sides`: the chosen and the rejected one as
    tokens, with the prompt, and the mask on the completion."""

    prompt: list[Message] = field(default_factory=list)
    chosen: list[Message] = field(default_factory=list)
    rejected: list[Message] = field(default_factory=list)
    rejected_id: str | None = None
    rejected_url: str | None = None
    sides: tuple[Encoded, Encoded] = (NOTHING, NOTHING)
    n_chosen_tokens: int = 0
    n_rejected_tokens: int = 0
    columns: ClassVar = [
        pa.field("n_chosen_tokens", pa.int64()),  # of the completion, without the prompt
        pa.field("n_rejected_tokens", pa.int64()),
        *ORIGIN,
    ]


def prepare_pair(pair: PreferencePair, encoder: ChatEncoder, context: int) -> PreferencePair:
    """Returns a pair with its tokens. It is dropped for one of these reasons:

    the rule of a BadRow    the row is not a pair
    `template_refused`      the template refuses the conversation, or does not write the completion after the prompt
    `equal`                 both sides are the same tokens
    `empty`                 an assistant's turn in a completion is empty
    `too_long`              a whole side does not fit into `context` places; half a completion is not what was preferred
    `nothing_to_learn`      the template marks nothing in a completion
    """
    if not pair.prompt:
        return pair
    try:
        chosen, rejected = (_encode(pair.prompt, completion, encoder) for completion in (pair.chosen, pair.rejected))
    except TemplateRefusal as refusal:
        return replace(pair, failed=["template_refused"], note=str(refusal))
    sides = ("chosen", pair.chosen, chosen), ("rejected", pair.rejected, rejected)
    said = {name: [turn["content"].strip() for turn in messages if turn["role"] == "assistant"] for name, messages, _ in sides}
    fit = f"tokens with its prompt, and {context + 1:,} fit"
    notes = {
        "equal": ["chosen and rejected are the same"] if np.array_equal(chosen.ids, rejected.ids) else [],
        "empty": [f"{name} says nothing" for name, texts in said.items() if not all(texts)],
        "too_long": [f"{name} has {len(tokens.ids):,} {fit}" for name, _, tokens in sides if len(tokens.ids) > context + 1],
        "nothing_to_learn": [f"the template marks nothing of {name}" for name, _, tokens in sides if not tokens.mask.any()],
    }
    failed, note = [rule for rule, sentences in notes.items() if sentences], "; ".join(itertools.chain(*notes.values())) or None
    n_chosen, n_rejected = (int(tokens.mask.sum()) for tokens in (chosen, rejected))
    return replace(pair, failed=failed, note=note, sides=(chosen, rejected), n_chosen_tokens=n_chosen, n_rejected_tokens=n_rejected)


def _encode(prompt: list[Message], completion: list[Message], encoder: ChatEncoder) -> Encoded:
    """Encodes prompt and completion, with the mask on the completion. Where the tokenizer would join the end of the prompt with the start
    of the answer (mostly line breaks), the answer is encoded separately, because a model that answers continues the prompt's own tokens."""
    asked, answered = encoder.text(prompt, add_generation_prompt=True), encoder.text([*prompt, *completion])
    places = [place for place, character in enumerate(answered) if character not in (LEARN, STOP)]
    begin = asked.replace(LEARN, "").replace(STOP, "")
    if "".join(answered[place] for place in places[: len(begin)]) != begin:
        raise TemplateRefusal(
            f"{encoder.name}: with its completion the conversation does not begin with the prompt as it is asked "
            "(a completion begins with an assistant's turn)."
        )
    given, whole = encoder.encode_text(asked).ids, encoder.encode_text(answered)
    after = Encoded(whole.ids[len(given) :], whole.mask[len(given) :])
    if not np.array_equal(whole.ids[: len(given)], given):
        end = [*places, len(answered)][len(begin)]
        learned = answered.rfind(LEARN, 0, end) > answered.rfind(STOP, 0, end)
        after = encoder.encode_text(LEARN * learned + answered[end:])
    return Encoded(np.concatenate([given, after.ids]), np.concatenate([np.zeros(len(given), np.bool_), after.mask]))


def pairs_from_table(table: pa.Table) -> list[PreferencePair]:
    return [PreferencePair(**row) for row in table.to_pylist()]


#: Returns the pairs in the user's files (a list of paths), a share of them held out.
read_pairs = partial(tuning.read_items, PreferencePair, preferences, "a pair", "no_pair")


# ---- from documents ----------------------------------------------------------------------------------


def build_pairs(
    tables: Iterable[pa.Table], salt: str, limit: int, per_document: int, max_chars: int, held_out: Callable[[str], bool]
) -> list[PreferencePair]:
    """Returns at most `limit` pairs, at most `per_document` of one document: a true continuation against a false one of its length.

    A hash decides the kind of the false continuation: that of the next other document on the same side of the held-out split, so that
    nothing held out is learned; the first words of the true one again and again; or the words of the true one shuffled.
    """
    built = tasks.choose(tables, salt, limit, per_document, lambda source: tasks.continuation_tasks(source, max_chars))
    pairs = []
    for place, task in enumerate(built):
        held, following = held_out(task.source.id), (built[(place + step) % len(built)] for step in range(1, len(built)))
        others = (each for each in following if held_out(each.source.id) == held and each.source.id != task.source.id)
        other, choice = next(others, task), tasks.hash_of("rejected", task.source.id + task.prompt) % 4
        if choice < 2:
            kind, rejected, source = "other", tasks.cut(other.answer, max(len(task.answer), 1)), other.source
        elif choice == 2:
            kind, rejected, source = "repeated", _repeat(task.answer), task.source
        else:
            kind, rejected, source = "shuffled", _shuffle(task.answer, task.source.id), task.source
        turns = [user_turn(task.prompt)], [assistant_turn(task.answer)], [assistant_turn(rejected)]
        pairs.append(PreferencePair(task.source.id, task.source.url, kind, held, *turns, source.id, source.url))
    return pairs


def _repeat(text: str) -> str:
    """Repeats the first words up to the text's length, as a model that is stuck in a loop writes."""
    first = text[: max(8, len(text) // 6)]
    first = (first[: first.rfind(" ")] if " " in first else first) + " "
    return (first * (len(text) // len(first) + 1))[: len(text)]


def _shuffle(text: str, identifier: str) -> str:
    """Puts the words in an order by hash; the characters instead where the script has no spaces."""
    words = text.split()
    units, glue = (words, " ") if len(words) > 8 else (list(text), "")
    order = sorted(range(len(units)), key=lambda place: tasks.hash_of(identifier, f"{place} {units[place]}"))
    return glue.join(units[place] for place in order)


def make(run: StageRun, config: AlignConfig, start: StartModel, given: Sequence[FileRef]) -> Output:
    """Makes all pairs, with a report row for each. Raises NothingKept if no pair is left to learn from."""
    encoder, row = chat_of(start, config, "align")
    if config.files:
        pairs = read_pairs(config.files, config.held_out)
    else:
        limits = config.pairs, config.per_document, config.max_chars
        held_out = tuning.held_out_rule(run, config.held_out)
        pairs = build_pairs(tuning.document_tables(run), f"align {config.seed}", *limits, held_out)
    return tuning.publish_items(run, given, [prepare_pair(pair, encoder, row) for pair in pairs], PAIRS, {}, [])


# ---- batches -----------------------------------------------------------------------------------------

#: The owner of padding places. A sequence owns the places of its tokens.
NOBODY = -1


class PairBatch(NamedTuple):
    """Sequences in rows. `ids` and `segments` are int64 `[rows, T]` (segments only where a row has several sequences); `labels` int64
    `[rows, T, 2]`: for each place the target (or IGNORED) and the owner (or NOBODY).

    `places` `[n]` are those of the targets that count, `owners` `[n]` the sequences of these targets, by their numbers in the batch.
    `counts` `[sequences]`: the number of targets of each; `reference` `[sequences]`: its log-probability under the reference, or None.
    """

    ids: Tensor
    labels: Tensor
    segments: Tensor | None
    places: Tensor
    owners: Tensor
    counts: Tensor
    reference: Tensor | None


def counted(labels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns `places`, `owners` and `counts` of a batch with these `labels`, and what stands for each sequence in the labels."""
    places = counted_places(labels[..., 0])
    found, owners, counts = torch.unique(labels[..., 1].flatten()[places], return_inverse=True, return_counts=True)
    return places, owners, counts, found


@dataclass
class Numbered:
    """Numbered sequences of 2 to `context` + 1 tokens, each with a target, and how they become rows.

    The length of rows is a multiple of `multiple`, so that tensor-parallel ranks can split a row. With `fixed`, each row holds one sequence
    and is padded to the context's length, because pipeline parallelism needs micro-batches of one shape. With `few`, as on a GPU, rows are
    filled up to a power of two, and lengths to a multiple of 128: the kernels are compiled for few shapes. `reference`: the sequences'
    log-probabilities under the reference model, float32 on the CPU.
    """

    sequences: Sequence[Encoded]
    context: int
    device: torch.device = field(default_factory=partial(torch.device, "cpu"))
    multiple: int = 1
    fixed: bool = False
    few: bool = False
    reference: Tensor | None = None

    def collate(self, numbers: Sequence[int]) -> PairBatch:
        """Packs the sequences with these numbers into rows that are as short as possible, on `device`.

        At the border of two epochs a batch may hold a sequence twice, and both count: the owner of a place is the sequence's place in the
        batch * len(self.sequences) + its number.
        """
        packed = pack([self.sequences[number] for number in numbers], self.context, together=not self.fixed)
        owners = np.full(packed.ids.shape, NOBODY, np.int64)
        of_sequences = np.arange(len(numbers)) * len(self.sequences) + np.asarray(numbers)
        for row, members in enumerate(packed.members):
            owners[row] = np.append(of_sequences[members], NOBODY)[packed.segments[row]]  # a row's last segment is its padding
        width = self.context
        if not self.fixed:
            used = int(np.flatnonzero((owners != NOBODY).any(0))[-1]) + 1
            multiple = math.lcm(self.multiple, 128) if self.few else self.multiple
            width = min(used + -used % multiple, width)
        labels = np.stack([packed.targets, owners], axis=-1)
        ids, labels, segments = (np.ascontiguousarray(array[:, :width]) for array in (packed.ids, labels, packed.segments))
        if self.few and (empty := (1 << (len(ids) - 1).bit_length()) - len(ids)):
            ids, segments = (np.pad(array, ((0, empty), (0, 0))) for array in (ids, segments))
            labels = np.concatenate([labels, np.full_like(labels, [IGNORED, NOBODY], shape=(empty, *labels.shape[1:]))])
        rows = torch.from_numpy(ids), torch.from_numpy(labels), needed(torch.from_numpy(segments))
        reference = None if self.reference is None else self.reference[list(numbers)]
        return PairBatch(*to_device((*rows, *counted(rows[1])[:3], reference), self.device))

    def size(self, number: int) -> int:
        """Returns the places that a sequence takes."""
        return self.context if self.fixed else len(self.sequences[number].ids) - 1


def summed_logps(nats: Tensor, owners: Tensor, counts: Tensor) -> Tensor:
    """Returns the log-probabilities `[sequences]` of a batch's sequences from the nats `[n]` of the targets that count, in their type."""
    return torch.zeros(len(counts), dtype=nats.dtype, device=nats.device).index_add(0, owners, -nats)


def measured_logps(model: ParallelModel, batch: PairBatch) -> Tensor:
    """Returns the log-probabilities `[sequences]` of a batch's sequences, without gradients."""
    nats = model.nats(batch.ids, batch.labels[..., 0], batch.segments).flatten()[batch.places]
    return summed_logps(nats, batch.owners, batch.counts)


# ---- the training ------------------------------------------------------------------------------------


def train(
    dims: ParallelDims, progress: Progress | None, config: dict[str, Any], run: str, folder: str, name: str, work: str
) -> dict[str, Any]:
    """Trains on this process. The first process writes the folder `work/model`. Returns the content of `metrics.json`."""
    pairs, checkpoint_dir = read_table(Storage(run).child("align"), PAIRS_FILE), CheckpointDir(work, f"{run}/align/{LOG}")
    options = settled(AlignConfig.model_validate(config), dims, checkpoint_dir)
    return AlignmentJob(options, StartModel(name, folder), pairs, dims).train(checkpoint_dir, progress)


class AlignmentJob(FinetuningJob):
    """The training of alignment, and its objective: DPO and its relatives, ORPO, SimPO. Pair n is the sequences 2n (chosen) and 2n + 1
    (rejected)."""

    def __init__(self, config: AlignConfig, start: StartModel, pairs: pa.Table, dims: ParallelDims):
        super().__init__(config, start, dims, "align")
        self.config: AlignConfig = config
        prepared = [prepare_pair(pair, self.encoder, self.context) for pair in pairs_from_table(pairs)]
        self.pairs, self.held_out_pairs = ([pair for pair in prepared if pair.held_out == side] for side in (False, True))
        self.plan(len(self.pairs))
        gpu, pipeline = dims.device.type == "cuda", dims.config.pipeline > 1
        self.sides, self.held_out = (
            Numbered([side for pair in some for side in pair.sides], self.context, dims.device, dims.config.tensor, pipeline, gpu)
            for some in (self.pairs, self.held_out_pairs)
        )
        self.preference_loss = LOSSES[config.loss]
        self.options = LossOptions(config.beta, config.label_smoothing, config.gamma)
        self.needs_reference = config.loss not in REFERENCE_FREE
        self.metrics = ("preference_loss", *(name for name in METRICS if self.needs_reference or name != "kl"))

    def measure_reference(self, parallel_model: ParallelModel) -> None:
        """Measures the log-probabilities under the reference model, once, as it never changes: it is the model before training. Raises
        CorpusmillError if one is not finite.

        The batches are the micro-batches of the first epoch, so that on one process the first log-ratios are exactly 0.
        """
        held_out = ((pairs, len(pairs)) for pairs in self._held_out_batches())
        first = self.dims.index("tensor") == self.dims.index("pipeline") == 0  # of the processes that compute the same rows
        of_both = (self.sides, self.order.first_epoch(self.dims.share), first), (self.held_out, held_out, self.dims.is_main)
        for sides, batches, counts in of_both if self.needs_reference else ():
            sums = torch.zeros(len(sides.sequences), dtype=torch.float64)
            for pairs, count in batches:  # `count`: how many of the first pairs belong to this epoch
                numbers = _sides(pairs)
                sums[numbers[: 2 * count]] = measured_logps(parallel_model, sides.collate(numbers)).double().cpu()[: 2 * count]
            sides.reference = total(sums if counts else torch.zeros_like(sums), self.dims).float()
            if not sides.reference.isfinite().all():
                raise CorpusmillError("align: the reference model gives log-probabilities that are not finite; its weights are damaged.")

    def figures(self, result: FitResult) -> dict[str, Any]:
        return {
            "pairs": len(self.pairs),
            "held_out_pairs": len(self.held_out_pairs),
            "loss": self.config.loss,
            "beta": self.config.beta,
            "held_out_before": self.before or None,
            "held_out_after": self.after or None,
        }

    def batches(self, step: int, share: DataShare) -> Iterator[PairBatch]:
        for numbers in self.order.micro_batches(step, share):
            yield self.sides.collate(_sides(numbers))

    def loss(self, model: Llama, batch: Any) -> StepLoss:
        """Returns the sum of the pairs' losses. The log shows means per pair, and `preference_loss`, the loss without the NLL term."""
        ids, labels, segments, places, owners, counts, reference = batch
        nats = model(ids, segments, targets=labels[..., 0], places=places)
        logps = _pairs(summed_logps(nats, owners, counts), counts, reference)
        losses = self.preference_loss(logps, self.options)
        measured = {"preference_loss": losses.detach(), **pair_metrics(logps, self.options)}
        if self.config.nll_weight:
            losses = losses - self.config.nll_weight * logps.means[0]
        tokens = (labels[..., 1] != NOBODY).sum()
        return StepLoss(losses.sum(), len(losses), {name: values.sum() for name, values in measured.items()}, tokens)

    def describe(self, step: int, share: DataShare, number: int) -> list[str]:
        return [self.pairs[pair].id for pair in self.order.micro_batches(step, share)[number]]

    @torch.no_grad()
    def measure(self, parallel_model: ParallelModel) -> dict[str, float]:
        """Returns means over the held-out pairs, the same on every process; nothing without any.

        `accuracy` compares with the reference (0 before training). `preference_accuracy` is the share of pairs whose chosen completion has
        the higher log-probability per token.
        """
        sums: dict[str, float] = {}
        for numbers in self._held_out_batches():
            batch = self.held_out.collate(_sides(numbers))
            logps = _pairs(measured_logps(parallel_model, batch), batch.counts, batch.reference)
            values = {"loss": self.preference_loss(logps, self.options), **pair_metrics(logps, self.options)}
            values["preference_accuracy"] = logps.means[0] > logps.means[1]
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + float(value.double().sum())
        return {name: total / len(self.held_out_pairs) for name, total in sums.items()}

    def _held_out_batches(self) -> Iterator[list[int]]:
        """Yields the numbers of held-out pairs in batches."""
        return within_budget([self.held_out.size(2 * pair) + self.held_out.size(2 * pair + 1) for pair in range(len(self.held_out_pairs))])


def _pairs(sums: Tensor, counts: Tensor, reference: Tensor | None) -> PairLogps:
    """Makes pairs of the values `[2 pairs]` of their sequences."""
    return PairLogps(sums.view(-1, 2).T, None if reference is None else reference.view(-1, 2).T, counts.float().view(-1, 2).T)


def _sides(pairs: Sequence[int]) -> list[int]:
    return [2 * pair + side for pair in pairs for side in (0, 1)]
