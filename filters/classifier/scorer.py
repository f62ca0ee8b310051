"""Scores of documents by several heads at once: the heads of one classifier, or of many.

A text is written once for each form. A head's windows are cut from the written text, and each is scored as fastText's own
`predict(window, k=-1)` would; the document's score is that of its greatest window.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.filters.classifier.calibration import Calibration
from corpusmill.filters.classifier.card import Classifier, Form
from corpusmill.filters.classifier.forms import write_form
from corpusmill.filters.fasttext_model import FastTextModel, read_model
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.text.buffers import text_buffers


@dataclass(frozen=True)
class LoadedHead:
    """One label's model, and what its raw score means. `column`: the place in `model.labels` of the label whose probability is raw."""

    label: str
    model: FastTextModel
    column: int
    complement: bool
    form: Form
    window: int | None
    calibration: Calibration
    threshold: float


@dataclass(frozen=True)
class HeadScores:
    """float64 (texts,) each, NaN for a text with nothing that the model knows.

    `score`: the greatest calibrated score of the text's windows; `share`: of the windows at or above the threshold; `raw`: that of the
    greatest window.
    """

    score: npt.NDArray[np.float64]
    share: npt.NDArray[np.float64]
    raw: npt.NDArray[np.float64]


def load_heads(folder: str | Path, classifier: Classifier) -> list[LoadedHead]:
    """The heads of a classifier, in its order. Raises InputError in one sentence that names the file."""
    models: dict[str, FastTextModel] = {}
    heads = []
    for head in classifier.heads:
        path = Path(folder) / head.file
        if head.file not in models:
            models[head.file] = load_model(path, head.sha256)
        heads.append(
            LoadedHead(
                head.label,
                models[head.file],
                label_column(models[head.file], head.positive, path),
                head.complement,
                classifier.form,
                classifier.window,
                head.calibration,
                head.threshold,
            )  # fmt: skip
        )
    return heads


def load_model(path: str | Path, sha256: str | None = None) -> FastTextModel:
    """A fastText classifier, of which the content is known where `sha256` is given. Raises InputError in one sentence."""
    try:
        if sha256 is not None:
            with open(path, "rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != sha256:
                raise InputError(f"{path}: not the model that the classifier was made with (sha256 {found[:12]}…, not {sha256[:12]}…).")
        return read_model(str(path))
    except OSError as error:
        raise InputError(f"{path}: the model can't be read ({error.strerror}).") from error
    except ValueError as error:
        raise InputError(f"{path}: not a fastText model that can be used ({error}).") from error


def label_column(model: FastTextModel, label: str, path: str | Path) -> int:
    """Where a label stands in a model. Raises InputError that names those that it has."""
    if label in model.labels:
        return model.labels.index(label)
    shown = ", ".join(model.labels[:5]) + (f" and {len(model.labels) - 5} more" if len(model.labels) > 5 else "")
    raise InputError(f"{path}: the model has no label {label!r} (it has {shown}).")


class Scorer:
    """Scores texts by several heads. One thread at a time may use it."""

    def __init__(self, heads: Sequence[LoadedHead]):
        from corpusmill.filters.fasttext_kernel import TokenSums

        self.heads = list(heads)
        self._kept = {id(head.model): TokenSums(head.model.rows.shape[1]) for head in self.heads}

    def score(self, text: pa.Array | pa.ChunkedArray) -> list[HeadScores]:
        """The scores of the texts, in the order of the heads. A text's values do not depend on the others."""
        from corpusmill.filters.classifier.windows_kernel import cut_windows, gather_windows
        from corpusmill.filters.fasttext_kernel import label_scores
        from corpusmill.pipeline.text.classes import character_classes

        written = {form: text_buffers(write_form(form, text)) for form in {head.form for head in self.heads}}
        found = []
        for head in self.heads:
            data, offsets = written[head.form]
            borders, first = offsets, np.arange(len(offsets))
            if head.window is not None:
                borders, first = cut_windows(data, offsets, head.window, head.form == "words")
            listed = label_scores(head.model, self._kept[id(head.model)], data, borders, character_classes(), 0)
            raw = np.where((listed >= 0).any(axis=1), np.clip(listed[:, head.column].astype(np.float64), 0, 1), np.nan)
            if head.complement:
                raw = 1 - raw
            scores = HeadScores(*(np.empty(len(text)) for _ in range(3)))
            gather_windows(first, raw, head.calibration.apply(raw), head.threshold, scores.score, scores.share, scores.raw)
            found.append(scores)
        return found
