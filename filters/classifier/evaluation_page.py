"""An evaluation as a page that holds all it needs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from corpusmill.filters.classifier.evaluate import Judged
from corpusmill.filters.classifier.evaluation_view import warnings
from corpusmill.pipeline.storage import Storage
from corpusmill.report.page.classifier_figures import (
    MOST_LINES,
    Line,
    precision_recall_figure,
    reliability_figure,
    roc_figure,
    scores_figure,
    thresholds_figure,
)
from corpusmill.report.page.page import templates, whole_page

#: Points of a curve, bins of a histogram, sources with a histogram of their own, rows of a table.
POINTS, BINS, HISTOGRAMS, MOST = 300, 40, 12, 100
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def write_page(judged: Judged, path: str | Path) -> None:
    """Writes the page atomically. Raises InputError where it can't be written."""
    target = Path(path)
    Storage(str(target.parent)).write_bytes(target.name, render(judged).encode("utf-8", "replace"))


def render(judged: Judged) -> str:
    """The page's HTML; equal evaluations give equal pages."""
    figures: list[dict[str, Any]] = []
    labels = []
    for label, found in judged.result["labels"].items():
        charts = []
        for title, caption, figure in _figures(judged, label):
            charts.append({"title": title, "caption": caption, "figure": len(figures), "height": figure["layout"]["height"]})
            figures.append(figure)
        labels.append({"name": label, "found": found, "charts": charts})
    body = templates().get_template("classifier_page.html.jinja").render(
        result=judged.result, labels=labels, warnings=warnings(judged.result), most=MOST
    )  # fmt: skip
    return whole_page("Corpusmill classifier evaluation", body, figures)


def _figures(judged: Judged, label: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The charts of a label: title, caption, figure."""
    found = judged.result["labels"][label]
    known = judged.answers[label] >= 0
    score, yes = np.nan_to_num(judged.scores[label][known], nan=0.0), judged.answers[label][known] == 1
    source = np.array(judged.source, object)[known]
    names = [name for name in found["by_source"] if len(found["by_source"]) > 1]
    groups = [("all", score, yes), *((name, score[source == name], yes[source == name]) for name in names)]
    both = sorted((group for group in groups if group[2].any() and not group[2].all()), key=lambda group: -len(group[1]))[:MOST_LINES]
    if both:
        yield "ROC", "", roc_figure([_roc(*group) for group in both])
        yield "Precision and recall", "", precision_recall_figure([_precision_recall(*group) for group in both])
    yield "Reliability", "bins of equal mass; scores that are probabilities lie on the diagonal", reliability_figure(found["reliability"])
    yield "Thresholds", "yes: the share of texts that get this answer", thresholds_figure(found["thresholds"], found["threshold"])
    for name, scores, answers in groups[: HISTOGRAMS + 1]:
        right, wrong = (np.histogram(scores[answers == side], BINS, (0, 1))[0].tolist() for side in (True, False))
        yield f"Scores: {name}", "shares of each answer", scores_figure(right, wrong, found["threshold"])


def _roc(name: str, score: Floats, yes: Bools) -> Line:
    from sklearn.metrics import roc_curve

    wrong, right, _ = roc_curve(yes, score)
    return _thinned(name, wrong, right)


def _precision_recall(name: str, score: Floats, yes: Bools) -> Line:
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(yes, score)
    return _thinned(name, recall, precision)


def _thinned(name: str, x: Floats, y: Floats) -> Line:
    """A curve with at most about POINTS points, evenly along its length, ends included."""
    length = np.concatenate([[0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    wanted = np.linspace(0, length[-1], POINTS)
    places = np.unique(np.clip(np.searchsorted(length, wanted), 0, len(x) - 1))
    return Line(name, [round(float(v), 5) for v in x[places]], [round(float(v), 5) for v in y[places]])
