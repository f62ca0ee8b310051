"""From a model's raw score to a probability: Platt's curve or isotonic steps, as fitted by filters/classifier/fit_calibration.py."""

from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import model_validator

from corpusmill.pipeline.config import Config

#: Raw scores this close to 0 or 1 count as this far from them: fastText's own rounding.
EDGE = 1e-6

Method = Literal["none", "platt", "isotonic"]


class Calibration(Config):
    """`platt`: the logistic curve of `slope * log-odds + intercept` (Platt 1999); `isotonic`: straight lines between points (`x` rises
    strictly, `y` never falls) over the raw score; `none`: the raw score itself."""

    method: Method = "none"
    slope: float = 1.0
    intercept: float = 0.0
    x: tuple[float, ...] = ()
    y: tuple[float, ...] = ()

    @model_validator(mode="after")
    def _fits(self) -> "Calibration":
        if self.method == "isotonic" and not (
            len(self.x) == len(self.y) > 0 and np.all(np.diff(self.x) > 0) and np.all(np.diff(self.y) >= 0)
        ):
            raise ValueError("the points of an isotonic calibration must rise")
        return self

    def apply(self, raw: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Calibrated scores in [0, 1] for raw scores in [0, 1], of any shape; NaN stays NaN."""
        scores = np.asarray(raw, np.float64)
        if self.method == "platt":
            return np.asarray(1 / (1 + np.exp(-np.clip(self.slope * log_odds(scores) + self.intercept, -40, 40))))
        if self.method == "isotonic":
            return np.asarray(np.interp(scores, self.x, self.y))
        return scores


def log_odds(raw: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """log(p / (1 - p)), with p kept away from 0 and 1 by EDGE."""
    p = np.clip(np.asarray(raw, np.float64), EDGE, 1 - EDGE)
    return np.asarray(np.log(p / (1 - p)))
