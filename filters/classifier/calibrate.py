"""Calibration: maps raw scores to the share of yes among examples, fitted on examples that the model was not trained on."""

from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from corpusmill.pipeline.config import Config
from corpusmill.pipeline.errors import InputError

Floats = npt.NDArray[np.float64]
#: Raw scores closer to 0 or 1 than this count as this far away. The difference is smaller than fastText's own rounding.
EDGE = 1e-6

Method = Literal["none", "platt"]


class Calibration(Config):
    """A calibration of raw scores.

    `platt`: the logistic curve of `slope * log-odds + intercept` (Platt 1999), plus what the text adds by the weights `length` and
    `stop_words` (score.py: `added_odds`). `none`: the raw score itself.
    """

    method: Method = "none"
    slope: float = Field(default=1.0, ge=0, description="Not below 0: a calibration never reverses an order.")
    intercept: float = 0.0
    length: float = 0.0
    stop_words: float = 0.0

    def apply(self, raw: npt.ArrayLike, added: float | Floats = 0.0) -> Floats:
        """Returns calibrated scores in [0, 1] for raw scores in [0, 1] of any shape; NaN stays NaN. `added`: log-odds, for `platt`."""
        scores = np.asarray(raw, np.float64)
        if self.method == "none":
            return scores
        odds = self.slope * log_odds(scores) + self.intercept + np.asarray(added, np.float64)
        return np.asarray(1 / (1 + np.exp(-np.clip(odds, -40, 40))))


def log_odds(raw: npt.ArrayLike) -> Floats:
    """Returns log(p / (1 - p)), with p at least EDGE away from 0 and 1."""
    p = np.clip(np.asarray(raw, np.float64), EDGE, 1 - EDGE)
    return np.asarray(np.log(p / (1 - p)))


def fit_calibration(raw: npt.ArrayLike, answer: npt.ArrayLike) -> Calibration:
    """Fits `platt` to raw scores (n,) and answers (n,): 1 for yes, 0 for no. Other answers, and scores that are NaN, are left out.

    It is a logistic regression on the log-odds with Platt's targets instead of 1 and 0, so it stays finite if the scores separate yes from
    no. If high scores mean no, it is flat: a calibration never reverses a model. Raises InputError if all examples have the same answer.
    """
    from sklearn.linear_model import LogisticRegression

    scores, yes = np.asarray(raw, np.float64), np.asarray(answer)
    known = np.isfinite(scores) & ((yes == 0) | (yes == 1))
    scores, positive = scores[known], yes[known] == 1
    total_yes, total_no = int(positive.sum()), int((~positive).sum())
    for name, count in (("yes", total_yes), ("no", total_no)):
        if not count:
            raise InputError(f"calibration: none of {len(scores):,} scored examples has the answer {name}, and both are needed.")
    target = np.where(positive, (total_yes + 1) / (total_yes + 2), 1 / (total_no + 2))
    odds = log_odds(scores)
    centre, spread = float(odds.mean()), float(odds.std())
    if spread > 0:
        # A target between 0 and 1 becomes two examples: yes with that weight, and no with the rest.
        examples = np.concatenate([(odds - centre) / spread] * 2)[:, None]
        answers, weights = np.repeat([1, 0], len(scores)), np.concatenate([target, 1 - target])
        model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10, max_iter=1000).fit(examples, answers, weights)
        slope = float(model.coef_[0, 0]) / spread
        if slope > 0:
            return Calibration(method="platt", slope=slope, intercept=float(model.intercept_[0]) - slope * centre)
    share = float(target.mean())
    return Calibration(method="platt", slope=0.0, intercept=float(np.log(share / (1 - share))))


def choose_threshold(score: npt.ArrayLike, answer: npt.ArrayLike, precision: float | None = None) -> float:
    """Returns the threshold for scores (n,) in [0, 1] and answers (n,), 1 for yes and 0 for no: with the greatest F1, or the lowest with at
    least this precision, for the greatest recall.

    It is one of the scores, and yes means a score of at least the threshold. Examples with other answers do not count. A score that is NaN
    reaches no threshold. Of thresholds with equal F1 the highest is chosen. Raises InputError if there is no such threshold.
    """
    scores, answers = np.asarray(score, np.float64), np.asarray(answer)
    known = (answers == 0) | (answers == 1)
    total, total_yes = int(known.sum()), int((answers[known] == 1).sum())
    known &= np.isfinite(scores)
    if not known.any() or not total_yes:
        raise InputError(f"threshold: of {total:,} examples {known.sum():,} have a score and {total_yes:,} the answer yes.")
    at, positions, counts = np.unique(-scores[known], return_inverse=True, return_counts=True)
    right, reached = np.cumsum(np.bincount(positions, answers[known] == 1)), np.cumsum(counts)
    if precision is None:
        return float(-at[np.argmax(2 * right / (reached + total_yes))])
    precisions = right / reached
    enough = np.flatnonzero(precisions >= precision)
    if not len(enough):
        best = int(np.argmax(precisions))
        raise InputError(
            f"threshold: no threshold has a precision of {precision:g}; the greatest is {precisions[best]:.3f}, "
            f"from {-at[best]:.4g} on, where {right[best] / total_yes:.1%} of yes are found."
        )
    return float(-at[enough[-1]])
