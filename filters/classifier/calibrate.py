"""Calibration: maps raw scores to the share of yes among examples, fitted on examples that the model was not trained on."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field, model_validator

from corpusmill.pipeline.config import Config
from corpusmill.pipeline.errors import InputError

Floats = npt.NDArray[np.float64]
#: Raw scores closer to 0 or 1 than this count as this far away. The difference is smaller than fastText's own rounding.
EDGE = 1e-6

Method = Literal["none", "platt", "isotonic"]


class Calibration(Config):
    """A calibration of raw scores.

    `platt`: the logistic curve of `slope * log-odds + intercept` (Platt 1999), plus what the text adds by the weights `length` and
    `stop_words` (score.py: `added_odds`). `isotonic`: straight lines between points over the raw score; `x` rises strictly, `y` never
    falls. `none`: the raw score itself.
    """

    method: Method = "none"
    slope: float = 1.0
    intercept: float = 0.0
    length: float = 0.0
    stop_words: float = 0.0
    x: tuple[float, ...] = ()
    y: tuple[float, ...] = ()

    @model_validator(mode="after")
    def _fits(self) -> "Calibration":
        if self.method == "isotonic" and not (
            len(self.x) == len(self.y) > 0 and np.all(np.diff(self.x) > 0) and np.all(np.diff(self.y) >= 0)
        ):
            raise ValueError("the points of an isotonic calibration must rise")
        return self

    def apply(self, raw: npt.ArrayLike, added: float | npt.NDArray[np.float64] = 0.0) -> npt.NDArray[np.float64]:
        """Returns calibrated scores in [0, 1] for raw scores in [0, 1] of any shape; NaN stays NaN. `added`: log-odds, for `platt`."""
        scores = np.asarray(raw, np.float64)
        if self.method == "platt":
            odds = self.slope * log_odds(scores) + self.intercept + np.asarray(added, np.float64)
            return np.asarray(1 / (1 + np.exp(-np.clip(odds, -40, 40))))
        if self.method == "isotonic":
            return np.asarray(np.interp(scores, self.x, self.y))
        return scores


def log_odds(raw: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Returns log(p / (1 - p)), with p at least EDGE away from 0 and 1."""
    p = np.clip(np.asarray(raw, np.float64), EDGE, 1 - EDGE)
    return np.asarray(np.log(p / (1 - p)))


def fit_calibration(method: Method, raw: npt.ArrayLike, answer: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> Calibration:
    """Fits a calibration to raw scores (n,) and answers (n,): 1 for yes, 0 for no. Other answers, and scores that are NaN, are left out.

    `platt` (Platt 1999): a logistic regression on the log-odds. It uses Platt's targets instead of 1 and 0, so it stays finite if the
    scores separate yes from no. `isotonic` (Zadrozny & Elkan 2002): the best ascending step function. If high scores mean no, both are
    flat: a calibration never reverses a model. Raises InputError if all examples have the same answer.
    """
    scores, yes = np.asarray(raw, np.float64), np.asarray(answer)
    weight = np.ones(len(scores)) if weights is None else np.asarray(weights, np.float64)
    known = np.isfinite(scores) & ((yes == 0) | (yes == 1)) & (weight > 0)
    scores, positive, weight = scores[known], yes[known] == 1, weight[known]
    if method == "none":
        return Calibration()
    for name, found in (("yes", positive.any()), ("no", (~positive).any())):
        if not found:
            raise InputError(f"calibration: none of {len(scores):,} scored examples has the answer {name}, and both are needed.")
    return _platt(scores, positive, weight) if method == "platt" else _isotonic(scores, positive, weight)


def source_weights(source: Sequence[str] | pa.Array | pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """Returns weights (n,) by which each source counts equally; their mean is 1."""
    places = (source if isinstance(source, pa.ChunkedArray | pa.Array) else pa.array(source, pa.string())).dictionary_encode()
    places = (places.combine_chunks() if isinstance(places, pa.ChunkedArray) else places).indices.to_numpy()
    counts = np.bincount(places)
    return np.asarray(len(places) / len(counts) / counts[places] if len(counts) else np.zeros(0))


def _platt(scores: npt.NDArray[np.float64], positive: npt.NDArray[np.bool_], weight: npt.NDArray[np.float64]) -> Calibration:
    from sklearn.linear_model import LogisticRegression

    total_yes, total_no = weight[positive].sum(), weight[~positive].sum()
    target = np.where(positive, (total_yes + 1) / (total_yes + 2), 1 / (total_no + 2))
    odds = log_odds(scores)
    centre, spread = float(odds.mean()), float(odds.std())
    if spread > 0:
        # A target between 0 and 1 becomes two examples: yes with that weight, and no with the rest.
        examples = np.concatenate([(odds - centre) / spread] * 2)[:, None]
        answers, weights = np.repeat([1, 0], len(scores)), np.concatenate([weight * target, weight * (1 - target)])
        model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10, max_iter=1000).fit(examples, answers, weights)
        slope = float(model.coef_[0, 0]) / spread
        if slope > 0:
            return Calibration(method="platt", slope=slope, intercept=float(model.intercept_[0]) - slope * centre)
    share = float((weight * target).sum() / weight.sum())
    return Calibration(method="platt", slope=0.0, intercept=float(np.log(share / (1 - share))))


def _isotonic(scores: npt.NDArray[np.float64], positive: npt.NDArray[np.bool_], weight: npt.NDArray[np.float64]) -> Calibration:
    from sklearn.isotonic import IsotonicRegression

    model = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(scores, positive.astype(np.float64), weight)
    return Calibration(method="isotonic", x=tuple(model.X_thresholds_.tolist()), y=tuple(model.y_thresholds_.tolist()))


# ---- The threshold for yes: with the best F1, with a wanted precision, or to keep a wanted share.


class ThresholdRule(Config):
    """How to choose a threshold.

    `best_f1`: the greatest F1. `precision`: the lowest threshold with at least the precision `value`, for the greatest recall. `kept`: the
    lowest threshold that at most the share `value` of all examples reaches.
    """

    kind: Literal["best_f1", "precision", "kept"] = "best_f1"
    value: float | None = Field(default=None, gt=0, le=1)

    @model_validator(mode="after")
    def _whole(self) -> "ThresholdRule":
        if (self.kind == "best_f1") != (self.value is None):
            raise ValueError("best_f1 has no value" if self.kind == "best_f1" else f"{self.kind} needs a value")
        return self


def choose_threshold(score: npt.ArrayLike, answer: npt.ArrayLike, rule: ThresholdRule, weights: npt.ArrayLike | None = None) -> float:
    """Returns the threshold for scores (n,) in [0, 1] and answers (n,): 1 for yes, 0 for no.

    It is one of the scores, and yes means a score of at least the threshold. Examples with other answers count for `kept` only. A score
    that is NaN reaches no threshold. Of thresholds with equal F1 the highest is chosen. Raises InputError if no threshold fulfils the rule.
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
    """Returns the distinct scores (k,) in descending order, and for each the weights (k,) of yes and of all examples that reach it."""
    at, places = np.unique(-scores, return_inverse=True)
    of = np.bincount(places, weight, len(at)), np.bincount(places, weight * yes, len(at))
    used = of[0] > 0
    return -at[used], np.cumsum(of[1][used]), np.cumsum(of[0][used])


def _kept(at: Floats, kept: Floats, target: float) -> float:
    fitting = np.flatnonzero(kept <= target)
    if not len(fitting):
        raise InputError(f"threshold: none keeps at most {target:.2%}: {kept[0]:.2%} of the examples have the greatest score, {at[0]:.4g}.")
    return float(at[fitting[-1]])
