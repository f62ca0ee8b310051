"""Preference pairs from a score of the corpus: a continuation from its best part against one of like length from its worst part.

A score of whole documents says little about a few of their sentences, and a score that is the greatest of a document's windows says that
it is long. So where a score is one of windows, the continuations themselves are scored and the best and worst of them taken; else
continuations are taken from the best and the worst documents, whose scores they have. (Measured: docs/alignment.md.)
"""

import bisect
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.pipeline.schemas import hosts
from corpusmill.train import tasks
from corpusmill.train.conversation import assistant_turn, user_turn
from corpusmill.train.preference_data import Pair
from corpusmill.train.scores import Score, with_score

#: Two completions of a pair differ in length by at most this share of the longer one, so that length gives nothing away.
TOLERANCE = 0.1
#: The middles of the best and of the worst part of a classifier's scores are at least so far apart.
APART = 0.02

Tables = Callable[[], Iterator[pa.Table]]


@dataclass(frozen=True)
class Limits:
    """Of the pairs of one kind. `best` and `worst`: the shares of documents or continuations that completions are taken from."""

    pairs: int
    per_document: int
    max_chars: int
    best: float
    worst: float

    def continuations(self, source: tasks.Source) -> list[tasks.Task]:
        return tasks.continuation_tasks(source, self.max_chars)


@dataclass(frozen=True)
class Scored:
    """A continuation and its score, or its document's."""

    task: tasks.Task
    score: float


@dataclass(frozen=True)
class Pool:
    """What pairs are made of. `good` and `bad` are the scores where the two parts begin; `scored`: how many things were ranked."""

    chosen: list[Scored]
    rejected: list[Scored]
    unit: str  # documents or continuations
    scored: int
    good: float | None
    bad: float | None


def pool_of_documents(score: Score, kept: Tables, dropped: Tables, salt: str, limits: Limits) -> Pool:
    """Continuations from the best and the worst documents. Holds 8 bytes for each document beside what it gives."""
    columns = [table["score"].drop_null().to_numpy() for table in kept()]
    bounds = _bounds(score, np.concatenate(columns) if columns else np.empty(0), limits)
    scored = sum(map(len, columns))
    if bounds is None:
        return Pool([], [], "documents", scored, None, None)

    def continuations(tables: Iterable[pa.Table]) -> list[Scored]:
        built = tasks.choose(tables, salt, 2 * limits.pairs, limits.per_document, limits.continuations)
        return [Scored(task, task.source.score) for task in built if task.source.score is not None]

    good, bad = bounds
    chosen = continuations(with_score(kept(), score, least=good))
    rejected = continuations(table for tables in (kept(), dropped()) for table in with_score(tables, score, most=bad))
    return Pool(chosen, rejected, "documents", scored, *score.goodness(np.array([good, bad])).tolist())


def pool_of_continuations(
    score: Score, scorer: Callable[[Sequence[str]], npt.NDArray[np.float64]], kept: Tables, dropped: Tables, salt: str, limits: Limits
) -> Pool:
    """The best and the worst of continuations that a hash chose from all documents, and as bad ones of documents that were dropped."""
    candidates_of = math.ceil(2 * limits.pairs / limits.worst), math.ceil(limits.per_document / limits.worst)

    def continuations(tables: Iterable[pa.Table]) -> list[Scored]:
        built = tasks.choose(tables, salt, *candidates_of, limits.continuations)
        values = scorer([task.answer for task in built])
        return [Scored(task, value) for task, value in zip(built, values.tolist(), strict=True) if not math.isnan(value)]

    candidates, others = continuations(kept()), continuations(dropped())
    bounds = _bounds(score, np.array([each.score for each in candidates]), limits)
    if bounds is None:
        return Pool([], [], "continuations", len(candidates), None, None)
    good, bad = bounds
    chosen = [each for each in candidates if _goodness(score, each) >= good]
    rejected = [each for each in (*candidates, *others) if _goodness(score, each) <= bad]
    chosen, rejected = (_of_each(side, limits.per_document) for side in (chosen, rejected))
    return Pool(chosen, rejected, "continuations", len(candidates), *score.goodness(np.array([good, bad])).tolist())


def _of_each(sides: Sequence[Scored], most: int) -> list[Scored]:
    """The first `most` of each document."""
    seen: Counter[str] = Counter()
    kept = []
    for side in sides:
        seen[side.task.source.id] += 1
        if seen[side.task.source.id] <= most:
            kept.append(side)
    return kept


