"""Scores a model folder on a benchmark: encodes items, computes log-likelihoods of choices, makes a row for each item."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
import torch.nn.functional as F

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.special_tokens import END_OF_TEXT
from corpusmill.train.benchmarks import BenchmarkTask, Item, ItemSet
from corpusmill.train.compute import deterministic
from corpusmill.train.generate import TextGenerator, load_text_generator, read_settings, token_ids
from corpusmill.train.model import KVCache, Llama

# ---- items as tokens ---------------------------------------------------------------------------------
#
# Finds the border between context and continuation, and cuts both to the model's context.

CONFIG = "tokenizer_config.json"
#: The number of texts that are encoded at a time.
TEXTS = 4096

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ScoredSequence:
    """Ids, at most one more than the context. The last `count` are the continuation; choices are compared by the last `compared`. `cut`:
    whether the beginning did not fit."""

    ids: Ids
    count: int
    compared: int
    cut: bool

    @property
    def first(self) -> int:
        """The place whose output predicts the first scored id."""
        return len(self.ids) - 1 - max(self.count, self.compared)


class ItemEncoder:
    """Encodes items with a model folder's tokenizer, in the way of lm-evaluation-harness, or, those of CORE, of nanochat."""

    def __init__(self, generator: TextGenerator):
        self.tokenizer, self.context = generator.tokenizer, generator.model.arch.context
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.prefix = prefix_token(generator.folder, self.tokenizer)

    def encode(self, texts: Sequence[str], special: bool) -> list[Ids]:
        """Returns the ids of texts. `special`: with the tokens that the tokenizer itself puts around a text."""
        found: list[Ids] = []
        for begin in range(0, len(texts), TEXTS):  # in batches, as the library's other results are large and are dropped
            some = list(texts[begin : begin + TEXTS])
            found += [np.array(encoding.ids, np.int64) for encoding in self.tokenizer.encode_batch_fast(some, add_special_tokens=special)]
        return found

    def choices(self, task: BenchmarkTask, items: Sequence[Item]) -> list[list[ScoredSequence]]:
        """Encodes the choices of items. Context and continuation are encoded as one text; the continuation begins after as many ids as the
        context alone has, without the spaces at its end (CORE: with them). The model's first token stands in for an empty context, in CORE
        before every prompt."""
        core = task.baseline is not None
        borders = [context if core else context.rstrip() for item in items for context in item.contexts]
        whole = self.encode([text for item in items for text in map(str.__add__, item.contexts, item.continuations)], special=not core)
        each = list(dict.fromkeys(borders))
        lengths = dict(zip(each, map(len, self.encode(each, special=not core)), strict=True))
        encoded = iter(zip(whole, (lengths[border] for border in borders), strict=True))
        found = []
        for item in items:
            pairs = list(islice(encoded, len(item.contexts)))
            pairs = [(np.append(self.prefix, ids), before + 1) if core or not before else (ids, before) for ids, before in pairs]
            counts = [len(ids) - before for ids, before in pairs]
            if min(counts) < 1 and not core:
                raise InputError(f"evaluate: a continuation of item {item.number} (from 0) of {task.title} has no token of its own.")
            prompts = [ids for ids, _ in pairs]
            compared = self._compared(task.kind, item, prompts) if core else counts
            choices = []
            for ids, count, few in zip(prompts, counts, compared, strict=True):
                kept = ids[-self.context - (not core) :]
                most = len(kept) - 1
                choices.append(ScoredSequence(kept, min(max(count, 1), most), min(few, most), len(kept) < len(ids)))
            found.append(choices)
        return found

    def _compared(self, kind: str, item: Item, prompts: Sequence[Ids]) -> list[int]:
        """Returns the number of last ids by which CORE compares each prompt: choices by the ids after those with which all of them begin,
        contexts by the ids with which all of them end. Unlike in nanochat, it is at least one."""
        if kind == "schema":
            return [max(common([ids[::-1] for ids in prompts]), 1)] * len(prompts)
        if kind == "multiple_choice":
            begin = common(prompts)
        else:
            (context,) = self.encode([item.contexts[0].strip()], special=False)
            begin = common([np.append(self.prefix, context), prompts[0]])
        return [max(len(ids) - begin, 1) for ids in prompts]


def common(sequences: Sequence[Ids]) -> int:
    """Returns the number of ids with which all sequences begin."""
    shortest = min(map(len, sequences))
    same = np.logical_and.reduce([ids[:shortest] == sequences[0][:shortest] for ids in sequences])
    return shortest if same.all() else int(same.argmin())


def prefix_token(folder: Path, tokenizer: Any) -> int:
    """Returns the id before a text without context: the `bos_token` of tokenizer_config.json, else its `eos_token`, else END_OF_TEXT."""
    config = read_settings(folder, CONFIG)
    for token in (config.get("bos_token"), config.get("eos_token"), END_OF_TEXT):
        if ids := token_ids(tokenizer, token):
            return ids[0]
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
) -> Values:
    """Returns for each choice `[3, choices]`: the nats of its continuation, the nats of its compared ids, and how many of these were not
    the most likely id.

    Items with equally many shared ids are computed together, about `batch_tokens` tokens at a time, the longest first.
    """
    found = np.zeros((3, sum(map(len, items))))
    for batch in _batches(_stems(items), batch_tokens):
        found[:, [number for stem in batch for number in stem.numbers]] = _values(model, batch)
        advance(len(batch))
    return found


