"""Scores documents by all heads of a classifier at once.

Windows are cut from the text that is written in the classifier's form, and each is scored as fastText's own `predict(window, k=-1)` would
score it. The document's score is the score of its greatest window.

Windows do not overlap, so a bad passage may lie across the border of two. With one offensive tweet (Davidson) put into each of 1,200
English pages of 300 to 3,000 words, windows of 16 words had an AUC of .948; with an overlap of half, .960; windows of 8 words, at no
higher cost, .966. So shorter windows are the better remedy.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from corpusmill.filters.classifier.calibrate import Calibration
from corpusmill.filters.classifier.card import ClassifierDescription, Form
from corpusmill.filters.classifier.forms import NEW_LINE, form_buffers, write_form, write_tokens
from corpusmill.filters.fasttext_model import FastTextModel, read_model
from corpusmill.filters.fasttext_scores import UNKNOWN, FastTextScorer, TextTokens, text_slices
from corpusmill.filters.stop_words import stop_words
from corpusmill.pipeline.cache import sha256_of
from corpusmill.pipeline.errors import InputError

Floats = npt.NDArray[np.float64]
Hashes = npt.NDArray[np.uint64]


def load_model(path: Path, sha256: str = "") -> FastTextModel:
    """Loads a fastText classifier and, if `sha256` is given, checks its content. Raises InputError in one sentence."""
    try:
        if sha256 and (found := sha256_of(path)) != sha256:
            raise InputError(f"{path}: not the model that the classifier was made with (sha256 {found[:12]}…, not {sha256[:12]}…).")
        return read_model(str(path))
    except OSError as error:
        raise InputError(f"{path}: the model can't be read ({error.strerror}).") from error
    except ValueError as error:
        raise InputError(f"{path}: not a fastText model that can be used ({error}).") from error


def label_column(model: FastTextModel, label: str, path: Path) -> int:
    """Returns the position of a label among a model's labels. Raises InputError that names the model's labels."""
    if label in model.labels:
        return model.labels.index(label)
    shown = ", ".join(model.labels[:5]) + (f" and {len(model.labels) - 5} more" if len(model.labels) > 5 else "")
    raise InputError(f"{path}: the model has no label {label!r} (it has {shown}).")


class Scorer:
    """Scores texts by the heads of a classifier. One thread at a time may use it. Raises InputError in one sentence that names the file."""

    def __init__(self, folder: str | Path, classifier: ClassifierDescription):
        self.classifier = classifier
        paths = {head.file: Path(folder) / head.file for head in classifier.heads}
        models = {head.file: load_model(paths[head.file], head.sha256) for head in classifier.heads}
        #: Of each head, the position of its model, and that of its label.
        self._columns = [
            (list(models).index(head.file), label_column(models[head.file], head.positive, paths[head.file])) for head in classifier.heads
        ]
        self._scorer = FastTextScorer(list(models.values()), classifier.window)

    def score(self, text: pa.Array | pa.ChunkedArray) -> list[Floats]:
        """Returns the calibrated scores (texts,) by each head; NaN for a text without any word or n-gram of the model.

        The score of a text is the greatest of its windows'. It does not depend on other texts.
        """
        form = self.classifier.form
        data, offsets = form_buffers(form, text)
        size = int(offsets[-1] - offsets[0]) + 1
        new_line = NEW_LINE.encode() if form == "words" else b""
        windows = self._scorer.score(_as_written(form, data, offsets), len(offsets) - 1, size, new_line)
        scores = []
        for head, (model, column) in zip(self.classifier.heads, self._columns):
            raw = _greatest(windows.first, windows.scores[model][:, column])
            scores.append(head.calibration.apply(raw, added_odds(head.calibration, text)))
        return scores


def _as_written(form: Form, data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> Iterator[tuple[int, TextTokens]]:
    """Yields the tokens of the texts in a form, for `FastTextScorer.score`."""
    for start, end in text_slices(offsets):
        written, ends, starts, first = write_tokens(form, data, offsets[start : end + 1])
        stops = np.empty_like(starts)
        stops[:-1] = starts[1:] - 1
        last = first[1:] - 1
        stops[last[last >= first[:-1]]] = ends[1:][last >= first[:-1]]
        yield start, TextTokens(written, starts, stops, first)


def _greatest(first: npt.NDArray[np.int64], listed: npt.NDArray[np.float32]) -> Floats:
    """Returns the greatest raw score of each text's windows. Text i has the windows from `first[i]` up to `first[i + 1]`.

    A calibration never reverses an order, so the window with the greatest raw score has the greatest score.
    """
    raw = np.append(np.where(listed == UNKNOWN, np.nan, np.clip(listed.astype(np.float64), 0, 1)), np.nan)
    return np.where(first[1:] > first[:-1], np.fmax.reduceat(raw, first[:-1]), np.nan) if len(first) > 1 else np.zeros(0)


# ---- What a text's length and its share of English stop words add to the log-odds

#: Length in characters that adds nothing, and the length from which on more adds nothing; share of stop words that adds nothing.
USUAL_LENGTH, LONGEST, USUAL_SHARE = 1_000, 10_000, 0.4


def added_odds(calibration: Calibration, text: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """Returns what each text (n,) adds to the log-odds of all its windows. Words stand between white space; case is ignored."""
    added = np.zeros(len(text))
    if calibration.length:
        added += calibration.length * np.log(np.clip(pc.utf8_length(text).to_numpy(), 1, LONGEST) / USUAL_LENGTH)
    if calibration.stop_words:
        words = pc.utf8_split_whitespace(pc.utf8_trim_whitespace(pc.utf8_lower(text)))
        listed = pc.is_in(pc.list_flatten(words), pa.array(sorted(stop_words("en")), text.type)).to_numpy(zero_copy_only=False)
        counts = pc.list_value_length(words).to_numpy()
        before, ends = np.concatenate([[0], np.cumsum(listed)]), np.cumsum(counts)
        added += calibration.stop_words * ((before[ends] - before[ends - counts]) / counts - USUAL_SHARE)
    return added


# ---- The training texts of a classifier, as `training.hashes` in its folder: an evaluation can recognise them

#: File in a classifier's folder: XXH3-64 of each line that was used for training, calibration or the threshold, little-endian uint64,
#: ascending.
TRAINING_HASHES = "training.hashes"


def hash_lines(lines: pa.Array) -> Hashes:
    """Returns XXH3-64 (n,) of texts that are written in the classifier's form."""
    return np.array([xxhash.xxh3_64_intdigest(line.encode()) for line in lines.to_pylist()], np.uint64)


def hashes_file(hashes: Hashes) -> bytes:
    """Returns the content of `training.hashes`."""
    return np.unique(hashes).astype("<u8").tobytes()


def in_training(folder: str | Path, form: Form, text: pa.Array) -> npt.NDArray[np.bool_] | None:
    """Whether each text (n,), written in the form, is among the classifier's training texts; None if the classifier has no list of these.

    Raises InputError if the list is damaged.
    """
    path = Path(folder) / TRAINING_HASHES
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror}).") from error
    seen = np.frombuffer(content[: len(content) // 8 * 8], "<u8")
    if len(content) % 8 or np.any(seen[1:] <= seen[:-1]):
        raise InputError(f"{path}: damaged, not a list of 64-bit hashes that ascend ({len(content):,} bytes).")
    return np.isin(hash_lines(write_form(form, text)), seen)
