"""Preference pairs from a run's own documents: a true continuation against a false one of its length."""

from collections.abc import Callable, Iterable, Sequence

import pyarrow as pa

from corpusmill.train import tasks
from corpusmill.train.conversation import assistant_turn, user_turn
from corpusmill.train.preference_data import Pair


def build_pairs(
    tables: Iterable[pa.Table], salt: str, limit: int, per_document: int, max_chars: int, held_out: Callable[[str], bool]
) -> list[Pair]:
    """At most `limit` pairs, and `per_document` of one document: a true continuation against a false one of its length.

    False is another document's continuation (of the next one in the order of hashes that is held out or not as the first is),
    or the true one with its first words repeated or its words shuffled; which of them, a hash decides.
    """
    built = tasks.choose(tables, salt, limit, per_document, lambda source: tasks.continuation_tasks(source, max_chars))
    aside = [held_out(task.source.id) for task in built]
    pairs = []
    for place, task in enumerate(built):
        other = _other(built, aside, place)
        kind, rejected = _rejected(task, other.answer)
        source = (other if kind == "other" else task).source
        turns = [user_turn(task.prompt)], [assistant_turn(task.answer)], [assistant_turn(rejected)]
        pairs.append(Pair(task.source.id, task.source.url, kind, aside[place], *turns, source.id, source.url))
    return pairs


def _other(built: Sequence[tasks.BuiltTask], aside: Sequence[bool], place: int) -> tasks.BuiltTask:
    """The next task of another document, held out as this one is or not, so that nothing held out is learned; itself where there is no
    other."""
    following = ((place + step) % len(built) for step in range(1, len(built)))
    fitting = (built[at] for at in following if aside[at] == aside[place] and built[at].source.id != built[place].source.id)
    return next(fitting, built[place])


def _rejected(task: tasks.BuiltTask, other: str) -> tuple[str, str]:
    choice = tasks.hash_of("rejected", task.source.id + task.prompt) % 4
    if choice < 2:
        return "other", tasks.cut(other, max(len(task.answer), 1))
    if choice == 2:
        return "repeated", _repeat(task.answer)
    return "shuffled", _shuffle(task.answer, task.source.id)


def _repeat(text: str) -> str:
    """The first words over and over, in the length of the text: how a model that is stuck writes."""
    first = text[: max(8, len(text) // 6)]
    first = (first[: first.rfind(" ")] if " " in first else first) + " "
    return (first * (len(text) // len(first) + 1))[: len(text)]


def _shuffle(text: str, identifier: str) -> str:
    """The words in an order that their hashes decide; the characters where the script has no spaces."""
    words = text.split()
    units, glue = (words, " ") if len(words) > 8 else (list(text), "")
    order = sorted(range(len(units)), key=lambda place: tasks.hash_of(identifier, f"{place} {units[place]}"))
    return glue.join(units[place] for place in order)