def _goodness(score: Score, each: Scored) -> float:
    return each.score if score.high_is_good else -each.score


def _bounds(score: Score, values: npt.NDArray[np.float64], limits: Limits) -> tuple[float, float] | None:
    """Goodness from which the best share begins, and up to which the worst goes; None where they are not apart.

    Of a score in [0, 1] that is nearly the same everywhere, the parts differ by chance: the middles of both must be apart, too.
    """
    if not len(values):
        return None
    shares = [limits.worst, 1 - limits.best, limits.worst / 2, 1 - limits.best / 2]
    bad, good, worst, best = np.quantile(score.goodness(values), shares, method="inverted_cdf").tolist()
    if values.min() >= 0 and values.max() <= 1 and best - worst < APART:
        return None
    return (good, bad) if good > bad else None


def match(pool: Pool, held_out: Callable[[str], bool], wanted: int) -> list[tuple[Scored, Scored]]:
    """At most `wanted` pairs, each continuation in one, in the order of the chosen ones.

    Both sides are in one language, of one host where possible, and both held out or both not; of what fits, the partner is the
    one of nearest length.
    """
    chosen, rejected = pool.chosen, _different(pool.rejected)
    keys = [_keys(side, held_out) for side in (chosen, rejected)]
    partner: dict[int, int] = {}
    for level in (0, 1):  # by host, then whatever is left
        shelves: dict[Any, list[tuple[int, int]]] = {}
        used = set(partner.values())
        for place, key in enumerate(keys[1]):
            if place not in used:
                bisect.insort(shelves.setdefault(key[level], []), (len(rejected[place].task.answer), place))
        for place, key in enumerate(keys[0]):
            if place not in partner and len(partner) < wanted:
                found = _nearest(shelves.get(key[level], []), chosen[place], rejected)
                if found is not None:
                    partner[place] = found
    return [(chosen[place], rejected[partner[place]]) for place in sorted(partner)]


def _different(sides: Sequence[Scored]) -> list[Scored]:
    return list({side.task.answer: side for side in reversed(sides)}.values())[::-1]


def _keys(sides: Sequence[Scored], held_out: Callable[[str], bool]) -> list[tuple[Any, Any]]:
    """For each continuation what its partner must have in common with it: first the host too, then without."""
    found = hosts(pa.array([side.task.source.url for side in sides], pa.string())).to_pylist()
    rest = [(held_out(side.task.source.id), side.task.source.language) for side in sides]
    return [((*key, host), key) for key, host in zip(rest, found, strict=True)]


def _nearest(shelf: list[tuple[int, int]], chosen: Scored, rejected: Sequence[Scored]) -> int | None:
    """Takes the continuation of another document off the shelf whose length is nearest; None where none is near enough."""
    length = len(chosen.task.answer)
    middle = bisect.bisect_left(shelf, (length, -1))
    around = sorted(range(max(0, middle - 8), min(len(shelf), middle + 8)), key=lambda at: (abs(shelf[at][0] - length), at))
    for at in around:
        other, place = shelf[at]
        if abs(other - length) <= TOLERANCE * max(other, length) and rejected[place].task.source.id != chosen.task.source.id:
            del shelf[at]
            return place
    return None


def pairs_of(score: Score, matched: Sequence[tuple[Scored, Scored]], held_out: Callable[[str], bool]) -> list[Pair]:
    """The pairs. Which of the two documents the prompt is from is decided by a hash, so that to go on with the prompt is no cue."""
    pairs = []
    for good, bad in matched:
        source, other = good.task.source, bad.task.source
        asked = (good, bad)[tasks.hash_of(f"prompt {score.column}", source.id + good.task.prompt) % 2]
        turns = [user_turn(asked.task.prompt)], [assistant_turn(good.task.answer)], [assistant_turn(bad.task.answer)]
        pairs.append(Pair(source.id, source.url, score.column, held_out(source.id), *turns, other.id, other.url, good.score, bad.score))
    return pairs


def lengths(pairs: Sequence[Pair]) -> dict[str, float | None]:
    """Mean characters of both sides."""
    sides = {"chosen": [pair.chosen for pair in pairs], "rejected": [pair.rejected for pair in pairs]}
    return {f"{side}_chars": sum(len(turns[0]["content"]) for turns in of) / len(of) if of else None for side, of in sides.items()}
