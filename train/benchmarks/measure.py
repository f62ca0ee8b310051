"""A model folder's scores on a task, and the row of every item that they are made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from corpusmill.train.benchmarks import answers
from corpusmill.train.benchmarks.config import TaskConfig
from corpusmill.train.benchmarks.encode import Encoder
from corpusmill.train.benchmarks.generation import answer_texts
from corpusmill.train.benchmarks.items import Choices, Question
from corpusmill.train.benchmarks.loglikelihood import Advance, loglikelihoods
from corpusmill.train.benchmarks.read import ItemSet
from corpusmill.train.benchmarks.scores import chance, scores
from corpusmill.train.benchmarks.tasks import TASKS
from corpusmill.train.device import deterministic
from corpusmill.train.speaker import load_text_generator

#: A processor's cache holds what so many tokens need; a GPU has to have enough to do.
BATCH_TOKENS = {"cpu": 2048, "cuda": 65536}
#: Of an item with choices. `contexts` and `continuations` have one entry where all choices share it; the accuracies are 0 or 1.
CHOICES = pa.schema(
    [
        pa.field("item", pa.int64()),  # its number in the set, from 0
        pa.field("group", pa.string()),
        pa.field("contexts", pa.list_(pa.string())),
        pa.field("continuations", pa.list_(pa.string())),
        pa.field("log_likelihoods", pa.list_(pa.float64())),  # nats, of each choice
        pa.field("gold", pa.int32()),
        pa.field("prediction", pa.int32()),  # the most likely choice
        pa.field("prediction_norm", pa.int32()),  # by log-likelihood a character
        pa.field("greedy", pa.list_(pa.bool_())),  # whether a choice is what the model would write itself
        pa.field("acc", pa.int8()),
        pa.field("acc_norm", pa.int8()),
        pa.field("cut", pa.bool_()),  # the beginning did not fit into the context
    ]
)
#: Of an item that is answered in free text.
QUESTIONS = pa.schema(
    [
        pa.field("item", pa.int64()),
        pa.field("group", pa.string()),
        pa.field("prompt", pa.string()),
        pa.field("answer", pa.string()),
        pa.field("text", pa.string()),  # what the model wrote
        pa.field("strict", pa.string()),
        pa.field("flexible", pa.string()),
        pa.field("exact_match_strict", pa.int8()),
        pa.field("exact_match_flexible", pa.int8()),
        pa.field("cut", pa.bool_()),
    ]
)


@dataclass(frozen=True)
class BenchmarkResult:
    """The items' rows, and what they come to."""

    table: pa.Table
    summary: dict[str, Any]


class ModelUnderTest:
    """A model folder, loaded once for all its tasks. `batch_tokens` are computed at a time, 0: as many as suit the device."""

    def __init__(self, folder: str | Path, device: str = "auto", batch_tokens: int = 0):
        self.generator = load_text_generator(folder, device)
        self.encoder = Encoder(self.generator)
        self.batch_tokens = batch_tokens or BATCH_TOKENS[self.generator.model.device.type]

    def score(self, config: TaskConfig, chosen: ItemSet, advance: Advance = lambda done: None) -> BenchmarkResult:
        """`advance` is told of items that are done."""
        task = TASKS[config.task]
        with deterministic():
            if isinstance(chosen.items[0], Question):
                table = self._questions([item for item in chosen.items if isinstance(item, Question)], config.max_tokens, advance)
            else:
                table = self._choices([item for item in chosen.items if isinstance(item, Choices)], advance)
        metrics, groups = scores(table, task.metrics)
        cut = int(np.count_nonzero(table["cut"].to_numpy()))
        summary = {"title": task.title, "items": table.num_rows, "total": chosen.total, "shots": chosen.shots, "cut": cut,
                   "chance": chance(table), "metric": task.metrics[0], "metrics": metrics, "groups": groups}  # fmt: skip
        return BenchmarkResult(table, summary)

    def _choices(self, items: Sequence[Choices], advance: Advance) -> pa.Table:
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

    def _questions(self, items: Sequence[Question], longest: int, advance: Advance) -> pa.Table:
        texts = answer_texts(self.generator, self.encoder, [item.prompt for item in items], longest)
        rows = []
        for item, (text, cut) in zip(items, texts, strict=True):
            found = {"strict": answers.strict_answer(text), "flexible": answers.flexible_answer(text)}
            right = {f"exact_match_{how}": int(answers.same_answer(result, item.answer)) for how, result in found.items()}
            rows.append({"item": item.number, "group": item.group, "prompt": item.prompt, "answer": item.answer, "text": text,
                         **found, **right, "cut": cut})  # fmt: skip
            advance(1)
        return pa.Table.from_pylist(rows, QUESTIONS)


def _choice_row(item: Choices, values: Any, greedy: Any, cut: bool) -> dict[str, Any]:
    single = len(values) == 1
    prediction, by_length = int(np.argmax(values)), int(np.argmax(values / np.maximum(item.characters, 1)))
    return {
        "item": item.number, "group": item.group, "contexts": list(dict.fromkeys(item.contexts)),
        "continuations": list(dict.fromkeys(item.continuations)), "log_likelihoods": values.tolist(), "gold": item.gold,
        "prediction": prediction, "prediction_norm": by_length, "greedy": greedy.tolist(),
        "acc": int(greedy[0] if single else prediction == item.gold), "acc_norm": int(by_length == item.gold), "cut": cut,
    }  # fmt: skip
