"""The interval of a share that was counted on a sample, and a score with its error as text."""

import math
from statistics import NormalDist


def wilson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Returns Wilson's score interval of a share (Wilson 1927), which stays within 0 .. 1 even for shares of 0 or 1."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, weight = successes / trials, z * z / trials
    middle = (share + weight / 2) / (1 + weight)
    spread = z / (1 + weight) * math.sqrt(share * (1 - share) / trials + weight / (4 * trials))
    return max(0.0, middle - spread), min(1.0, middle + spread)


#: Scores that are no share of the items.
NUMBERS = ("bits_per_byte", "centered")


def score_text(metric: str, value: float, error: float | None) -> str:
    """Returns a score with its standard error as text: `50.2% ± 0.4`, or a number such as bits per byte."""
    if metric in NUMBERS:
        return f"{value:.3g}" + ("" if error is None else f" ± {error:.2g}")
    return f"{value:.1%}" + ("" if error is None else f" ± {100 * error:.1f}")
