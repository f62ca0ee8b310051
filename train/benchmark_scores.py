"""Scores a model folder on a benchmark: encodes items, computes log-likelihoods of choices, makes a row for each item."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
import torch.nn.functional as F
from torch import Tensor

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.special_tokens import END_OF_TEXT
from corpusmill.train.benchmarks import TASKS, Item, ItemSet, chance, scores
from corpusmill.train.compute import deterministic
from corpusmill.train.evaluate import TaskConfig
from corpusmill.train.generate import TextGenerator, load_text_generator, read_settings
from corpusmill.train.model import KVCache, Llama

# ---- items as tokens ---------------------------------------------------------------------------------
#
# Finds the border between context and continuation, and cuts both to the model's context.

CONFIG = "tokenizer_config.json"
#: The number of texts that are encoded at a time.
TEXTS = 4096


@dataclass(frozen=True)
class ScoredSequence:
    """Ids, at most one more than the context; the last `count` are scored. `cut`: whether the beginning did not fit."""

    ids: npt.NDArray[np.int64]
    count: int
    cut: bool


class ItemEncoder:
    """Encodes items with a model folder's tokenizer, in the way of lm-evaluation-harness."""

    def __init__(self, generator: TextGenerator):
        self.tokenizer, self.context = generator.tokenizer, generator.model.arch.context
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.prefix = prefix_token(generator.folder, self.tokenizer)

    def encode(self, texts: Sequence[str], special: bool = True) -> list[list[int]]:
        """Returns the ids of texts. `special`: with the tokens that the tokenizer itself puts around a text."""
        found: list[list[int]] = []
        for begin in range(0, len(texts), TEXTS):  # in batches, as the library's other results are large and are dropped
            some = list(texts[begin : begin + TEXTS])
            found += [encoding.ids for encoding in self.tokenizer.encode_batch_fast(some, add_special_tokens=special)]
        return found

    def pairs(self, pairs: Sequence[tuple[str, str]]) -> list[ScoredSequence]:
        """Encodes pairs of (context, continuation). Spaces at a context's end are moved to the continuation. Both are encoded as one text;
        the continuation begins after as many ids as the context alone has. The model's first token stands in for an empty context."""
        moved = [(context.rstrip(), context[len(context.rstrip()) :] + continuation) for context, continuation in pairs]
        contexts = list(dict.fromkeys(context for context, _ in moved if context))
        lengths = dict(zip(contexts, map(len, self.encode(contexts)), strict=True))
        alone = iter(self.encode([continuation for context, continuation in moved if not context], special=False))
        whole = iter(self.encode([context + continuation for context, continuation in moved if context]))
        found = []
        for context, continuation in moved:
            if context:
                ids, before = next(whole), lengths[context]
            else:
                ids, before = next(alone), 1
                if ids[:1] != [self.prefix]:
                    ids = [self.prefix, *ids]
            if len(ids) <= before or not before:
                raise InputError(f"evaluate: the continuation {continuation[:40]!r} has no token of its own after {context[-40:]!r}.")
            found.append(self.fitted(ids, len(ids) - before))
        return found

    def fitted(self, ids: Sequence[int], count: int) -> ScoredSequence:
        """Cuts ids to the end that fits: one more than the context, as the last id is only a target."""
        kept = np.array(ids[-(self.context + 1) :], np.int64)
        return ScoredSequence(kept, min(count, len(kept) - 1), len(kept) < len(ids))


def prefix_token(folder: Path, tokenizer: Any) -> int:
    """Returns the id before a text without context: the `bos_token` of tokenizer_config.json, else its `eos_token`, else END_OF_TEXT."""
    config = read_settings(folder, CONFIG)
    for name in (config.get("bos_token"), config.get("eos_token"), END_OF_TEXT):
        content = name.get("content") if isinstance(name, dict) else name
        number = tokenizer.token_to_id(content) if isinstance(content, str) else None
        if number is not None:
            return int(number)
    raise InputError(f"{folder / CONFIG}: names no token with which a text begins (bos_token or eos_token).")


# ---- log-likelihoods of choices ----------------------------------------------------------------------
#
# Many choices are computed at a time. The common beginning of an item's choices is computed once.

#: Places whose logits exist at a time, few enough for a processor's cache.
HEAD_ROWS = 512
#: A batch of LEAST tokens or more takes no row that is shorter than its longest row by more than an eighth (1 / FILLED).
FILLED, LEAST = 8, 256

Advance = Callable[[int], None]
Values = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Stem:
    """The choices of one item (`numbers`: among all choices). Their first `shared` ids are equal, and predict no scored id."""

    numbers: range
    choices: Sequence[ScoredSequence]
    shared: int

    @property
    def longest(self) -> int:
        """The number of inputs of the longest choice after the shared ids."""
        return max(len(choice.ids) for choice in self.choices) - 1 - self.shared

    @property
    def tokens(self) -> int:
        return self.shared + len(self.choices) * self.longest


