"""Reads the classifiers that scored a run's documents: their training data, their quality, and reasons to doubt them.

The filter stage writes a description of each to `filter/classifiers/NAME.json`; NAME is the column of its scores.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from corpusmill.report.queries.ask import Query, ask, columns, number_of, slug
from corpusmill.report.queries.rules import Decisions
from corpusmill.report.query.run import Run
from corpusmill.report.query.sql import literal
from corpusmill.report.read import ReportRule

#: Limits for a warning: fewer examples of an answer, a lower AUC or precision, or a greater calibration error (by the end of its interval).
FEW, LOW_AUC, LOW_PRECISION, HIGH_ERROR = 100, 0.8, 0.5, 0.05

Measure = Mapping[str, float]


def value(measure: Measure | None) -> str:
    """Formats a measure with three digits; a dash where it is not defined."""
    return "–" if measure is None else f"{measure['value']:.3f}"


def ends(measure: Measure) -> str:
    """Formats a measure's interval."""
    return f"{measure['low']:.3f}–{measure['high']:.3f}"


def interval(measure: Measure | None) -> str:
    """Formats a measure with its interval."""
    return "–" if measure is None else f"{value(measure)} ({ends(measure)})"


def doubts(found: Mapping[str, Any]) -> list[str]:
    """Returns sentences with the reasons to doubt a label's measures or scores."""
    sentences = []
    yes, no = found["yes"], found["no"]
    if min(yes, no) < FEW:
        sentences.append(f"it was measured on few examples ({yes:,} yes, {no:,} no), so the intervals are wide.")
    auc, error, precision = found["roc_auc"], found["calibration_error"], found["at_threshold"]["precision"]
    if auc is None:
        sentences.append(f"all examples have the answer {'yes' if yes else 'no'}, so how well it separates yes from no is unknown.")
    elif auc["value"] < LOW_AUC:
        sentences.append(f"it tells yes from no poorly: its AUC is {interval(auc)}.")
    if error is not None and error["low"] > HIGH_ERROR:
        sentences.append(f"its scores are not calibrated here: they are off by {interval(error)} on average.")
    if precision is not None and precision["high"] < LOW_PRECISION:
        sentences.append(f"most of its yes answers are wrong: its precision is {interval(precision)} at the threshold.")
    if found["without_score"]:
        sentences.append(f"{found['without_score']:,} texts hold no known features; they count as a score of 0.")
    return sentences


