"""Which steps are too dangerous to take: not finite, or far outside what the run has seen lately."""

import math
import statistics
from collections import deque
from itertools import pairwise

#: Values that "lately" means, and how many there must be before anything can count as a spike.
WINDOW, ENOUGH = 64, 20
#: The smallest deviations, as fractions of the median: a very even stretch must not make every ripple a spike. Gradient
#: norms may well rise tenfold in a healthy run, and clipping tames that.
LOSS_FLOOR, NORM_FLOOR = 0.1, 1.0


class SpikeGuard:
    """Robust z-score over the latest finite values: their median, and the median distance of neighbours, which no outlier moves.

    Distances of neighbours tell noise from trend: around the median a loss that falls fast, as all do in the beginning, has deviations
    as large as a spike. For noise that is normal and independent the scale is its standard deviation.
    """

    def __init__(self, threshold: float, floor: float, values: list[float] | None = None):
        self.threshold, self.floor = threshold, floor
        self.values = deque(values or [], maxlen=WINDOW)

    def judge(self, value: float, name: str) -> str | None:
        """Why a step with this value must be skipped, or None. Takes a finite value into the window."""
        if not math.isfinite(value):
            return f"{name} is {value}"
        reason = self._spike(value, name)
        self.values.append(value)
        return reason

    def _spike(self, value: float, name: str) -> str | None:
        if not self.threshold or len(self.values) < ENOUGH:
            return None
        median = statistics.median(self.values)
        deviation = 1.4826 / math.sqrt(2) * statistics.median(abs(b - a) for a, b in pairwise(self.values))
        score = (value - median) / max(deviation, self.floor * abs(median), 1e-6)
        return f"{name} {value:.4g} is a spike ({score:.1f} deviations above {median:.4g})" if score > self.threshold else None
