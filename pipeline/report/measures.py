"""What `corpusmill.filters.classifier.evaluation` measured, in words: for a terminal, a page and a run's report."""

from collections.abc import Mapping
from typing import Any

#: What deserves a warning: fewer examples of an answer, a lower AUC or precision, a greater calibration error for certain.
FEW, LOW_AUC, LOW_PRECISION, HIGH_ERROR = 100, 0.8, 0.5, 0.05

Measure = Mapping[str, float]


def value(measure: Measure | None) -> str:
    """A measure with three digits; a dash where it is not defined."""
    return "–" if measure is None else f"{measure['value']:.3f}"


def interval(measure: Measure | None) -> str:
    """A measure with its interval."""
    return "–" if measure is None else f"{measure['value']:.3f} ({measure['low']:.3f}–{measure['high']:.3f})"


def doubts(found: Mapping[str, Any]) -> list[str]:
    """What speaks against trusting a label's measures, or its scores, as sentences without their subject."""
    sentences = []
    yes, no = found["yes"], found["no"]
    if min(yes, no) < FEW:
        sentences.append(f"measured on few examples ({yes:,} yes, {no:,} no), so the intervals are wide.")
    auc, error, precision = found["roc_auc"], found["calibration_error"], found["at_threshold"]["precision"]
    if auc is None:
        sentences.append(f"all examples have the answer {'yes' if yes else 'no'}, so nothing says how well it tells yes from no.")
    elif auc["value"] < LOW_AUC:
        sentences.append(f"often takes no for yes: its AUC is {interval(auc)}.")
    if error is not None and error["low"] > HIGH_ERROR:
        sentences.append(f"its scores are no probabilities here: they are off by {interval(error)} on average.")
    if precision is not None and precision["high"] < LOW_PRECISION:
        sentences.append(f"most of what it answers with yes is no: its precision is {interval(precision)} at the threshold.")
    if found["without_score"]:
        sentences.append(f"{found['without_score']:,} texts hold nothing that it knows; they count as a score of 0.")
    return sentences