def _stems(items: Sequence[Sequence[ScoredSequence]]) -> Iterator[Stem]:
    begin = 0
    for choices in items:
        shared = min(common([choice.ids for choice in choices]), *(choice.first for choice in choices)) if len(choices) > 1 else 0
        yield Stem(range(begin, begin + len(choices)), choices, shared)
        begin += len(choices)


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


def _values(model: Llama, batch: list[Stem]) -> Values:
    """Returns the values of `loglikelihoods` for the choices of a batch."""
    shared, cache = batch[0].shared, None
    if shared:
        ids = np.stack([stem.choices[0].ids[:shared] for stem in batch])
        cache = model.new_cache(shared)
        model.model(torch.from_numpy(ids).to(model.device), None, cache)
        cache = _repeated(cache, [len(stem.choices) for stem in batch], shared + max(stem.longest for stem in batch))
    choices = [choice for stem in batch for choice in stem.choices]
    ids = np.zeros((len(choices), max(stem.longest for stem in batch)), np.int64)
    for row, choice in enumerate(choices):
        ids[row, : len(choice.ids) - 1 - shared] = choice.ids[shared:-1]
    hidden = model.model(torch.from_numpy(ids).to(model.device), None, cache)
    states = torch.cat([hidden[row, choice.first - shared : len(choice.ids) - 1 - shared] for row, choice in enumerate(choices)])
    wanted = torch.from_numpy(np.concatenate([choice.ids[choice.first + 1 :] for choice in choices])).to(model.device)
    scored = []
    for some, targets in zip(states.split(HEAD_ROWS), wanted.split(HEAD_ROWS), strict=True):
        logits = model.lm_head(some).float()
        scored.append(torch.stack([F.cross_entropy(logits, targets, reduction="none"), (logits.argmax(1) != targets).float()]))
    ends = np.cumsum([len(choice.ids) - 1 - choice.first for choice in choices])[:-1]
    found = np.zeros((3, len(choices)))
    for row, (choice, (nats, missed)) in enumerate(
        zip(choices, np.split(torch.cat(scored, 1).double().cpu().numpy(), ends, 1), strict=True)
    ):
        compared = -choice.compared
        found[:, row] = nats[-choice.count :].sum(), nats[compared:].sum(), missed[compared:].sum()
    return found


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
        pa.field("prediction", pa.int32()),  # the most likely choice; for CORE, by log-likelihood per compared token
        pa.field("prediction_norm", pa.int32()),  # the most likely choice by log-likelihood per character
        pa.field("greedy", pa.list_(pa.bool_())),  # whether the model itself would write this choice
        pa.field("acc", pa.int8()),
        pa.field("acc_norm", pa.int8()),
        pa.field("bits_per_byte", pa.float64()),  # of the right continuation: -log2 p / its UTF-8 bytes
        pa.field("cut", pa.bool_()),  # the beginning did not fit into the context
    ]
)


class ModelUnderTest:
    """A model folder, loaded once for all its tasks. `batch_tokens`: tokens computed at a time (0: as many as suit the device)."""

    def __init__(self, folder: str | Path, device: str = "auto", batch_tokens: int = 0):
        self.generator = load_text_generator(folder, device)
        self.encoder = ItemEncoder(self.generator)
        self.batch_tokens = batch_tokens or BATCH_TOKENS[self.generator.model.device.type]

    def score(self, sets: Sequence[ItemSet], advance: Advance = lambda done: None) -> pa.Table:
        """Returns a row (`CHOICES`) for each item of a task. Calls `advance` with the number of items done since its last call."""
        with deterministic():
            return pa.concat_tables([self._table(of, advance) for of in sets])

    def _table(self, of: ItemSet, advance: Advance) -> pa.Table:
        items = of.asked()
        choices = self.encoder.choices(of.task, items)
        ends = np.cumsum([len(each) for each in choices])[:-1]
        found = np.split(loglikelihoods(self.generator.model, choices, self.batch_tokens, advance), ends, 1)
        core = of.task.baseline is not None
        return pa.Table.from_pylist([_choice_row(*row, core) for row in zip(items, found, choices, strict=True)], CHOICES)


def _choice_row(item: Item, found: Values, sequences: Sequence[ScoredSequence], core: bool) -> dict[str, Any]:
    values, greedy = -found[0], found[2] == 0
    ranked = -found[1] / [choice.compared for choice in sequences] if core else values
    characters = [max(1, len(text.removeprefix(" "))) for text in item.continuations]
    prediction, by_length = int(np.argmax(ranked)), int(np.argmax(values / characters))
    return {
        "item": item.number, "group": item.group, "contexts": list(dict.fromkeys(item.contexts)),
        "continuations": list(dict.fromkeys(item.continuations)), "log_likelihoods": values.tolist(), "gold": item.gold,
        "prediction": prediction, "prediction_norm": by_length, "greedy": greedy.tolist(),
        "acc": int(greedy[0] if len(values) == 1 else prediction == item.gold), "acc_norm": int(by_length == item.gold),
        "bits_per_byte": found[0][item.gold] / math.log(2) / len(item.continuations[item.gold].encode()),
        "cut": any(choice.cut for choice in sequences),
    }  # fmt: skip
