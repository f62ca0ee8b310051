"""Fits what a raw score means: the share of yes among examples of that score, on examples that the model was not trained on."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.filters.classifier.calibration import Calibration, Method, log_odds
from corpusmill.pipeline.errors import InputError


def fit_calibration(method: Method, raw: npt.ArrayLike, answer: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> Calibration:
    """The calibration of raw scores (n,) by answers (n,), 1 for yes and 0 for no; all others, and scores that are NaN, are left out.

    `platt` (Platt 1999): a logistic regression on the log-odds, with Platt's targets in place of 1 and 0, so that it is finite where
    scores part yes from no. `isotonic` (Zadrozny & Elkan 2002): the rising steps that fit best. Where high scores mean no, both are flat:
    no calibration turns a model around. Raises InputError where an answer is missing altogether.
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
    """Weights (n,) with which each source counts as much as any other; their mean is 1."""
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
        # A target between 0 and 1 is an example that is yes with that weight and no with the rest.
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
