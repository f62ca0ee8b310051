"""The work of the stage `align`: log-probabilities under model and reference, and the training."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from corpusmill.pipeline.cache import local_model
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.shards import read_table
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.progress import Progress
from corpusmill.train.align import PAIRS_FILE, REFERENCE_FREE, AlignConfig
from corpusmill.train.align_pairs import pairs_from_table, prepare_pair
from corpusmill.train.checkpoint import LOG, CheckpointDir
from corpusmill.train.compute import deterministic
from corpusmill.train.data import IGNORED, DataShare, counted_places, needed, pack, to_device, within_budget
from corpusmill.train.finetune import FinetuningJob
from corpusmill.train.losses import LOSSES, METRICS, LossOptions, PairLogps, StepLoss, pair_metrics, target_nats, token_nats
from corpusmill.train.model import Llama
from corpusmill.train.model_folder import load_model
from corpusmill.train.parallel.dims import ParallelDims, total
from corpusmill.train.parallel.model import ParallelModel
from corpusmill.train.template import ChatEncoder, Encoded, load_chat
from corpusmill.train.tuning import StartModel

# ---- rows and sums -----------------------------------------------------------------------------------

#: The owner of padding places. A sequence owns the places of its tokens.
NOBODY = -1


@dataclass(frozen=True)
class LabelledRows:
    """Sequences in rows: ids and segments int64 `[rows, T]` (segments only where a row has several sequences); labels int64 `[rows, T, 2]`,
    for each place the target (or IGNORED) and the owner (or NOBODY)."""

    ids: Tensor
    labels: Tensor
    segments: Tensor | None

    @property
    def targets(self) -> Tensor:
        return self.labels[..., 0]


@dataclass(frozen=True)
class SequenceLogps:
    """For each sequence of a batch, in its order: the owner of its places, log p summed over its targets (fp32, or float64 as the nats
    are), and the number of its targets; `[sequences]` each."""

    owners: Tensor
    sums: Tensor
    counts: Tensor


@dataclass(frozen=True)
class Numbered:
    """Numbered sequences of 2 to `context` + 1 tokens, each with a target, and how they become rows.

    The length of rows is a multiple of `multiple`, so that tensor-parallel ranks can split a row. With `fixed`, each row holds one sequence
    and is padded to the context's length, because pipeline parallelism needs micro-batches of one shape. With `few`, as on a GPU, rows are
    filled up to a power of two, and lengths to a multiple of 128: the kernels are compiled for few shapes.
    """

    sequences: Sequence[Encoded]
    context: int
    device: torch.device | str = "cpu"
    multiple: int = 1
    fixed: bool = False
    few: bool = False

    def collate(self, numbers: Sequence[int], device: torch.device | None = None) -> LabelledRows:
        """Packs the sequences with these numbers into rows that are as short as possible, on `device` (None: the one of `self`).

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
        batch = torch.from_numpy(ids), torch.from_numpy(labels), needed(torch.from_numpy(segments))
        return LabelledRows(*to_device(batch, torch.device(device or self.device)))

    def numbers(self, owners: Tensor) -> Tensor:
        """Returns the numbers of the sequences that own places in a batch."""
        return owners % len(self.sequences)

    def size(self, number: int) -> int:
        """Returns the places that a sequence takes."""
        return self.context if self.fixed else len(self.sequences[number].ids) - 1


def by_sequence(nats: Tensor, labels: Tensor) -> SequenceLogps:
    """Sums the nats `[n]` of the targets that count, in order of rows and places, for each sequence."""
    owners, places = torch.unique(labels[..., 1][labels[..., 0] != IGNORED], return_inverse=True)
    sums = torch.zeros(len(owners), dtype=nats.dtype, device=nats.device).index_add(0, places, -nats)
    return SequenceLogps(owners, sums, torch.bincount(places, minlength=len(owners)))


def measured_logps(parallel_model: ParallelModel, batch: LabelledRows) -> SequenceLogps:
    """Returns the log-probabilities of a batch's sequences, without gradients."""
    nats = parallel_model.nats(batch.ids, batch.targets, batch.segments)
    return by_sequence(nats[batch.targets != IGNORED], batch.labels)


# ---- the reference model -----------------------------------------------------------------------------
#
# The reference model never changes, so its log-probabilities are measured once, before the first step.


