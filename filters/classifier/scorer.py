"""Scores of documents by several heads at once: the heads of one classifier, or of many.

A text is written once for each form. A head's windows are cut from the written text, and each is scored as fastText's own
`predict(window, k=-1)` would; the document's score is that of its greatest window.

Windows do not overlap, so what is bad may lie across a border. Measured with one offensive tweet (Davidson) put somewhere into each of
1,200 English pages of 300 to 3,000 words: windows of 16 words had an AUC of .948, .960 where they overlapped by half, and .966 with
windows of 8, which are as many and need no second sum. (50 words: .832, .855; 25: .911, .931.) A shorter window is the better remedy.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.filters.classifier.calibration import Calibration
from corpusmill.filters.classifier.card import Classifier, Form
from corpusmill.filters.classifier.forms import NEW_LINE, write_tokens
from corpusmill.filters.fasttext_model import FastTextModel, read_model
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.text.buffers import text_buffers

if TYPE_CHECKING:
    from corpusmill.filters.fasttext_scores import Tokens


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
        model = models[head.file]
        column = label_column(model, head.positive, path)
        heads.append(
            LoadedHead(
                label=head.label,
                model=model,
                column=column,
                complement=head.complement,
                form=classifier.form,
                window=classifier.window,
                calibration=head.calibration,
                threshold=head.threshold,
            )
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
        from corpusmill.filters.fasttext_scores import FastTextScorer, Unit

        self.heads = list(heads)
        together: dict[Form, dict[tuple[int, int | None], list[int]]] = {}  # heads of the same model and windows are summed up once
        for place, head in enumerate(self.heads):
            together.setdefault(head.form, {}).setdefault((id(head.model), head.window), []).append(place)
        self._parts: list[tuple[Form, list[list[int]], FastTextScorer]] = []
        for form, groups in together.items():
            units = []
            for places in groups.values():
                columns = [self.heads[place].column for place in places]
                units.append(Unit(self.heads[places[0]].model, self.heads[places[0]].window, min(columns), max(columns) + 1))
            self._parts.append((form, list(groups.values()), FastTextScorer(units)))

    def score(self, text: pa.Array | pa.ChunkedArray) -> list[HeadScores]:
        """The scores of the texts, in the order of the heads. A text's values do not depend on the others."""
        data, offsets = text_buffers(text)
        found: dict[int, HeadScores] = {}
        for form, groups, scorer in self._parts:
            size = int(offsets[-1] - offsets[0]) + 1
            new_line = NEW_LINE.encode() if form == "words" else b""
            scored = scorer.score(_as_written(form, data, offsets), len(offsets) - 1, size, new_line)
            for places, unit, windows in zip(groups, scorer.units, scored):
                for place in places:
                    head = self.heads[place]
                    found[place] = _gather(head, windows.first, windows.scores[:, head.column - unit.first])
        return [found[place] for place in range(len(self.heads))]


def _as_written(form: Form, data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> Iterator[tuple[int, "Tokens"]]:
    """The tokens of the texts in a form, for `FastTextScorer.score`."""
    from corpusmill.filters.fasttext_scores import Tokens, text_slices

    for start, end in text_slices(offsets):
        written, ends, starts, first = write_tokens(form, data, offsets[start : end + 1])
        stops = np.empty_like(starts)
        stops[:-1] = starts[1:] - 1
        last = first[1:] - 1
        stops[last[last >= first[:-1]]] = ends[1:][last >= first[:-1]]
        yield start, Tokens(written, starts, stops, first)


def _gather(head: LoadedHead, first: npt.NDArray[np.int64], listed: npt.NDArray[np.float32]) -> HeadScores:
    """The scores of texts from those of their windows: text i has the windows from `first[i]` up to `first[i + 1]`."""
    from corpusmill.filters.classifier.windows_kernel import gather_windows
    from corpusmill.filters.fasttext_output import UNKNOWN

    raw = np.where(listed == UNKNOWN, np.nan, np.clip(listed.astype(np.float64), 0, 1))
    if head.complement:
        raw = 1 - raw
    scores = HeadScores(*(np.empty(len(first) - 1) for _ in range(3)))
    gather_windows(first, raw, head.calibration.apply(raw), head.threshold, scores.score, scores.share, scores.raw)
    return scores
