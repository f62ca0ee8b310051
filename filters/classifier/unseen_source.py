"""Scores of texts from sources that the model knows nothing of: what a threshold must hold for.

A model is surer of text that is like its training text than of other text. A threshold that fits the held-out part of the training's own
sources is then too high for the web: the AUC there may be fine and F1 falls. So each source that has both answers is left out in turn, a
model is trained on all others (leave one source out), and the threshold is chosen on its scores of that source and on the held-out part,
which all count alike: on the sources left out alone it can end where all is yes. What that brings on text of yet other sources:
docs/classifiers.md.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from corpusmill.filters.classifier.fasttext_training import train_model
from corpusmill.filters.classifier.fit_calibration import source_weights
from corpusmill.filters.classifier.prepare import TEST, TRAIN, VALIDATION, Prepared, taken
from corpusmill.filters.classifier.scoring import score_raw
from corpusmill.filters.classifier.spec import Arguments, Compression
from corpusmill.filters.classifier.split import Index, mixed
from corpusmill.pipeline.errors import InputError

#: Examples of each answer that a source, and what is left without it, must have.
FEWEST = 50
#: Examples of a source that are scored at most.
MOST = 5_000
#: Sources that are left out in turn at most; of more, none is: they are then many shards of one kind of text.
MOST_SOURCES = 8
#: In place of a source.
HELD_OUT = -1


@dataclass(frozen=True)
class Scored:
    """n examples that their model was not trained on: rows of the examples, raw scores, and the source that was left out for each (its
    place in the spec), HELD_OUT where none was."""

    rows: Index
    raw: npt.NDArray[np.float64]
    left_out: Index

    @property
    def weights(self) -> npt.NDArray[np.float64]:
        """Each source that was left out counts as much as any other, and as the part that was held out."""
        return source_weights([str(place) for place in self.left_out])

    def joined(self, other: "Scored") -> "Scored":
        return Scored(
            np.concatenate([self.rows, other.rows]),
            np.concatenate([self.raw, other.raw]),
            np.concatenate([self.left_out, other.left_out]),
        )


def sources_to_leave_out(prepared: Prepared, label: str) -> list[int]:
    """The sources with enough examples of both answers, where the others have enough, too; none where that are too few or too many."""
    _, yes = prepared.answers(label)
    rows = prepared.rows(label, TRAIN, VALIDATION)
    found = []
    for source in range(len(prepared.spec.sources)):
        own = prepared.source[rows] == source
        if all(min(yes[rows[side]].sum(), (~yes[rows[side]]).sum()) >= FEWEST for side in (own, ~own)):
            found.append(source)
    return found if 2 <= len(found) <= MOST_SOURCES else []


def scores_by_source(prepared: Prepared, label: str, sources: list[int], arguments: Arguments) -> Iterator[Scored]:
    """For each of `sources`, its examples (outside the test part, at most MOST, drawn by hash) and their scores by a model without it.

    No near copy of a scored example is in that model's training either. The models are not compressed where that leaves scores as they are.
    """
    spec, distinct = prepared.spec, prepared.distinct
    compression = spec.compress if spec.compress and spec.compress.cutoff else None
    rows, training = prepared.rows(label, TRAIN, VALIDATION), prepared.rows(label, TRAIN)
    for source in sources:
        own = rows[prepared.source[rows] == source]
        own = np.sort(own[np.argsort(mixed(distinct.hashes[own], spec.seed, "unseen"), kind="stable")[:MOST]])
        others = training[(prepared.source[training] != source) & ~np.isin(distinct.cluster[training], distinct.cluster[own])]
        raw = trained_scores(prepared, label, prepared.order(label, others), own, arguments, compression)
        yield Scored(own, raw, np.full(len(own), source))


def trained_scores(
    prepared: Prepared, label: str, order: Index, rows: Index, arguments: Arguments, compression: Compression | None
) -> npt.NDArray[np.float64]:
    """Raw scores of `rows` by a model that is trained on `order` and forgotten."""
    _, yes = prepared.answers(label)
    with TemporaryDirectory() as folder:
        target = Path(folder) / ("model.ftz" if compression else "model.bin")
        train_model(label, target, prepared.distinct.lines, yes, order, arguments, compression, prepared.spec.seed)
        return scores_of(prepared, target, rows)


def scores_of(prepared: Prepared, model: Path, rows: Index) -> npt.NDArray[np.float64]:
    """Raw scores of some examples by a model's file."""
    return score_raw(model, prepared.spec.form, prepared.spec.window, taken(prepared.distinct.table["text"], rows))


def held_out_scores(prepared: Prepared, label: str, model: Path, part: int = VALIDATION) -> Scored:
    """A part that the model was not trained on, and its scores."""
    if part not in (VALIDATION, TEST):
        raise ValueError("the model was trained on that part")
    rows = prepared.rows(label, part)
    return Scored(rows, scores_of(prepared, model, rows), np.full(len(rows), HELD_OUT))


def check_sources(prepared: Prepared, label: str) -> None:
    """Raises InputError where the spec asks for sources that are left out, and none can be."""
    if "unseen_source" in (prepared.spec.calibrate_on, prepared.spec.threshold_on) and not sources_to_leave_out(prepared, label):
        raise InputError(
            f"label {label}: no source can be left out (unseen_source): it takes 2 to {MOST_SOURCES} sources with {FEWEST} examples "
            f"of each answer outside the test part."
        )


def unseen_scores(prepared: Prepared, label: str, arguments: Arguments) -> Scored | None:
    """The scores of all sources that can be left out, each by a model without it; None where there are no two, or no need for them."""
    needless = (prepared.spec.calibrate_on, prepared.spec.threshold_on) == ("held_out", "held_out")
    sources = [] if needless else sources_to_leave_out(prepared, label)
    return reduce(Scored.joined, scores_by_source(prepared, label, sources, arguments)) if sources else None