def reference_logps(model: ParallelModel, sequences: Numbered, batches: Iterable[tuple[list[int], int]], dims: ParallelDims) -> Tensor:
    """Returns the model's log-probability of each of the `sequences`, summed over its targets: float32 `[sequences]`, on the CPU.

    `batches` are this process's share: the numbers of pairs, and how many of the first of them are measured; equal batches give equal
    bits. Raises CorpusmillError if a sum is not finite.
    """
    sums = torch.zeros(len(sequences.sequences), dtype=torch.float64)
    first = dims.index("tensor") == dims.index("pipeline") == 0  # of the processes with this share, only the first measures
    for pairs, count in batches if first else ():
        numbers = _sides(pairs)
        logps = measured_logps(model, sequences.collate(numbers))
        sums[numbers[: 2 * count]] = logps.sums.double().cpu()[: 2 * count]
    found = total(sums, dims).float()
    if not found.isfinite().all():
        raise CorpusmillError("align: the reference model gives log-probabilities that are not finite; its weights are damaged.")
    return found


def other_model(folder: str, encoder: ChatEncoder, context: int, device: torch.device) -> Llama:
    """Loads a reference model from a given folder. Raises InputError if its vocabulary is not that of `encoder`, or its context is
    shorter than a row."""
    model = load_model(folder, device)
    vocabulary = encoder.tokenizer.get_vocab()
    here = Storage(str(local_model(folder)))
    if here.exists("tokenizer.json"):
        same = load_chat(here).tokenizer.get_vocab() == vocabulary
    else:
        same = model.arch.vocab_size > max(vocabulary.values())
    if not same:
        raise InputError(
            f"align.reference: {folder} has another vocabulary than the model that is aligned, so its tokens are not comparable."
        )
    if model.arch.context < context:
        raise InputError(f"align.reference: {folder} has a context of {model.arch.context} tokens, and a row of pairs has {context}.")
    return model


# ---- the training ------------------------------------------------------------------------------------


def train(
    dims: ParallelDims, progress: Progress | None, config: dict[str, Any], run: str, folder: str, name: str, work: str
) -> dict[str, Any]:
    """Trains on this process. The first process writes the folder `work/model`. Returns the content of `metrics.json`."""
    pairs = read_table(Storage(run).child("align"), PAIRS_FILE)
    aligned = AlignmentJob(AlignConfig.model_validate(config), StartModel(name, folder), pairs, dims)
    with deterministic(aligned.loop.threads):
        aligned.measure_reference()
    return aligned.train(CheckpointDir(work, f"{run}/align/{LOG}"), progress)


