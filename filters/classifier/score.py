# mypy: disallow-untyped-defs=False
"""Scores documents by several heads at once: the heads of one classifier, or of many.

A text is written once for each form. A head's windows are cut from the written text, and each is scored as fastText's own
`predict(window, k=-1)` would score it. The document's score is the score of its greatest window.

Windows do not overlap, so a bad passage may lie across the border of two. With one offensive tweet (Davidson) put into each of 1,200
English pages of 300 to 3,000 words, windows of 16 words had an AUC of .948; with an overlap of half, .960; windows of 8 words, at no
higher cost, .966. So shorter windows are the better remedy.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from corpusmill.filters.classifier.calibrate import Calibration
from corpusmill.filters.classifier.card import YES, ClassifierDescription, Form
from corpusmill.filters.classifier.forms import NEW_LINE, form_buffers, write_form, write_tokens
from corpusmill.filters.fasttext_model import FastTextModel, read_model
from corpusmill.filters.fasttext_scores import UNKNOWN, FastTextScorer, TextTokens, Unit, text_slices
from corpusmill.filters.stop_words import stop_words
from corpusmill.pipeline.cache import sha256_of
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.kernel import kernel


@dataclass(frozen=True)
class LoadedHead:
    """One label's model, and the meaning of its raw score: the probability of the label at the place `column` of `model.labels`."""

    label: str
    model: FastTextModel
    column: int
    form: Form
    window: int | None
    calibration: Calibration
    threshold: float


@dataclass(frozen=True)
class HeadScores:
    """The scores of texts by one head: float64 (texts,) each, NaN for a text without any word or n-gram of the model.

    `score`: the greatest calibrated score of the text's windows. `share`: the share of its windows at or above the threshold. `raw`: the
    raw score of the greatest window.
    """

    score: npt.NDArray[np.float64]
    share: npt.NDArray[np.float64]
    raw: npt.NDArray[np.float64]


def load_heads(folder: str | Path, classifier: ClassifierDescription) -> list[LoadedHead]:
    """Loads the heads of a classifier, in its order. Raises InputError in one sentence that names the file."""
    models: dict[str, FastTextModel] = {}
    heads = []
    for head in classifier.heads:
        path = Path(folder) / head.file
        if head.file not in models:
            models[head.file] = load_model(path, head.sha256)
        model = models[head.file]
        column = label_column(model, head.positive, path)
        heads.append(LoadedHead(head.label, model, column, classifier.form, classifier.window, head.calibration, head.threshold))
    return heads


def load_model(path: str | Path, sha256: str | None = None) -> FastTextModel:
    """Loads a fastText classifier and, if `sha256` is given, checks its content. Raises InputError in one sentence."""
    try:
        if sha256 is not None and (found := sha256_of(path)) != sha256:
            raise InputError(f"{path}: not the model that the classifier was made with (sha256 {found[:12]}…, not {sha256[:12]}…).")
        return read_model(str(path))
    except OSError as error:
        raise InputError(f"{path}: the model can't be read ({error.strerror}).") from error
    except ValueError as error:
        raise InputError(f"{path}: not a fastText model that can be used ({error}).") from error


def label_column(model: FastTextModel, label: str, path: str | Path) -> int:
    """Returns the place of a label among a model's labels. Raises InputError that names the model's labels."""
    if label in model.labels:
        return model.labels.index(label)
    shown = ", ".join(model.labels[:5]) + (f" and {len(model.labels) - 5} more" if len(model.labels) > 5 else "")
    raise InputError(f"{path}: the model has no label {label!r} (it has {shown}).")


class Scorer:
    """Scores texts by several heads. One thread at a time may use it."""

    def __init__(self, heads: Sequence[LoadedHead]):
        self.heads = list(heads)
        together: dict[Form, dict[tuple[int, int | None], list[int]]] = {}  # heads with the same model and windows share their sums
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
        """Returns the scores of the texts, in the order of the heads. A text's values do not depend on other texts."""
        found: dict[int, HeadScores] = {}
        for form, groups, scorer in self._parts:
            data, offsets = form_buffers(form, text)
            size = int(offsets[-1] - offsets[0]) + 1
            new_line = NEW_LINE.encode() if form == "words" else b""
            scored = scorer.score(_as_written(form, data, offsets), len(offsets) - 1, size, new_line)
            for places, unit, windows in zip(groups, scorer.units, scored):
                for place in places:
                    head = self.heads[place]
                    added, raw = added_odds(head.calibration, text), windows.scores[:, head.column - unit.first]
                    found[place] = _gather(head, added, windows.first, raw)
        return [found[place] for place in range(len(self.heads))]