@torch.inference_mode()
def loglikelihoods(
    model: Llama, items: Sequence[Sequence[ScoredSequence]], batch_tokens: int, advance: Advance = lambda done: None
) -> tuple[Values, npt.NDArray[np.bool_]]:
    """Returns, choice by choice, the log-probability (nats) of its scored ids, and whether each of them was the most likely id.

    Items with equally many shared ids are computed together, about `batch_tokens` tokens at a time, the longest first.
    """
    total = sum(map(len, items))
    sums, missed = np.zeros(total), np.zeros(total)
    for batch in _batches(_stems(items), batch_tokens):
        numbers = [number for stem in batch for number in stem.numbers]
        nats, missed[numbers] = _parts(model, batch)
        sums[numbers] = -nats
        advance(len(batch))
    return sums, missed == 0


def _stems(items: Sequence[Sequence[ScoredSequence]]) -> Iterator[Stem]:
    begin = 0
    for choices in items:
        yield Stem(range(begin, begin + len(choices)), choices, shared_inputs(choices) if len(choices) > 1 else 0)
        begin += len(choices)


def shared_inputs(choices: Sequence[ScoredSequence]) -> int:
    """Returns the number of ids with which all choices begin, before the first id that predicts a scored one."""
    most = min(map(_first, choices))
    same = np.logical_and.reduce([choice.ids[:most] == choices[0].ids[:most] for choice in choices])
    return most if same.all() else int(same.argmin())


def _batches(stems: Iterator[Stem], batch_tokens: int) -> Iterator[list[Stem]]:
    """Yields batches of stems with equally many shared ids and little padding."""
    batch: list[Stem] = []
    for stem in sorted(stems, key=lambda stem: (-stem.shared, -stem.longest, stem.numbers[0])):
        if batch:
            first, tokens = batch[0], len(batch) * batch[0].tokens
            uneven = first.longest - stem.longest > first.longest // FILLED and tokens >= LEAST
            if stem.shared != first.shared or tokens + first.tokens > batch_tokens or uneven:
                yield batch
                batch = []
        batch.append(stem)
    if batch:
        yield batch


def _parts(model: Llama, batch: list[Stem]) -> tuple[Values, Values]:
    """Returns for each choice the nats of its scored ids, and how many of these were not the most likely id."""
    shared, cache = batch[0].shared, None
    if shared:
        ids = np.stack([stem.choices[0].ids[:shared] for stem in batch])
        cache = model.new_cache(shared)
        model.model(torch.from_numpy(ids).to(model.device), None, cache)
        cache = _repeated(cache, [len(stem.choices) for stem in batch], shared + max(stem.longest for stem in batch))
    choices = [choice for stem in batch for choice in stem.choices]
    ids = np.zeros((len(choices), max(stem.longest for stem in batch) + 1), np.int64)
    for row, choice in enumerate(choices):
        ids[row, : len(choice.ids) - shared] = choice.ids[shared:]
    hidden = model.model(torch.from_numpy(ids[:, :-1]).to(model.device), None, cache)
    first = np.array([_first(choice) - shared for choice in choices])
    return _scores(model, hidden, ids, first, np.array([len(choice.ids) - 1 - shared for choice in choices]))


def _scores(model: Llama, hidden: Tensor, ids: Integers, first: Integers, end: Integers) -> tuple[Values, Values]:
    """Returns for each row of `hidden` `[B, T, width]` the nats of the ids `[B, T + 1]` that its places from `first` to `end` predict, and
    how many of these ids are not the most likely ones."""
    columns = np.arange(hidden.size(1))
    rows, places = np.nonzero((columns >= first[:, None]) & (columns < end[:, None]))
    device = hidden.device
    states = hidden[torch.from_numpy(rows).to(device), torch.from_numpy(places).to(device)]
    found = []
    for some, wanted in zip(states.split(HEAD_ROWS), torch.from_numpy(ids[rows, places + 1]).to(device).split(HEAD_ROWS), strict=True):
        logits = model.lm_head(some).float()
        found.append(torch.stack([F.cross_entropy(logits, wanted, reduction="none"), (logits.argmax(1) != wanted).float()]))
    nats, missed = torch.cat(found, 1).double().cpu().numpy()
    totals = [np.zeros(len(ids)), np.zeros(len(ids))]
    for total, values in zip(totals, (nats, missed), strict=True):
        np.add.at(total, rows, values)
    return totals[0], totals[1]


