"""Where yes begins: the threshold with the best F1, with a wanted precision, or that keeps a wanted share."""

from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from corpusmill.filters.classifier.metrics import Floats
from corpusmill.pipeline.config import Config
from corpusmill.pipeline.errors import InputError


class ThresholdRule(Config):
    """`best_f1`: the greatest F1. `precision`: the lowest threshold with at least the precision `value`, so the greatest recall that it
    allows. `kept`: the lowest threshold that at most the share `value` of all examples reaches."""

    kind: Literal["best_f1", "precision", "kept"] = "best_f1"
    value: float | None = Field(default=None, gt=0, le=1)

    @model_validator(mode="after")
    def _whole(self) -> "ThresholdRule":
        if (self.kind == "best_f1") != (self.value is None):
            raise ValueError("best_f1 has no value" if self.kind == "best_f1" else f"{self.kind} needs a value")
        return self


def choose_threshold(score: npt.ArrayLike, answer: npt.ArrayLike, rule: ThresholdRule, weights: npt.ArrayLike | None = None) -> float:
    """The threshold by scores (n,) in [0, 1] and answers (n,), 1 for yes, 0 for no; it is one of the scores, and yes is what reaches it.

    Examples with other answers count for `kept` only; scores that are NaN never reach a threshold. Of thresholds with equal F1 it is the
    highest. Raises InputError where no threshold does what is asked.
    """
    scores, answers = np.asarray(score, np.float64), np.asarray(answer)
    weight = np.ones(len(scores)) if weights is None else np.asarray(weights, np.float64)
    known = np.ones(len(scores), bool) if rule.kind == "kept" else (answers == 0) | (answers == 1)
    scores, yes, weight = scores[known], answers[known] == 1, weight[known]
    total, total_yes = float(weight.sum()), float(weight[yes].sum())
    scored = np.isfinite(scores)
    at, right, reached = _by_score(scores[scored], yes[scored], weight[scored])
    if not len(at):
        raise InputError("threshold: there is no scored example to choose it by.")
    if rule.kind == "kept":
        return _kept(at, reached / total, rule.value or 0.0)
    if not total_yes:
        raise InputError(f"threshold: none of {len(scores):,} examples has the answer yes, so there is nothing to choose it by.")
    if rule.kind == "best_f1":
        return float(at[np.argmax(2 * right / (reached + total_yes))])
    precision = right / reached
    enough = np.flatnonzero(precision >= (rule.value or 0.0))
    if not len(enough):
        best = int(np.argmax(precision))
        raise InputError(
            f"threshold: no threshold has a precision of {rule.value:g}; the greatest is {precision[best]:.3f}, "
            f"from {at[best]:.4g} on, where {right[best] / total_yes:.1%} of yes are found."
        )
    return float(at[enough[-1]])


def _by_score(scores: Floats, yes: npt.NDArray[np.bool_], weight: Floats) -> tuple[Floats, Floats, Floats]:
    """The different scores (k,), falling, and the weights (k,) of yes and of all that reach each."""
    at, places = np.unique(-scores, return_inverse=True)
    of = np.bincount(places, weight, len(at)), np.bincount(places, weight * yes, len(at))
    used = of[0] > 0
    return -at[used], np.cumsum(of[1][used]), np.cumsum(of[0][used])


def _kept(at: Floats, kept: Floats, target: float) -> float:
    fitting = np.flatnonzero(kept <= target)
    if not len(fitting):
        raise InputError(f"threshold: none keeps at most {target:.2%}: {kept[0]:.2%} of the examples have the greatest score, {at[0]:.4g}.")
    return float(at[fitting[-1]])