def checked(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns `found`. Raises KeyError, TypeError, ValueError or AttributeError if it is not a result of `evaluate`."""
    for part in (found, *found["by_source"].values(), *found["by_length"].values()):
        measured = [part[name] for name in ("roc_auc", "average_precision", "brier", "calibration_error")]
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


FOLDER = "classifiers/"
#: A document that is `LONGER` times as long as nearly all training texts is another kind of text. `WORD`: letters of a word with its space.
LONGER, WORD = 4, 6
BROKEN = (KeyError, TypeError, ValueError, AttributeError)


@dataclass(frozen=True)
class TrainedOn:
    """The training examples from one source: their number, and yes and no answers by label."""

    name: str
    licence: str | None
    examples: int
    answers: dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Label:
    """A label: one yes/no question. `held_out`: yes and no in the validation part, on which calibration and threshold were chosen. `test`:
    the result of `evaluate` on the test part; None if not measured. `columns`: the columns of the filter stage's report that may hold its
    scores."""

    name: str
    threshold: float
    calibration: str
    yes: int = 0
    no: int = 0
    held_out: tuple[int, int] = (0, 0)
    test: Mapping[str, Any] | None = None
    columns: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    answers: Query | None = None


@dataclass(frozen=True)
class UsedClassifier:
    """A classifier of the run, described in the file `path`. `lengths`: UTF-8 bytes of the training texts at 5%, 50% and 95%, where known.
    `ranks`: its scores only rank texts, so its thresholds mean nothing here."""

    name: str
    own_name: str
    window: int | None
    labels: tuple[Label, ...]
    licence: str | None = None
    sources: tuple[TrainedOn, ...] = ()
    different: int = 0
    lengths: tuple[int, int, int] | None = None
    decides: bool = False
    ranks: bool = False
    doubts: tuple[str, ...] = field(default=())
    path: str = ""

    def warnings(self) -> list[str]:
        """Returns all reasons to doubt the classifier."""
        return [*self.doubts, *(f"{label.name}: {sentence}" for label in self.labels for sentence in label.doubts)]


def read_classifiers(run: Run, decisions: Decisions | None) -> list[UsedClassifier]:
    """Reads the run's classifiers, ordered by name. A description that can't be read is left out with a warning."""
    found, reader = [], run.reader
    for path in sorted(reader.stages["filter"].outputs(FOLDER)):
        described = reader.json(f"filter/{path}", dict)
        if described is None:
            continue
        try:
            known = replace(classifier(PurePosixPath(path).stem, described, decisions), path=f"filter/{path}")
            if not known.ranks:
                known = replace(known, labels=tuple(replace(label, answers=_answers(run, label)) for label in known.labels))
            found.append(known)
        except BROKEN as error:
            reader.warn(f"filter/{path}: not a classifier's description ({type(error).__name__}: {error}), so it is left out.")
    return found


def _answers(run: Run, label: Label) -> Query | None:
    """Counts the run's documents that have a score of a label (`scored`), those whose answer is yes, and both among kept documents; None if
    the report has no scores of it."""
    kinds = columns(run, "filter_report")
    name = next((name for name in label.columns if name in kinds), None)
    if name is None:
        return None
    query = ask(run, f"{slug(name)}-answers", f"{name}: answers in this run", f"""
        SELECT count(score) AS scored, count(*) FILTER (score >= {literal(label.threshold)}) AS yes, yes / nullif(scored, 0) AS share,
          count(score) FILTER (kept) AS kept_scored, count(*) FILTER (kept AND score >= {literal(label.threshold)}) AS kept_yes,
          kept_yes / nullif(kept_scored, 0) AS kept_share
        FROM (SELECT kept, {number_of(name, kinds)} AS score FROM filter_report)
    """)  # fmt: skip
    return query if query.first["scored"] else None


def classifier(name: str, described: Mapping[str, Any], decisions: Decisions | None) -> UsedClassifier:
    """Reads a classifier's description. Raises KeyError, TypeError, ValueError or AttributeError if it is not valid."""
    card, heads, window = described["card"] or {}, described["heads"], described["window"]
    data = card.get("data") or {}
    labels = tuple(_label(name, head, (card.get("labels") or {}).get(head["label"]) or {}) for head in heads)
    lengths = tuple(int(data["bytes_of_a_line"][at]) for at in ("0.05", "0.5", "0.95")) if data else None
    decided = {rule.column for rule in decisions.thresholds if can_fail(rule)} if decisions else set()
    columns = {column for label in labels for column in label.columns}
    return UsedClassifier(
        name, str(described["name"]), None if window is None else int(window), labels, card.get("licence"),
        tuple(_source(source) for source in data.get("sources") or ()), int(data.get("different") or 0), lengths,  # type: ignore[arg-type]
        bool(decided & columns), bool(described.get("ranks")),
        (*map(str, card.get("limits") or ()), *_doubts(window, lengths, labels, decisions)),
    )  # fmt: skip


def can_fail(rule: ReportRule) -> bool:
    """Whether a score, which lies between 0 and 1, can fail the rule. Built-in steps have a rule that no score fails."""
    if not isinstance(rule.threshold, int | float):
        return True
    return not ((rule.comparison == "<" and rule.threshold <= 0) or (rule.comparison == ">" and rule.threshold >= 1))


def _source(given: Mapping[str, Any]) -> TrainedOn:
    answers = {label: (int(counts["yes"]), int(counts["no"])) for label, counts in given["answers"].items()}
    return TrainedOn(str(given["name"]), given["licence"], int(given["examples"]), answers)


def _label(name: str, head: Mapping[str, Any], facts: Mapping[str, Any]) -> Label:
    column = columns_of(name, str(head["label"]))
    known = str(head["label"]), float(head["threshold"]), str(head["calibration"]["method"])
    if not facts:
        return Label(*known, columns=column)
    test = checked(facts["test"]) if facts.get("test") else None
    trained, held_out = facts["trained_on"], facts["parts"]["validation"]
    sentences = [f"on the test part {sentence}" for sentence in doubts(test)] if test else []
    return Label(
        *known, int(trained["yes"]), int(trained["no"]), (int(held_out["yes"]), int(held_out["no"])), test, column, tuple(sentences)
    )


def columns_of(name: str, label: str) -> tuple[str, ...]:
    """Returns the column in which the step `classifier` puts a label's scores: NAME for the label of that name, NAME_LABEL for others."""
    suffix = re.sub(r"\W+", "_", label.removeprefix("__label__")).strip("_")
    return (name if suffix == name else f"{name}_{suffix}",)


def _doubts(window: Any, lengths: Any, labels: tuple[Label, ...], decisions: Decisions | None) -> list[str]:
    if not any(label.test for label in labels):
        return ["its description says nothing of how good it is; `corpusmill classifier evaluate` measures it on labelled text."]
    sentences = []
    applied = int(window) * WORD if window else decisions.chars_in // decisions.rows if decisions and decisions.rows else 0
    if lengths and applied > LONGER * lengths[2]:
        what = f"windows of about {applied:,} characters." if window else f"documents of {applied:,} characters on average"
        sentences.append(
            f"it was trained on short texts (95% have at most {lengths[2]:,} bytes) and judges {what}"
            + ("" if window else "; with `window` it would judge them in parts.")
        )
    return sentences
