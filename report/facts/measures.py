"""What `corpusmill.filters.classifier.evaluate` measured, in words: for a terminal, a page and a run's report."""

from collections.abc import Mapping
from typing import Any

#: What deserves a warning: fewer examples of an answer, a lower AUC or precision, a greater calibration error for certain.
FEW, LOW_AUC, LOW_PRECISION, HIGH_ERROR = 100, 0.8, 0.5, 0.05

Measure = Mapping[str, float]


def value(measure: Measure | None) -> str:
    """A measure with three digits; a dash where it is not defined."""
    return "–" if measure is None else f"{measure['value']:.3f}"


def ends(measure: Measure) -> str:
    """A measure's interval."""
    return f"{measure['low']:.3f}–{measure['high']:.3f}"


def interval(measure: Measure | None) -> str:
    """A measure with its interval."""
    return "–" if measure is None else f"{value(measure)} ({ends(measure)})"


def doubts(found: Mapping[str, Any]) -> list[str]:
    """What speaks against trusting a label's measures, or its scores, as sentences."""
    sentences = []
    yes, no = found["yes"], found["no"]
    if min(yes, no) < FEW:
        sentences.append(f"it was measured on few examples ({yes:,} yes, {no:,} no), so the intervals are wide.")
    auc, error, precision = found["roc_auc"], found["calibration_error"], found["at_threshold"]["precision"]
    if auc is None:
        sentences.append(f"all examples have the answer {'yes' if yes else 'no'}, so nothing says how well it tells yes from no.")
    elif auc["value"] < LOW_AUC:
        sentences.append(f"it tells yes from no poorly: its AUC is {interval(auc)}.")
    if error is not None and error["low"] > HIGH_ERROR:
        sentences.append(f"its scores are no probabilities here: they are off by {interval(error)} on average.")
    if precision is not None and precision["high"] < LOW_PRECISION:
        sentences.append(f"most of what it answers with yes is no: its precision is {interval(precision)} at the threshold.")
    if found["without_score"]:
        sentences.append(f"{found['without_score']:,} texts hold nothing that it knows; they count as a score of 0.")
    return sentences


def checked(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """`found` itself. Raises KeyError, TypeError, ValueError or AttributeError where it is not what `evaluate` finds."""
    for part in (found, *found["by_source"].values(), *found["by_length"].values()):
        measured = [part[name] for name in ("roc_auc", "average_precision", "brier", "calibration_error", "calibration_error_equal_width")]
        for row in (part["at_threshold"], *(found["thresholds"] if part is found else ())):
            measured += [row[name] for name in ("precision", "recall", "f1", "kept")]
            float(row["threshold"])
        for measure in measured:
            interval(measure)
        _ = (f"{part[name]:,d}" for name in ("examples", "yes", "no"))
    for name in ("unknown", "without_score", "sources_left_out", "resamples"):
        int(found[name])
    for point in found["reliability"]:
        _ = [float(point[name]) for name in ("examples", "score", "yes", "low", "high")]
    float(found["confidence"]), float(found["threshold"])
    return found