def _first(choice: ScoredSequence) -> int:
    """Returns the place whose output predicts the first scored id."""
    return len(choice.ids) - 1 - choice.count


def _repeated(cache: KVCache, times: list[int], longest: int) -> KVCache:
    """Returns a cache in which each row is repeated for each of its choices, with room for `longest` tokens."""
    rows = torch.repeat_interleave(torch.tensor(times))
    grown = KVCache(longest, cache.window)
    grown.length = cache.length
    for layer, pair in cache.layers.items():
        grown.layers[layer] = tuple(F.pad(kept[rows.to(kept.device)], (0, 0, 0, longest - cache.length)) for kept in pair)  # type: ignore[assignment]
    return grown


# ---- a model under test ------------------------------------------------------------------------------
#
# The scores of a model folder on a benchmark, with a row for every item.

#: Tokens in a batch: on a CPU as many as fit into its cache, on a GPU enough to keep it busy.
BATCH_TOKENS = {"cpu": 2048, "cuda": 65536}
#: The schema of scored items. `contexts` and `continuations` have one entry where all choices share it; accuracies are 0 or 1.
CHOICES = pa.schema(
    [
        pa.field("item", pa.int64()),  # its number in the set, from 0
        pa.field("group", pa.string()),
        pa.field("contexts", pa.list_(pa.string())),
        pa.field("continuations", pa.list_(pa.string())),
        pa.field("log_likelihoods", pa.list_(pa.float64())),  # of each choice, in nats
        pa.field("gold", pa.int32()),
        pa.field("prediction", pa.int32()),  # the most likely choice
        pa.field("prediction_norm", pa.int32()),  # the most likely choice by log-likelihood per character
        pa.field("greedy", pa.list_(pa.bool_())),  # whether the model itself would write this choice
        pa.field("acc", pa.int8()),
        pa.field("acc_norm", pa.int8()),
        pa.field("cut", pa.bool_()),  # the beginning did not fit into the context
    ]
)


@dataclass(frozen=True)
class BenchmarkResult:
    """The rows of the items, and their summary."""

    table: pa.Table
    summary: dict[str, Any]


class ModelUnderTest:
    """A model folder, loaded once for all its tasks. `batch_tokens`: tokens computed at a time (0: as many as suit the device)."""

    def __init__(self, folder: str | Path, device: str = "auto", batch_tokens: int = 0):
        self.generator = load_text_generator(folder, device)
        self.encoder = ItemEncoder(self.generator)
        self.batch_tokens = batch_tokens or BATCH_TOKENS[self.generator.model.device.type]

    def score(self, config: TaskConfig, chosen: ItemSet, advance: Advance = lambda done: None) -> BenchmarkResult:
        """Scores the items of a task. Calls `advance` with the number of items done since its last call."""
        task = TASKS[config.task]
        with deterministic():
            table = self._table(chosen.items, advance)
        metrics, groups = scores(table, task.metrics)
        cut = int(np.count_nonzero(table["cut"].to_numpy()))
        summary = {"title": task.title, "items": table.num_rows, "total": chosen.total, "shots": chosen.shots, "cut": cut,
                   "chance": chance(table), "metric": task.metrics[0], "metrics": metrics, "groups": groups}  # fmt: skip
        return BenchmarkResult(table, summary)

    def _table(self, items: Sequence[Item], advance: Advance) -> pa.Table:
        pairs = [pair for item in items for pair in zip(item.contexts, item.continuations, strict=True)]
        sequences = self.encoder.pairs(pairs)
        ends = np.cumsum([len(item.contexts) for item in items])
        of_items = [sequences[end - len(item.contexts) : end] for item, end in zip(items, ends, strict=True)]
        values, greedy = loglikelihoods(self.generator.model, of_items, self.batch_tokens, advance)
        rows, begin = [], 0
        for item in items:
            end = begin + len(item.contexts)
            rows.append(_choice_row(item, values[begin:end], greedy[begin:end], any(s.cut for s in sequences[begin:end])))
            begin = end
        return pa.Table.from_pylist(rows, CHOICES)


def _choice_row(item: Item, values: Any, greedy: Any, cut: bool) -> dict[str, Any]:
    single = len(values) == 1
    prediction, by_length = int(np.argmax(values)), int(np.argmax(values / np.maximum(item.characters, 1)))
    return {
        "item": item.number, "group": item.group, "contexts": list(dict.fromkeys(item.contexts)),
        "continuations": list(dict.fromkeys(item.continuations)), "log_likelihoods": values.tolist(), "gold": item.gold,
        "prediction": prediction, "prediction_norm": by_length, "greedy": greedy.tolist(),
        "acc": int(greedy[0] if single else prediction == item.gold), "acc_norm": int(by_length == item.gold), "cut": cut,
    }  # fmt: skip