def _as_written(form: Form, data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> Iterator[tuple[int, TextTokens]]:
    """Yields the tokens of the texts in a form, for `FastTextScorer.score`."""
    for start, end in text_slices(offsets):
        written, ends, starts, first = write_tokens(form, data, offsets[start : end + 1])
        stops = np.empty_like(starts)
        stops[:-1] = starts[1:] - 1
        last = first[1:] - 1
        stops[last[last >= first[:-1]]] = ends[1:][last >= first[:-1]]
        yield start, TextTokens(written, starts, stops, first)


def _gather(head: LoadedHead, added: npt.NDArray[np.float64], first: npt.NDArray[np.int64], listed: npt.NDArray[np.float32]) -> HeadScores:
    """Returns the scores of texts from the scores of their windows: text i has the windows from `first[i]` up to `first[i + 1]`."""
    raw = np.where(listed == UNKNOWN, np.nan, np.clip(listed.astype(np.float64), 0, 1))
    scores = HeadScores(*(np.empty(len(first) - 1) for _ in range(3)))
    score = head.calibration.apply(raw, np.repeat(added, np.diff(first)))
    gather_windows(first, raw, score, head.threshold, scores.score, scores.share, scores.raw)
    return scores


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


# ---- The score of a text, from those of its windows


@kernel
def gather_windows(first, raw, score, threshold, out_score, out_share, out_raw):
    """Computes each text's greatest score, the share of its windows at or above the threshold, and the raw score of the greatest window.

    Of windows with the same score, the greatest raw score counts. A window without a score (NaN) is below every threshold. If no window of
    a text has a score, all three are NaN.
    """
    for text in range(first.size - 1):
        best, best_raw, above = np.nan, np.nan, 0
        for window in range(first[text], first[text + 1]):
            if np.isnan(score[window]):
                continue
            above += score[window] >= threshold
            if not score[window] <= best:  # true also if `best` is NaN
                best, best_raw = score[window], raw[window]
            elif score[window] == best:
                best_raw = max(best_raw, raw[window])
        out_score[text], out_raw[text] = best, best_raw
        out_share[text] = np.nan if np.isnan(best) else above / (first[text + 1] - first[text])


# ---- Raw scores of a model that is being trained

#: Number of texts that are scored at once.
BATCH = 10_000


def score_raw(path: Path, form: Form, window: int | None, text: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """Returns the raw score of each text's greatest window (n,); NaN for a text without any word or n-gram of the model."""
    model = load_model(path)
    scorer = Scorer([LoadedHead(path.stem, model, label_column(model, YES, path), form, window, Calibration(), 0.5)])
    parts = [scorer.score(text[start : start + BATCH])[0].raw for start in range(0, len(text), BATCH)]
    return np.concatenate([np.zeros(0), *parts])


# ---- The training texts of a classifier, as `training.hashes` in its folder: an evaluation can recognise them

#: File in a classifier's folder: XXH3-64 of each line that was used for training, calibration or the threshold, little-endian uint64,
#: ascending.
TRAINING_HASHES = "training.hashes"
Hashes = npt.NDArray[np.uint64]


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
    if len(content) % 8:
        raise InputError(f"{path}: not a list of 64-bit hashes ({len(content):,} bytes).")
    seen = np.frombuffer(content, "<u8")
    if np.any(seen[1:] <= seen[:-1]):
        raise InputError(f"{path}: damaged, its hashes do not ascend.")
    hashes = hash_lines(write_form(form, text))
    places = np.searchsorted(seen, hashes)
    return np.asarray((places < len(seen)) & (np.append(seen, np.uint64(0))[places] == hashes))
