"""Where spaCy's English tokens begin in a batch of texts: known chunks by kernels, unknown ones by spaCy itself.

Tokens are those of datatrove's `SpaCyTokenizer("en").word_tokenize`, that is spaCy's less its tokens of whitespace. What is
known is kept per process, in at most about 30 MB; it is forgotten when it is full. It never changes results.
Chunks of more than 64 KB, and such that would take spaCy more than about half a second each (its time grows with the square
of their length), get the units of `spacy_rules` for tokens instead. So no text takes quadratic time.

spaCy 3.8 knows the word IS_ALPHA once a process and fails on the next text that has it; datatrove then removes it. Here it is a word
like others, whatever came before.
"""

import threading
from collections.abc import Iterator
from functools import cache

import numpy as np
import numpy.typing as npt

from corpusmill.pipeline.text.spacy_chunks import (
    ENTRIES,
    MOST_POOL,
    MOST_QUESTIONS,
    POOL,
    POOL_ASKED,
    POOL_USED,
    QUESTIONS,
    SLOTS,
    WAITING,
    Rules,
    mark_texts,
    mark_waiting,
    new_chunks,
    store_answers,
)
from corpusmill.pipeline.text.spacy_rules import spacy_rules

#: Bytes of chunks that spaCy gets in one text.
_TEXT_BYTES = 1 << 20
#: The word on which spaCy may fail, and one that it treats as any other of this shape.
_FATAL_WORD = (b"IS_ALPHA", b"IS_ALPHB")


def mark_tokens(data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """uint8 as long as `data`: 1 where a token begins of one of the texts `data[starts[i]:ends[i]]`, which must be valid UTF-8.

    A token ends where the next one begins or at a space. Texts must not overlap; each is marked as if it stood alone. What is
    beside a chunk counts only one blank away (`spacy_neighbours`): the marks of a text are those of its lines.
    """
    marks = np.zeros(len(data), np.uint8)
    mark_again(data, starts, ends, marks)
    return marks


def mark_again(
    data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64], marks: npt.NDArray[np.uint8]
) -> None:
    """`mark_tokens` into an array that has zeros in these texts."""
    _known_chunks().mark(data, starts, ends, marks)


@cache
def _known_chunks() -> "KnownChunks":
    return KnownChunks()


class KnownChunks:
    """The table of chunks, and how it is filled."""

    def __init__(self) -> None:
        self._spacy = spacy_rules()
        self._rules = Rules(*(getattr(self._spacy, name) for name in Rules._fields))
        self._chunks = new_chunks()
        self._lock = threading.Lock()
        self.asked = 0  # chunks that spaCy was asked for

    def mark(
        self, data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64], marks: npt.NDArray[np.uint8]
    ) -> None:
        """Fills `marks`, which has zeros in the texts."""
        if not len(starts):
            return
        chunks = self._chunks
        with self._lock:
            text, at = 0, int(starts[0])
            while text < len(starts):
                text, at = mark_texts(data, starts, ends, text, at, self._rules, chunks, marks)
                # Each round answers all that was asked. Then a chunk waits only for the next question about it, or for room to
                # ask, so it waits for a few rounds at most.
                while chunks.counts[WAITING]:
                    self._answer(data)
                    mark_waiting(data, starts, ends, self._rules, chunks, marks)
            self._make_room()

    def _answer(self, data: npt.NDArray[np.uint8]) -> None:
        counts = self._chunks.counts
        questions = self._chunks.questions[: counts[QUESTIONS]].copy()
        self._make_room()
        for some in _groups(questions):
            text, places = _joined(data, some)
            store_answers(np.frombuffer(text, np.uint8), self._token_starts(text), places, self._rules, self._chunks)
        self.asked += len(questions)
        counts[QUESTIONS] = counts[POOL_ASKED] = 0

    def _make_room(self) -> None:
        """Forgets everything when a round of questions (each makes up to two entries) might not fit any more."""
        counts = self._chunks.counts
        if counts[ENTRIES] + 2 * MOST_QUESTIONS > SLOTS // 2 or counts[POOL_USED] + 2 * MOST_POOL > POOL:
            self._chunks.keys[:] = 0
            counts[ENTRIES] = counts[POOL_USED] = 0

    def _token_starts(self, text: bytes) -> npt.NDArray[np.uint8]:
        """uint8 as long as the text: 1 where spaCy begins a token."""
        text = text.replace(*_FATAL_WORD)
        with self._spacy.tokenizer.vocab.memory_zone():
            document = self._spacy.tokenizer(text.decode())
            widths = document.to_array(["LENGTH", "SPACY"]).astype(np.int64).sum(axis=1)
            del document
        characters = np.flatnonzero(np.frombuffer(text, np.uint8) & 0xC0 != 0x80)
        begins = np.zeros(len(text), np.uint8)
        begins[characters[np.cumsum(widths) - widths]] = 1
        return begins


def _groups(questions: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    """Questions in groups of about _TEXT_BYTES."""
    if len(questions):
        groups = np.cumsum(questions[:, 1] - questions[:, 0]) // _TEXT_BYTES
        yield from np.split(questions, np.flatnonzero(np.diff(groups)) + 1)


def _joined(data: npt.NDArray[np.uint8], questions: npt.NDArray[np.int64]) -> tuple[bytes, npt.NDArray[np.int64]]:
    """One text of all that is asked, and the questions with their places in it.

    A line break between two chunks is a token of spaCy's, and no exception has one within: so what is beside a chunk plays no part.
    """
    text = b"\n".join(data[first:last].tobytes() for first, last in questions[:, :2])
    sizes = questions[:, 1] - questions[:, 0]
    moved = np.cumsum(sizes + 1) - (sizes + 1) - questions[:, 0]
    return text, questions + moved[:, None]
