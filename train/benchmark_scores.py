"""Scores a model folder on a benchmark: encodes items, computes log-likelihoods of choices, makes a row for each item."""

import math
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
from corpusmill.train.benchmarks import Item, ItemSet
from corpusmill.train.compute import deterministic
from corpusmill.train.generate import TextGenerator, load_text_generator, read_settings
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
    """Encodes items with a model folder's tokenizer, in the way of lm-evaluation-harness (`pairs`) or of nanochat (`core`)."""

    def __init__(self, generator: TextGenerator):
        self.tokenizer, self.context = generator.tokenizer, generator.model.arch.context
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.prefix = prefix_token(generator.folder, self.tokenizer)

    def encode(self, texts: Sequence[str], special: bool = True) -> list[Ids]:
        """Returns the ids of texts. `special`: with the tokens that the tokenizer itself puts around a text."""
        found: list[Ids] = []
        for begin in range(0, len(texts), TEXTS):  # in batches, as the library's other results are large and are dropped
            some = list(texts[begin : begin + TEXTS])
            found += [np.array(encoding.ids, np.int64) for encoding in self.tokenizer.encode_batch_fast(some, add_special_tokens=special)]
        return found

    def pairs(self, pairs: Sequence[tuple[str, str]]) -> list[ScoredSequence]:
        """Encodes pairs of (context, continuation). Spaces at a context's end are moved to the continuation. Both are encoded as one text;
        the continuation begins after as many ids as the context alone has. The model's first token stands in for an empty context."""
        moved = [(context.rstrip(), context[len(context.rstrip()) :] + continuation) for context, continuation in pairs]
        lengths = self._lengths([context for context, _ in moved if context], special=True)
        alone = iter(self.encode([continuation for context, continuation in moved if not context], special=False))
        whole = iter(self.encode([context + continuation for context, continuation in moved if context]))
        found = []
        for context, continuation in moved:
            if context:
                ids, before = next(whole), lengths[context]
            else:
                ids, before = next(alone), 1
                if ids[:1].tolist() != [self.prefix]:
                    ids = np.append(self.prefix, ids)
            if len(ids) <= before or not before:
                raise InputError(f"evaluate: the continuation {continuation[:40]!r} has no token of its own after {context[-40:]!r}.")
            found.append(fitted(ids, len(ids) - before, len(ids) - before, self.context + 1))
        return found

    def core(self, kind: str, items: Sequence[Item]) -> list[ScoredSequence]:
        """Encodes items of CORE. The model's first token stands before every prompt. Choices are compared by the ids after those with which
        all of them begin, contexts by the ids with which all of them end. Unlike nanochat, at least one id is always compared."""
        contexts = [context for item in items for context in item.contexts]
        whole = iter(self.encode([text for item in items for text in map(str.__add__, item.contexts, item.continuations)], special=False))
        lengths = self._lengths(contexts, special=False)
        without = iter(self.encode([context.strip() for context in contexts], special=False)) if kind == "language_modeling" else iter(())
        found = []
        for item in items:
            prompts = [np.append(self.prefix, next(whole)) for _ in item.contexts]
            if kind == "schema":
                compared = [min(common([ids[::-1] for ids in prompts]), *(len(ids) - 1 for ids in prompts))] * len(prompts)
            elif kind == "multiple_choice":
                shared = common(prompts)
                compared = [len(ids) - shared for ids in prompts]
            else:
                compared = [len(prompts[0]) - common([np.append(self.prefix, next(without)), prompts[0]])]
            for ids, context, count in zip(prompts, item.contexts, compared, strict=True):
                found.append(fitted(ids, max(len(ids) - 1 - lengths[context], 1), max(count, 1), self.context))
        return found

    def _lengths(self, contexts: Sequence[str], special: bool) -> dict[str, int]:
        """Returns the number of ids of each context."""
        each = list(dict.fromkeys(contexts))
        return dict(zip(each, map(len, self.encode(each, special)), strict=True))


def fitted(ids: Ids, count: int, compared: int, longest: int) -> ScoredSequence:
    """Cuts ids to the end that fits."""
    kept = ids[-longest:]
    return ScoredSequence(kept, min(count, len(kept) - 1), min(compared, len(kept) - 1), len(kept) < len(ids))


def common(sequences: Sequence[Ids]) -> int:
    """Returns the number of ids with which all sequences begin."""
    shortest = min(map(len, sequences))
    same = np.logical_and.reduce([ids[:shortest] == sequences[0][:shortest] for ids in sequences])
    return shortest if same.all() else int(same.argmin())


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
        found[:, [number for stem in batch for number in stem.numbers]] = _parts(model, batch)
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


def _parts(model: Llama, batch: list[Stem]) -> Values:
    """Returns the values of `loglikelihoods` for the choices of a batch."""
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
    return _scores(model, hidden, ids, choices, shared)


def _scores(model: Llama, hidden: Tensor, ids: Ids, choices: Sequence[ScoredSequence], shared: int) -> Values:
    """Returns the values of `loglikelihoods` for `choices`, from `hidden` `[B, T, width]` of the ids `[B, T + 1]` after the shared ones."""
    columns = np.arange(hidden.size(1))
    first, end = (
        np.array([place - shared for place in places]) for places in zip(*((c.first, len(c.ids) - 1) for c in choices), strict=True)
    )
    rows, places = np.nonzero((columns >= first[:, None]) & (columns < end[:, None]))
    device = hidden.device
    states = hidden[torch.from_numpy(rows).to(device), torch.from_numpy(places).to(device)]
    values = []
    for some, wanted in zip(states.split(HEAD_ROWS), torch.from_numpy(ids[rows, places + 1]).to(device).split(HEAD_ROWS), strict=True):
        logits = model.lm_head(some).float()
        values.append(torch.stack([F.cross_entropy(logits, wanted, reduction="none"), (logits.argmax(1) != wanted).float()]))
    nats, missed = torch.cat(values, 1).double().cpu().numpy()
    left = end[rows] - places  # ids from this one to the end
    in_count, in_compared = (left <= np.array([getattr(c, name) for c in choices])[rows] for name in ("count", "compared"))
    found = np.zeros((3, len(ids)))
    for total, of in zip(found, (nats * in_count, nats * in_compared, missed * in_compared), strict=True):
        np.add.at(total, rows, of)
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
        items, core = of.asked(), of.task.baseline is not None
        if core:
            sequences = self.encoder.core(of.task.kind, items)
        else:
            sequences = self.encoder.pairs([pair for item in items for pair in zip(item.contexts, item.continuations, strict=True)])
        ends = np.cumsum([len(item.contexts) for item in items]).tolist()
        places = [slice(end - len(item.contexts), end) for item, end in zip(items, ends, strict=True)]
        found = loglikelihoods(self.generator.model, [sequences[place] for place in places], self.batch_tokens, advance)
        rows = [_choice_row(item, found[:, place], sequences[place], core) for item, place in zip(items, places, strict=True)]
        return pa.Table.from_pylist(rows, CHOICES)


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
