"""Scores of the labels of several fastText classifiers over the same texts."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from corpusmill.filters.fasttext_kernel import COUNTS, SPARE, WAYS, score_tokens
from corpusmill.filters.fasttext_model import FastTextModel
from corpusmill.filters.fasttext_rows import BLOCK
from corpusmill.filters.fasttext_sums import NUMBERS
from corpusmill.filters.fasttext_tokens import hash_token, split_tokens

#: Memory for the sums of tokens, for each model and at most.
TABLE_BYTES, MOST_TABLE_BYTES = 64 << 20, 256 << 20
#: Text (bytes) that is scored at once, so that its tokens stay in the processor's cache; a longer text is taken whole.
SLICE = 1 << 20


class Unit(NamedTuple):
    """What is asked for: scores of the labels `first` up to `end` of a model, for windows of so many words (None: for whole texts).

    `bare`: a window with nothing that the model knows has the scores that fastText gives for the end of a line, instead of none.
    """

    model: FastTextModel
    window: int | None
    first: int
    end: int
    bare: bool = False


class Tokens(NamedTuple):
    """Texts as tokens: token t is `data[starts[t]:ends[t]]`, and those of text i are the tokens from `first[i]` up to `first[i + 1]`."""

    data: npt.NDArray[np.uint8]
    starts: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]


class Scores(NamedTuple):
    """`scores` float32 (windows, labels): NOT_LISTED or UNKNOWN (filters.fasttext_output), both below 0, where there is none. Text i has
    the rows from `first[i]` up to `first[i + 1]`."""

    first: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]


class FastTextScorer:
    """Units over the same tokens, and the table of the tokens' sums. One thread at a time may use it."""

    def __init__(self, units: Sequence[Unit], table_bytes: int | None = None):
        self.units = list(units)
        self.models = list({id(unit.model): unit.model for unit in units}.values())
        places = {id(model): place for place, model in enumerate(self.models)}
        layouts = sorted({unit.window or 0 for unit in units})
        self._layouts = np.array(layouts, np.int64)
        self._model_rows, width = _model_rows(self.models)
        self._units = np.array(
            [(places[id(unit.model)], layouts.index(unit.window or 0), unit.first, unit.end, 0, unit.bare) for unit in units], np.int64
        ).reshape(-1, 6)
        size = min(TABLE_BYTES * len(self.models), MOST_TABLE_BYTES) if table_bytes is None else table_bytes
        sets = max(size // (WAYS * 4 * (2 + width)), 1)
        self._table: npt.NDArray[np.uint64] = np.zeros(sets * WAYS, np.uint64)
        self._entries = _aligned_rows(sets * WAYS + SPARE, width)
        self._clock = np.zeros(1, np.uint32)

    def score(self, slices: Iterator[tuple[int, Tokens]], texts: int, size: int, new_line: bytes = b"") -> list[Scores]:
        """The scores of each unit. `slices`: number of the first text and tokens, of all texts one after the other; `size`: a number of
        tokens that they all together do not exceed. The token `new_line` is no word of a window."""
        windows = np.zeros((len(self._layouts), texts + 1), np.int64)
        most = [texts if not words else texts + size // words for words in self._layouts.tolist()]
        units = self._units.copy()
        found = [np.empty((most[unit[1]], unit[3] - unit[2]), np.float32) for unit in units.tolist()]
        units[:, 4] = [scores.ctypes.data for scores in found]
        key = np.uint64(hash_token(np.frombuffer(new_line, np.uint8), 0, len(new_line)) if new_line else 0)
        for offset, tokens in slices:
            score_tokens(*tokens, offset, key, self._model_rows, units, self._layouts, windows, self._table, self._entries, self._clock)
        return [Scores(windows[unit[1]], scores[: windows[unit[1], -1]]) for unit, scores in zip(units.tolist(), found)]


def text_slices(offsets: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """`(first, end)` of runs of texts with SLICE bytes or a little less; at least a text each."""
    start, last = 0, len(offsets) - 1
    while start < last:
        end = max(int(np.searchsorted(offsets, offsets[start] + SLICE, "right")) - 1, start + 1)
        yield start, min(end, last)
        start = min(end, last)


def as_fasttext_reads(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> Iterator[tuple[int, Tokens]]:
    """The tokens of texts as fastText finds them; newlines are spaces."""
    for start, end in text_slices(offsets):
        part = offsets[start : end + 1]
        room = int(part[-1] - part[0]) // 2 + end - start
        tokens = Tokens(data, np.empty(room, np.int64), np.empty(room, np.int64), np.empty(end - start + 1, np.int64))
        split_tokens(data, part, *tokens[1:])
        yield start, tokens


def _model_rows(models: Sequence[FastTextModel]) -> tuple[npt.NDArray[np.int64], int]:
    """What the kernels know of models, a row each (`filters.fasttext_sums`), and the number of items of an entry of the table."""
    rows = np.empty((len(models), NUMBERS), np.int64)
    place = -(-(COUNTS + len(models)) // BLOCK) * BLOCK
    for row, model in zip(rows, models):
        row[:] = (
            model.shortest, model.longest, model.bucket_count, model.word_count, model.word_ngrams, model.eos, model.loss,
            len(model.labels), model.rows.shape[1], len(model.children),
            model.words.ctypes.data, model.word_rows.ctypes.data, len(model.words), model.buckets.ctypes.data if model.buckets.size else 0,
            model.rows.ctypes.data, model.output.ctypes.data, model.children.ctypes.data, place,
        )  # fmt: skip
        place += -(-model.rows.shape[1] // BLOCK) * BLOCK
    return rows, place


def _aligned_rows(count: int, width: int) -> npt.NDArray[np.uint32]:
    """Rows of zeros of which each begins at a cache line's border (`width` is a multiple of 16)."""
    memory = np.zeros(count * width + BLOCK, np.uint32)
    skip = -memory.ctypes.data // 4 % BLOCK
    return memory[skip : skip + count * width].reshape(count, width)
