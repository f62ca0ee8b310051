"""A search for fastText's arguments that ends alike for all who give it the same number of trials.

fastText's own autotune trains with as many threads as there are and stops by the clock, so no two runs of it agree. Here the sequence of
argument sets is fixed by the seed, each is trained by one thread, and the clock decides only how many of them are tried.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash

from corpusmill.filters.classifier.prepare import TRAIN, VALIDATION, Prepared
from corpusmill.filters.classifier.spec import Arguments
from corpusmill.filters.classifier.unseen_source import scores_by_source, sources_to_leave_out, trained_scores
from corpusmill.pipeline.errors import InputError

#: What each trial draws from, one value a row.
CHOICES: dict[str, list[dict[str, Any]]] = {
    "lr": [{"lr": value} for value in (0.05, 0.1, 0.25, 0.5, 1.0)],
    "epoch": [{"epoch": value} for value in (2, 3, 5, 10, 20)],
    "dim": [{"dim": value} for value in (8, 16, 32, 64)],
    "words": [{"wordNgrams": value} for value in (1, 2, 3)],
    "characters": [{"minn": least, "maxn": most} for least, most in ((0, 0), (2, 4), (2, 5), (2, 6), (3, 5), (3, 6), (4, 6))],
    "bucket": [{"bucket": value} for value in (50_000, 200_000, 500_000)],
    "rare": [{"minCount": value} for value in (1, 2, 5)],
}
#: Draws that repeat an earlier trial, one after the other, before the search ends.
MOST_REPEATS = 100


@dataclass(frozen=True)
class Tuned:
    """`measure` says what `score` of each trial is; a trial that could not be trained has None. `chosen` is a place in `trials`."""

    measure: str
    trials: list[dict[str, Any]]
    chosen: int

    @property
    def arguments(self) -> Arguments:
        return Arguments.model_validate(self.trials[self.chosen]["arguments"])


def argument_sets(first: Arguments, seed: int) -> Iterator[Arguments]:
    """The given arguments, then ever new ones, all fixed by the seed."""
    seen: set[Arguments] = set()
    repeats = number = 0
    found = first
    while repeats < MOST_REPEATS:
        if found in seen:
            repeats += 1
        else:
            seen.add(found)
            repeats = 0
            yield found
        number += 1
        drawn: dict[str, Any] = {}
        for name, values in CHOICES.items():
            drawn |= values[xxhash.xxh3_64_intdigest(f"{name}:{number}", seed) % len(values)]
        found = first.model_copy(update=drawn)


def autotune(prepared: Prepared, say: Callable[[str], None]) -> Tuned:
    """Tries argument sets until the time or the number of trials is over (a trial that would most likely end too late is not begun).

    Each is judged by the area under the ROC curve, averaged over labels: on sources that its model was not trained on where there are
    several (see unseen_source.py), else by the average precision on the validation part.
    """
    limits = prepared.spec.autotune
    if limits is None:
        raise ValueError("the spec has no autotune")
    unseen = {label: sources_to_leave_out(prepared, label) for label in prepared.spec.labels}
    by_source = all(unseen.values()) and prepared.spec.threshold_on != "held_out"
    measure = "AUC on sources that were left out" if by_source else "average precision on the validation part"
    begin, longest = time.monotonic(), 0.0
    trials: list[dict[str, Any]] = []
    for arguments in argument_sets(prepared.spec.fasttext, prepared.spec.seed):
        started = time.monotonic()
        over = limits.seconds is not None and trials and started - begin + longest > limits.seconds
        if over or (limits.trials is not None and len(trials) >= limits.trials):
            break
        score = _tried(prepared, arguments, unseen if by_source else None)
        longest = max(longest, time.monotonic() - started)
        trials.append({"arguments": arguments.model_dump(mode="json"), "score": score})
        say(f"trial {len(trials)}: {measure} {'not trained' if score is None else f'{score:.4f}'} ({_short(arguments)})")
    scores = [-1.0 if trial["score"] is None else trial["score"] for trial in trials]
    if max(scores) < 0:
        raise InputError("autotune: none of the argument sets could be trained; lower fasttext.lr.")
    return Tuned(measure, trials, int(np.argmax(scores)))


def _tried(prepared: Prepared, arguments: Arguments, unseen: dict[str, list[int]] | None) -> float | None:
    try:
        found = [_score(prepared, label, arguments, unseen[label] if unseen else None) for label in prepared.spec.labels]
    except InputError:
        return None
    return float(np.mean(found))


def _score(prepared: Prepared, label: str, arguments: Arguments, sources: list[int] | None) -> float:
    from sklearn.metrics import average_precision_score, roc_auc_score

    _, yes = prepared.answers(label)
    if sources:
        scored = scores_by_source(prepared, label, sources, arguments)
        return float(np.mean([roc_auc_score(yes[each.rows], np.nan_to_num(each.raw)) for each in scored]))
    order, rows = prepared.order(label, prepared.rows(label, TRAIN)), prepared.rows(label, VALIDATION)
    return float(average_precision_score(yes[rows], np.nan_to_num(trained_scores(prepared, label, order, rows, arguments, None))))


def _short(arguments: Arguments) -> str:
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in arguments.model_dump().items()
    )
