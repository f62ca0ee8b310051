"""The threshold that keeps a share of the corpus, exactly, from report columns alone.

Of n documents that count, `share` keeps the k = ceil(share * n) with the highest values (the lowest, where a rule fails values above its
threshold); the threshold is the value of the k-th. All documents with just this value stay, too, so ties can only keep more.

Up to SORTED values are sorted at once. Of more, a histogram of the 16 highest bits says in which range the value lies, a second pass
counts the next 16 bits of the values in it, and so on: four passes over columns in memory that does not grow with the corpus. Counts
add up to the same in any order, so the threshold does not depend on shards or workers.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.filters.rules import Rule, StepRule

SORTED = 1 << 22  # values: 32 MB
DIGIT, KEY = 16, 64  # bits

Keys = npt.NDArray[np.uint64]
#: Reads some columns of one shard.
Reader = Callable[[list[str]], pa.Table]


@dataclass(frozen=True)
class Found:
    """A rule's threshold; None where no document counts. `kept`: how many of the `documents` that count have a value that passes."""

    threshold: float | None
    documents: int
    kept: int

    def as_json(self) -> dict[str, Any]:
        return {"threshold": self.threshold, "documents": self.documents, "kept": self.kept}


def unknown_rules(rules: Iterable[StepRule]) -> list[Rule]:
    """The rules whose thresholds have yet to be found."""
    return [rule.rule for rule in rules if rule.rule.unknown]


def with_found(rules: Iterable[StepRule], found: dict[str, float | None]) -> list[StepRule]:
    """The rules with the thresholds that were found, by name; a rule for which there is none decides nothing and is left out."""
    decided = []
    for rule in rules:
        if not rule.rule.unknown:
            decided.append(rule)
        elif (threshold := found[rule.rule.name]) is not None:
            decided.append(replace(rule, rule=replace(rule.rule, threshold=threshold)))
    return decided


def find_thresholds(rules: Sequence[StepRule], shards: Sequence[Reader]) -> dict[str, Found]:
    """The thresholds of all rules that have none, by name. Each of `shards` reads columns of the report of one shard."""
    unknown = unknown_rules(rules)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return {rule.name: _find(rule, rules, shards, pool) for rule in unknown}


def _find(rule: Rule, rules: Sequence[StepRule], shards: Sequence[Reader], pool: ThreadPoolExecutor) -> Found:
    assert rule.kept is not None
    others = [other.rule for other in rules if not other.rule.unknown] if rule.kept.of == "passing" else []
    columns = list(dict.fromkeys([rule.column, *(other.column for other in others)]))

    def keys_of(shard: Reader) -> Keys:
        table = shard(columns)
        counts = np.ones(table.num_rows, bool)
        for other in others:
            counts &= ~other.failing(table[other.column].combine_chunks())
        values = table[rule.column].to_numpy()[counts]
        return ordered_keys(values[~np.isnan(values)])

    documents, collected, whole = 0, list[Keys](), True
    for keys in pool.map(keys_of, shards):
        documents += len(keys)
        whole = whole and documents <= SORTED
        collected = [*collected, keys] if whole else []
    if not documents:
        return Found(None, 0, 0)
    kept = ceil(Fraction(str(rule.kept.share)) * documents)
    high = rule.comparison.startswith("<")
    rank = documents - kept if high else kept - 1  # in rising order
    if whole:
        key, below, equal = _select_sorted(np.concatenate(collected), rank)
    else:
        key, below, equal = _select_by_digits(lambda count: pool.map(lambda shard: count(keys_of(shard)), shards), rank)
    return Found(key_value(key), documents, documents - below if high else below + equal)


def ordered_keys(values: npt.NDArray[Any]) -> Keys:
    """uint64 keys in the order of the numbers (float64; -0 is 0)."""
    bits = (np.ascontiguousarray(values, np.float64) + 0.0).view(np.uint64)
    negative = bits >> np.uint64(KEY - 1) == 1
    return np.where(negative, ~bits, bits | np.uint64(1 << (KEY - 1)))


def key_value(key: int) -> float:
    """The number of a key."""
    bits = key ^ (1 << (KEY - 1)) if key >> (KEY - 1) else ~key & ((1 << KEY) - 1)
    return float(np.uint64(bits).view(np.float64))


def _select_sorted(keys: Keys, rank: int) -> tuple[int, int, int]:
    """`(key, number of lower ones, number of equal ones)` of the key with a rank."""
    keys = np.sort(keys)
    key = keys[rank]
    below, to = np.searchsorted(keys, key), np.searchsorted(keys, key, "right")
    return int(key), int(below), int(to - below)


def _select_by_digits(
    count_each: Callable[[Callable[[Keys], npt.NDArray[np.int64]]], Iterable[npt.NDArray[np.int64]]], rank: int
) -> tuple[int, int, int]:
    """As `_select_sorted`; `count_each` applies a function to the keys of each shard."""
    prefix, below, equal = 0, 0, 0
    for shift in range(KEY - DIGIT, -1, -DIGIT):

        def count(keys: Keys, prefix: int = prefix, shift: int = shift) -> npt.NDArray[np.int64]:
            if shift + DIGIT < KEY:
                keys = keys[keys >> np.uint64(shift + DIGIT) == prefix]
            digits = (keys >> np.uint64(shift)) & np.uint64((1 << DIGIT) - 1)
            return np.bincount(digits.astype(np.int64), minlength=1 << DIGIT)

        total = np.zeros(1 << DIGIT, np.int64)
        for counts in count_each(count):
            total += counts
        up_to = np.cumsum(total)
        digit = int(np.searchsorted(up_to, rank - below, "right"))
        equal = int(total[digit])
        below += int(up_to[digit]) - equal
        prefix = prefix << DIGIT | digit
    return prefix, below, equal
