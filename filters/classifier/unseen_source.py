"""Scores of texts from sources that the model knows nothing of: what a calibration and a threshold must hold for.

A model is surer of text that is like its training text than of other text. A threshold that fits the held-out part of the training's own
sources is then too high for the web: the AUC there may be fine and F1 falls. So each source that has both answers is left out in turn, a
model is trained on all others (leave one source out), and its scores of that source are what the calibration is fitted to.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from corpusmill.filters.classifier.fasttext_training import train_model
from corpusmill.filters.classifier.prepare import TEST, TRAIN, VALIDATION, Prepared, taken
from corpusmill.filters.classifier.scoring import score_raw
from corpusmill.filters.classifier.spec import Arguments, Compression
from corpusmill.filters.classifier.split import Index, mixed

#: Examples of each answer that a source, and what is left without it, must have.
FEWEST = 50
#: Examples of a source that are scored at most.
MOST = 5_000
#: Sources that are left out in turn at most; of more, none is: they are then many shards of one kind of text.
MOST_SOURCES = 8


@dataclass(frozen=True)
class Scored:
    """n examples that their model was not trained on: rows of the examples, raw scores, and the sources left out (places in the spec)."""

    rows: Index
    raw: npt.NDArray[np.float64]
    sources: tuple[int, ...]


def sources_to_leave_out(prepared: Prepared, label: str) -> list[int]:
    """The sources with enough examples of both answers, where the others have enough, too; none where that are too few or too many."""
    _, yes = prepared.answers(label)
    rows = prepared.rows(label, TRAIN, VALIDATION)
    found = []
    for source in range(len(prepared.spec.sources)):
        own = prepared.source[rows] == source
        if all(_enough(yes[rows[side]]) for side in (own, ~own)):
            found.append(source)
    return found if 2 <= len(found) <= MOST_SOURCES else []


def _enough(yes: npt.NDArray[np.bool_]) -> bool:
    return bool(min(yes.sum(), (~yes).sum()) >= FEWEST)


def unseen_scores(
    prepared: Prepared, label: str, sources: list[int], arguments: Arguments, compression: Compression | None
) -> Iterator[tuple[Index, npt.NDArray[np.float64]]]:
    """For each of `sources`, its rows (outside the test part, at most MOST, drawn by hash) and their raw scores by a model without it.

    No near copy of a scored example is in that model's training either.
    """
    spec, distinct = prepared.spec, prepared.distinct
    _, yes = prepared.answers(label)
    for source in sources:
        rows = prepared.rows(label, TRAIN, VALIDATION)
        own = rows[prepared.source[rows] == source]
        own = np.sort(own[np.argsort(mixed(distinct.hashes[own], spec.seed, "unseen"), kind="stable")[:MOST]])
        others = prepared.rows(label, TRAIN)
        others = others[(prepared.source[others] != source) & ~np.isin(distinct.cluster[others], distinct.cluster[own])]
        with TemporaryDirectory() as folder:
            target = Path(folder) / ("model.ftz" if compression else "model.bin")
            train_model(label, target, distinct.lines, yes, prepared.order(label, others), arguments, compression, spec.seed)
            yield own, score_raw(target, spec.form, spec.window, taken(distinct.table["text"], own))


def held_out_scores(prepared: Prepared, label: str, model: Path, part: int = VALIDATION) -> tuple[Index, npt.NDArray[np.float64]]:
    """The rows of a part that the model was not trained on, and their raw scores."""
    if part not in (VALIDATION, TEST):
        raise ValueError("the model was trained on that part")
    rows = prepared.rows(label, part)
    return rows, score_raw(model, prepared.spec.form, prepared.spec.window, taken(prepared.distinct.table["text"], rows))


def calibration_scores(prepared: Prepared, label: str, model: Path, arguments: Arguments) -> Scored:
    """The scores that the calibration of a label is fitted to, as `calibrate_on` says."""
    spec = prepared.spec
    sources = sources_to_leave_out(prepared, label) if spec.calibrate_on != "held_out" else []
    if not sources:
        return Scored(*held_out_scores(prepared, label, model), ())
    found = list(unseen_scores(prepared, label, sources, arguments, spec.compress))
    return Scored(np.concatenate([rows for rows, _ in found]), np.concatenate([raw for _, raw in found]), tuple(sources))