class AlignmentJob(FinetuningJob):
    """The training of alignment, and its objective: DPO and its relatives, ORPO, SimPO. Pair n is the sequences 2n (chosen) and 2n + 1
    (rejected).

    A batch is `(ids, labels, segments, places, owners, counts, reference)`: see `LabelledRows` and `counted_places`; for each counted
    target the place of its sequence among those of the batch; for each sequence the number of its targets, and its log-probability under
    the reference (or None)."""

    def __init__(self, config: AlignConfig, start: StartModel, pairs: pa.Table, dims: ParallelDims):
        super().__init__(config, start, dims, "align")
        self.config: AlignConfig = config
        prepared = [prepare_pair(pair, self.encoder, self.context) for pair in pairs_from_table(pairs)]
        self.pairs, self.held_out_pairs = ([p for p in prepared if p.item.held_out == side] for side in (False, True))
        self.plan(len(self.pairs))
        gpu, pipeline = dims.device.type == "cuda", dims.config.pipeline > 1
        self.sides, self.held_out = (
            Numbered([side for p in some for side in (p.chosen, p.rejected)], self.context, dims.device, dims.config.tensor, pipeline, gpu)
            for some in (self.pairs, self.held_out_pairs)
        )
        self.preference_loss = LOSSES[config.loss]
        self.options = LossOptions(config.beta, config.label_smoothing, config.gamma)
        self.needs_reference = config.loss not in REFERENCE_FREE
        self.reference: Tensor | None = None
        self.held_out_reference: Tensor | None = None
        self.metrics = ("preference_loss", *(name for name in METRICS if self.needs_reference or name != "kl"))

    def measure_reference(self) -> None:
        """Measures the reference's log-probabilities. The reference is the model before training, unless the recipe names another.

        The batches are the micro-batches of the first epoch, so that on one process the first log-ratios are exactly 0.
        """
        if not self.needs_reference:
            return
        named, share = self.config.reference, self.dims.share
        plain = self.model if named is None else other_model(named, self.encoder, self.context, self.dims.device)
        model = ParallelModel(plain, self.loop.precision)
        self.reference = reference_logps(model, self.sides, self.order.first_epoch(share), self.dims)
        batches = [(pairs, len(pairs)) for pairs in self._held_out_batches()][share.index :: share.of]
        self.held_out_reference = reference_logps(model, self.held_out, batches, self.dims)

    def train(self, checkpoint_dir: CheckpointDir, progress: Progress | None = None) -> dict[str, Any]:
        """Trains, and saves the model. Returns the content of `metrics.json`."""
        result, before, after = self.fit(checkpoint_dir, progress)
        return {
            "pairs": len(self.pairs),
            "held_out_pairs": len(self.held_out_pairs),
            "loss": self.config.loss,
            "beta": self.config.beta,
            **self.figures(result),
            "held_out_before": before or None,
            "held_out_after": after or None,
        }

    def batches(self, step: int, share: DataShare) -> Iterator[Any]:
        for numbers in self.order.micro_batches(step, share):
            batch = self.sides.collate(_sides(numbers), torch.device("cpu"))
            places = counted_places(batch.targets)
            found, owners, counts = torch.unique(batch.labels[..., 1].flatten()[places], return_inverse=True, return_counts=True)
            reference = None if self.reference is None else self.reference[self.sides.numbers(found)]
            yield to_device((batch.ids, batch.labels, batch.segments, places, owners, counts, reference), self.dims.device)

    def loss(self, model: Llama, batch: Any) -> StepLoss:
        """Returns the sum of the pairs' losses. The log shows means per pair, and `preference_loss`, the loss without the NLL term."""
        ids, labels, segments, places, owners, counts, reference = batch
        nats = model(ids, segments, targets=labels[..., 0], read=partial(target_nats, places=places))
        sums = torch.zeros(len(counts), dtype=nats.dtype, device=nats.device).index_add(0, owners, -nats)
        return self._of_pairs(_pairs(sums, counts, reference), labels)

    def of_logits(self, logits: Tensor, labels: Tensor) -> StepLoss:
        """Returns the same loss on the last stage of a pipeline."""
        targets = labels[..., 0]
        logps = by_sequence(token_nats(logits, targets)[targets != IGNORED], labels)
        return self._of_pairs(_pair_logps(logps, self.sides, self.reference), labels)

    def _of_pairs(self, logps: PairLogps, labels: Tensor) -> StepLoss:
        losses = self.preference_loss(logps, self.options)
        measured = {"preference_loss": losses.detach(), **pair_metrics(logps, self.options)}
        if self.config.nll_weight:
            losses = losses - self.config.nll_weight * logps.mean_chosen
        tokens = (labels[..., 1] != NOBODY).sum()
        return StepLoss(losses.sum(), len(losses), {name: values.sum() for name, values in measured.items()}, tokens)

    def describe(self, step: int, share: DataShare, number: int) -> list[str]:
        return [self.pairs[pair].item.id for pair in self.order.micro_batches(step, share)[number]]

    @torch.no_grad()
    def measure(self, parallel_model: ParallelModel) -> dict[str, float]:
        """Returns means over the held-out pairs, the same on every process; nothing without any.

        `accuracy` compares with the reference (0 before training). `preference_accuracy` is the share of pairs whose chosen completion has
        the higher log-probability per token.
        """
        sums: dict[str, float] = {}
        for numbers in self._held_out_batches():
            batch = self.held_out.collate(_sides(numbers))
            logps = _pair_logps(measured_logps(parallel_model, batch), self.held_out, self.held_out_reference)
            values = {"loss": self.preference_loss(logps, self.options), **pair_metrics(logps, self.options)}
            values["preference_accuracy"] = logps.mean_chosen > logps.mean_rejected
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + float(value.double().sum())
        return {name: total / len(self.held_out_pairs) for name, total in sums.items()}

    def _held_out_batches(self) -> Iterator[list[int]]:
        """Yields the numbers of held-out pairs in batches."""
        return within_budget([self.held_out.size(2 * pair) + self.held_out.size(2 * pair + 1) for pair in range(len(self.held_out_pairs))])


def _pair_logps(logps: SequenceLogps, sides: Numbered, reference: Tensor | None) -> PairLogps:
    of_owners = None if reference is None else reference[sides.numbers(logps.owners).cpu()].to(logps.sums.device)
    return _pairs(logps.sums, logps.counts, of_owners)


def _pairs(sums: Tensor, counts: Tensor, reference: Tensor | None) -> PairLogps:
    """Makes pairs of the values `[2 pairs]` of their sequences."""
    (chosen, rejected), (chosen_tokens, rejected_tokens) = (values.view(-1, 2).T for values in (sums, counts.float()))
    of_chosen, of_rejected = (None, None) if reference is None else reference.view(-1, 2).T
    return PairLogps(chosen, rejected, of_chosen, of_rejected, chosen_tokens, rejected_tokens)


def _sides(pairs: Sequence[int]) -> list[int]:
    return [2 * pair + side for pair in pairs for side in (0, 1)]
