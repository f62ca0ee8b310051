# mypy: disallow-untyped-defs=False
"""Finds tokens and sentences as spaCy's blank English pipeline does. Kernels handle chunks (text between spaces) that are known already;
`english_tokenizer` splits unknown ones.

Tokens are those of datatrove's `SpaCyTokenizer("en").word_tokenize`: spaCy's, without its whitespace tokens. Each process stores known
chunks in at most about 30 MB, and empties this table when it is full; results never depend on it. Chunks of more than 64 KB, and chunks
that would take more than about half a second each (the time grows with the square of their length), get the units of `spacy_rules` as
tokens, so no text takes quadratic time.

spaCy 3.8 accepts the word IS_ALPHA once in a process and fails on the next text that has it; datatrove then drops that text. Here it is a
word like any other.
"""

import threading
from collections import namedtuple
from collections.abc import Iterator
from functools import cache

import numpy as np
import numpy.typing as npt

from corpusmill.pipeline.kernel import kernel
from corpusmill.text.buffers import read_only
from corpusmill.text.english_tokenizer import english_tokenizer
from corpusmill.text.hashing import ONE, find, hash_span
from corpusmill.text.spacy_rules import (
    DIGIT,
    EXACT,
    MOST_UNITS,
    PUNCTUATION,
    RUN,
    SENTENCE_END,
    SHAPE,
    SPACE,
    SPLITS,
    TOO_LONG,
    UPPER,
    context_key,
    exact_key,
    first_unit,
    last_unit,
    pair_hash,
    run_hash,
    scan_chunk,
    spacy_rules,
)
from corpusmill.text.utf8 import NEWLINE, decode, eight_bytes, previous
from corpusmill.text.words import FoundWords

#: The most bytes that are read before and after a chunk, for its neighbours.
MOST_CONTEXT = 4096
_SPACE = 0x20


@kernel
def continues(data, start, end, low, high, rules):
    """Whether the chunk and a neighbour, one space away, meet in two units that are neighbours in an exception, too."""
    pairs = rules.merged_pairs
    if end + 1 < high and data[end] == _SPACE:
        pair = pair_hash(last_unit(data, start, end, rules.kinds), first_unit(data, end + 1, high, rules.kinds))
        if find(pairs, pairs.size - 1, pair) >= 0:
            return True
    if start - 1 > low and data[start - 1] == _SPACE:
        pair = pair_hash(last_unit(data, low, start - 1, rules.kinds), first_unit(data, start, end, rules.kinds))
        return find(pairs, pairs.size - 1, pair) >= 0
    return False


@kernel
def context(data, start, end, low, high, rules):
    """Returns the range of bytes `(first, last)` of the chunk and its neighbours, one space apart, as far as an exception can extend."""
    first, last = start, end
    for _ in range(rules.merged_units):
        if first - 1 <= low or data[first - 1] != _SPACE:
            break
        at = first - 1
        while at > low and start - at < MOST_CONTEXT:
            before = previous(data, at)
            if rules.kinds[decode(data, before)[0]] & SPACE:
                break
            at = before
        if at == first - 1 or start - at >= MOST_CONTEXT:
            break
        first = at
    for _ in range(rules.merged_units):
        if last + 1 >= high or data[last] != _SPACE:
            break
        at = last + 1
        while at < high and at - end < MOST_CONTEXT:
            point, width = decode(data, at)
            if rules.kinds[point] & SPACE:
                break
            at += width
        if at == last + 1 or at - end >= MOST_CONTEXT:
            break
        last = at
    return first, last


@kernel
def has_merged(data, begins, start, end, rules):
    """Whether some neighbouring pieces, but not all, form an exception that spaCy merges again."""
    for first in range(start, end):
        if begins[first]:
            for last in range(first + 1, min(first + rules.longest_merged, end) + 1):
                piece = (last == end or begins[last]) and not (first == start and last == end)
                if piece and find(rules.merged, rules.merged.size - 1, hash_span(data, first, last)) >= 0:
                    return True
    return False


# ----------------------------------------------------------------------------------------------------
# Marks the begins of pieces, inside kernels: the table of known chunks, lookups, and storing the tokenizer's answers.
#
# The value of an entry has a bit for each place at which a piece can begin: the units of a shape, or the bytes of an exact chunk.
# A longer exact chunk has its bits in `pool`, and their offset there as its value.
#
# The pieces of a SENSITIVE chunk may depend on its neighbours: then it has an entry together with them (`context_key`).

#: Slots of the table, at most half of which are used (16 MB), and words of the pool (8 MB).
SLOTS, POOL = 1 << 20, 1 << 20
#: The most chunks that the tokenizer gets at once, the most words of the pool for their answers, and the most chunks that wait for answers.
MOST_QUESTIONS, MOST_POOL, MOST_WAITING = 1 << 15, 1 << 18, 1 << 14

_KNOWN_EXACTLY = np.uint64(1 << 63)  # pieces begin within runs of this shape, so the chunk has an entry by its exact bytes
_SENSITIVE = np.uint64(1 << 62)
_POOLED = np.uint64(1 << 61)
_FLAGS = _KNOWN_EXACTLY | _SENSITIVE | _POOLED
_ASKED = _FLAGS
_INLINE_BYTES = 60

#: `keys` and `values` are uint64 of length SLOTS, `pool` is uint64 of length POOL. `questions` int64 (MOST_QUESTIONS, 4): begin
#: and end of the bytes that the tokenizer gets, then those of the chunk within them. `waiting` int64 (MOST_WAITING, 3): the number of the
#: text, begin and end of the chunk. `places` is scratch. `counts` int64: one for each of QUESTIONS to POOL_ASKED.
Chunks = namedtuple("Chunks", "keys values pool questions waiting places counts")
QUESTIONS, WAITING, ENTRIES, POOL_USED, POOL_ASKED = range(5)


def new_chunks() -> Chunks:
    return Chunks(
        np.zeros(SLOTS, np.uint64),
        np.empty(SLOTS, np.uint64),
        np.empty(POOL, np.uint64),
        np.empty((MOST_QUESTIONS, 4), np.int64),
        np.empty((MOST_WAITING, 3), np.int64),
        np.empty(MOST_UNITS + 1, np.int64),
        np.zeros(5, np.int64),
    )


@kernel
def mark_texts(data, starts, ends, text, at, rules, chunks, marks):
    """Marks all pieces from byte `at` of the text number `text` on. Unknown chunks go to `chunks.waiting`.

    Returns `(text, at)`, the place to go on from. It stops early where too many chunks wait; else `text` is the number of texts.
    """
    while text < starts.size:
        end = ends[text]
        while True:
            at = mark_known(
                data, at, end, rules.kinds, rules.byte_kinds, rules.run_filter, rules.splits_mark,
                rules.exception_runs, rules.longest_exception_run, chunks.keys, chunks.values, chunks.places, marks,
            )  # fmt: skip
            if at >= end:
                break
            if chunks.counts[WAITING] == MOST_WAITING:
                return text, at
            start = at
            at, known = mark_chunk(data, start, starts[text], end, rules, chunks, marks)
            if not known:
                waiting = chunks.waiting[chunks.counts[WAITING]]
                waiting[0], waiting[1], waiting[2] = text, start, at
                chunks.counts[WAITING] += 1
        text += 1
        if text < starts.size:
            at = starts[text]
    return text, at


@kernel
def mark_known(
    data, start, end, kinds, byte_kinds, run_filter, splits_mark, exception_runs, longest_exception_run, keys, values, places, marks
):
    """Marks the pieces of chunks from `start` on, up to the first chunk that is not known by its shape alone. Returns its begin, or
    `end` where there is none.

    Most chunks are one run, or a run of letters and a mark. They need no lookup in the table, unless their run may be in an exception.
    """
    at, stop, last_load = np.uint64(start), np.uint64(end), np.uint64(max(data.size - 8, 0))  # unsigned: no index is negative
    while at < stop:
        first, seen = at, np.uint8(0)
        while at < stop:
            kind = byte_kinds[data[at]]
            if not kind & RUN:
                break
            seen |= kind
            at += ONE
        byte = data[at] if at < stop else np.uint8(_SPACE)
        length, spaced = at - first, (byte == _SPACE) | (byte == NEWLINE)
        if length == 0:
            if spaced:
                at += ONE
                continue
        elif first < last_load and (not seen & DIGIT or byte_kinds[data[at - ONE]] & DIGIT):
            value = eight_bytes(data, first)
            if length < 8:
                value &= (ONE << np.uint64(8) * length) - ONE
            filtered = run_filter[run_hash(value, length)]
            if spaced:
                if not filtered & SPLITS:
                    marks[first] = 1
                    at += ONE
                    continue
            elif (
                not filtered
                and (length > 1 and not seen & DIGIT)
                and (byte > _SPACE and byte < 0x7F)
                and (at + ONE == stop or data[at + ONE] == _SPACE)
            ):
                cases = (byte_kinds[data[at - ONE - ONE]] & UPPER != 0) << 1 | (byte_kinds[data[at - ONE]] & UPPER != 0)
                marks[first] = 1
                marks[at] = splits_mark[np.int64(byte) << 2 | cases]
                at += ONE + ONE
                continue
        begin = np.int64(first)
        point, width = decode(data, begin)
        if kinds[point] & SPACE:
            at = np.uint64(begin + width)
            continue
        after, key, how, units = scan_chunk(data, begin, end, kinds, exception_runs, longest_exception_run, places)
        slot = find(keys, SLOTS - 1, key)
        if how != SHAPE or slot < 0 or values[slot] & _FLAGS:
            return begin
        for unit in range(units):
            marks[places[unit]] = values[slot] >> np.uint64(unit) & ONE
        at = np.uint64(after)
    return end


@kernel
def mark_waiting(data, starts, ends, rules, chunks, marks):
    """Marks those waiting chunks that are known by now. The others go on waiting."""
    waiting, chunks.counts[WAITING] = chunks.counts[WAITING], 0
    for place in range(waiting):
        text, start, end = chunks.waiting[place, 0], chunks.waiting[place, 1], chunks.waiting[place, 2]
        known = end == mark_known(
            data, start, end, rules.kinds, rules.byte_kinds, rules.run_filter, rules.splits_mark,
            rules.exception_runs, rules.longest_exception_run, chunks.keys, chunks.values, chunks.places, marks,
        )  # fmt: skip
        if not known:
            _, known = mark_chunk(data, start, starts[text], ends[text], rules, chunks, marks)
        if not known:
            chunks.waiting[chunks.counts[WAITING]] = chunks.waiting[place]
            chunks.counts[WAITING] += 1


@kernel
def mark_chunk(data, start, low, high, rules, chunks, marks):
    """Marks the pieces of the chunk at `start` of the text `data[low:high]`; where they are unknown, adds a question for the tokenizer.

    Returns `(end of the chunk, whether it is known)`.
    """
    places = chunks.places
    end, key, how, units = scan_chunk(data, start, high, rules.kinds, rules.exception_runs, rules.longest_exception_run, places)
    if how == TOO_LONG:
        mark_units(data, start, end, rules.kinds, marks)
        return end, True
    value = lookup(chunks, key, start, end, start, end)
    if value == _ASKED:
        return end, False
    if value & _KNOWN_EXACTLY:
        how = EXACT
        value = lookup(chunks, exact_key(data, start, end), start, end, start, end)
        if value == _ASKED:
            return end, False
    if value & _SENSITIVE and continues(data, start, end, low, high, rules):
        first, last = context(data, start, end, low, high, rules)
        how = EXACT
        value = lookup(chunks, context_key(data, first, last, start), first, last, start, end)
        if value == _ASKED:
            return end, False
    if value & _POOLED:
        offset = np.int64(value & ~_FLAGS)
        for place in range(end - start):
            if chunks.pool[offset + (place >> 6)] >> np.uint64(place & 63) & ONE:
                marks[start + place] = 1
        return end, True
    if how == SHAPE:
        for unit in range(units):
            marks[places[unit]] = value >> np.uint64(unit) & ONE
    else:
        for place in range(end - start):
            if value >> np.uint64(place) & ONE:
                marks[start + place] = 1
    return end, True


@kernel
def mark_units(data, start, end, kinds, marks):
    """Marks each unit as a piece."""
    at, in_run = start, False
    while at < end:
        point, width = decode(data, at)
        run = kinds[point] & RUN != 0
        if not (run and in_run):
            marks[at] = 1
        in_run = run
        at += width


@kernel
def lookup(chunks, key, first, last, start, end):
    """Returns the value of a key; _ASKED where it is not known yet. Then it adds a question for the tokenizer, if there is room for one."""
    if key == 0:
        key = ONE
    keys, counts = chunks.keys, chunks.counts
    slot = np.int64(key) & (SLOTS - 1)
    while keys[slot] != 0:
        if keys[slot] == key:
            return chunks.values[slot]
        slot = (slot + 1) & (SLOTS - 1)
    if counts[QUESTIONS] < MOST_QUESTIONS and counts[POOL_ASKED] < MOST_POOL:
        keys[slot] = key
        chunks.values[slot] = _ASKED
        question = chunks.questions[counts[QUESTIONS]]
        question[0], question[1], question[2], question[3] = first, last, start, end
        counts[QUESTIONS] += 1
        counts[ENTRIES] += 1
        counts[POOL_ASKED] += pool_words(end - start)
    return _ASKED


@kernel
def pool_words(size):
    return (size + 63) >> 6 if size > _INLINE_BYTES else 0


@kernel
def store_answers(data, begins, questions, rules, chunks):
    """Stores the tokenizer's answers. `begins`: for each byte of `data`, whether a piece begins there. `questions`: as in `Chunks`, with
    places in `data`."""
    places = chunks.places
    for number in range(len(questions)):
        first, last, start, end = questions[number, 0], questions[number, 1], questions[number, 2], questions[number, 3]
        if first != start or last != end:
            _store(chunks, context_key(data, first, last, start), _exact_value(begins, start, end, chunks))
            continue
        _, key, how, units = scan_chunk(data, start, end, rules.kinds, rules.exception_runs, rules.longest_exception_run, places)
        sensitive = _SENSITIVE if has_merged(data, begins, start, end, rules) else np.uint64(0)
        if how == SHAPE:
            value, found, pieces = np.uint64(0), 0, 0
            for unit in range(units):
                if begins[places[unit]]:
                    value |= ONE << np.uint64(unit)
                    found += 1
            for at in range(start, end):
                pieces += begins[at]
            if found == pieces:
                _store(chunks, key, value | sensitive)
                continue
            _store(chunks, key, _KNOWN_EXACTLY)
            key = exact_key(data, start, end)
        _store(chunks, key, _exact_value(begins, start, end, chunks) | sensitive)


@kernel
def _exact_value(begins, start, end, chunks):
    if end - start <= _INLINE_BYTES:
        value = np.uint64(0)
        for place in range(end - start):
            value |= np.uint64(begins[start + place]) << np.uint64(place)
        return value
    offset, words = chunks.counts[POOL_USED], pool_words(end - start)
    chunks.pool[offset : offset + words] = 0
    for place in range(end - start):
        chunks.pool[offset + (place >> 6)] |= np.uint64(begins[start + place]) << np.uint64(place & 63)
    chunks.counts[POOL_USED] += words
    return _POOLED | np.uint64(offset)


@kernel
def _store(chunks, key, value):
    if key == 0:
        key = ONE
    slot = np.int64(key) & (SLOTS - 1)
    while chunks.keys[slot] != 0 and chunks.keys[slot] != key:
        slot = (slot + 1) & (SLOTS - 1)
    chunks.counts[ENTRIES] += chunks.keys[slot] == 0
    chunks.keys[slot] = key
    chunks.values[slot] = value


#: About the most bytes of chunks that the tokenizer gets in one text.
_TEXT_BYTES = 1 << 20


def find_words(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], _: str) -> FoundWords:
    """Returns the words of the rule `spacy` (`text.words.find_words`)."""
    return FoundWords(data, offsets, mark_tokens(data, offsets[:-1], offsets[1:]))


def libraries(_: str) -> tuple[str, ...]:
    return ()


def mark_tokens(data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Returns uint8 as long as `data`: 1 where a token of a text `data[starts[i]:ends[i]]` begins. Texts must be valid UTF-8.

    A token ends where the next one begins or at a space. Texts must not overlap, and do not affect each other. A chunk can depend
    only on neighbours that are one blank away, so a text and its single lines get the same marks.
    """
    marks = np.zeros(len(data), np.uint8)
    mark_again(data, starts, ends, marks)
    return marks


def mark_again(
    data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64], marks: npt.NDArray[np.uint8]
) -> None:
    """As `mark_tokens`, but writes to `marks`, which must have zeros in these texts."""
    _known_chunks().mark(data, starts, ends, marks)


@cache
def _known_chunks() -> "KnownChunks":
    return KnownChunks()


class KnownChunks:
    """The table of known chunks, which it fills by asking the tokenizer. `most`: the most entries that are used."""

    def __init__(self, most: int = SLOTS // 2) -> None:
        self._rules = spacy_rules()
        self._chunks = new_chunks()
        self._most = most
        self._lock = threading.Lock()
        self.asked = 0  # chunks that the tokenizer was asked for

    def mark(
        self, data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64], marks: npt.NDArray[np.uint8]
    ) -> None:
        """Writes the marks of the texts to `marks`, which must have zeros there."""
        if not len(starts):
            return
        data, starts, ends, chunks = read_only(data), read_only(starts), read_only(ends), self._chunks
        with self._lock:
            text, at = 0, int(starts[0])
            while text < len(starts):
                text, at = mark_texts(data, starts, ends, text, at, self._rules, chunks, marks)
                # Each round answers all questions. A chunk may need a further question (its exact bytes, its neighbours), or may
                # have found no room for its question, so it waits for a few rounds at most.
                while chunks.counts[WAITING]:
                    self._answer(data)
                    mark_waiting(data, starts, ends, self._rules, chunks, marks)
            self._empty_if_full()

    def _answer(self, data: npt.NDArray[np.uint8]) -> None:
        counts = self._chunks.counts
        questions = self._chunks.questions[: counts[QUESTIONS]].copy()
        self._empty_if_full()
        for some in _groups(questions):
            text, places = _joined(data, some)
            store_answers(np.frombuffer(text, np.uint8), self._token_starts(text), places, self._rules, self._chunks)
        self.asked += len(questions)
        counts[QUESTIONS] = counts[POOL_ASKED] = 0

    def _empty_if_full(self) -> None:
        """Empties the table when a further round of questions (each adds up to two entries) might not fit."""
        counts = self._chunks.counts
        if counts[ENTRIES] + 2 * MOST_QUESTIONS > self._most or counts[POOL_USED] + 2 * MOST_POOL > POOL:
            self._chunks.keys[:] = 0
            counts[ENTRIES] = counts[POOL_USED] = 0

    def _token_starts(self, text: bytes) -> npt.NDArray[np.uint8]:
        """Returns uint8 as long as the text: 1 where a token of spaCy begins."""
        characters = np.flatnonzero(np.frombuffer(text, np.uint8) & 0xC0 != 0x80)
        begins = np.zeros(len(text), np.uint8)
        begins[characters[english_tokenizer().begins(text.decode())]] = 1
        return begins


def _groups(questions: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    """Yields the questions in groups of about _TEXT_BYTES bytes."""
    if len(questions):
        groups = np.cumsum(questions[:, 1] - questions[:, 0]) // _TEXT_BYTES
        yield from np.split(questions, np.flatnonzero(np.diff(groups)) + 1)


def _joined(data: npt.NDArray[np.uint8], questions: npt.NDArray[np.int64]) -> tuple[bytes, npt.NDArray[np.int64]]:
    """Joins the chunks of all questions to one text. Returns the text, and the questions with their places in it.

    The chunks are separated by line breaks. Each line break is a token, and no exception contains one, so chunks do not affect each other.
    """
    text = b"\n".join(data[first:last].tobytes() for first, last in questions[:, :2])
    sizes = questions[:, 1] - questions[:, 0]
    moved = np.cumsum(sizes + 1) - (sizes + 1) - questions[:, 0]
    return text, questions + moved[:, None]


# ----------------------------------------------------------------------------------------------------
# Sentences as spaCy's `sentencizer` finds them after the blank English tokenizer, counted by kernels.
#
# A sentence ends at a mark of the sentencizer and the punctuation tokens after it. A whitespace token begins the next sentence, too;
# spaCy makes such a token of all white space but a single blank between two words.


def count_spacy_sentences(
    data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64], marks: npt.NDArray[np.uint8] | None = None
) -> npt.NDArray[np.int64]:
    """Returns int64: the number of sentences of each span `data[starts[i]:ends[i]]` of valid UTF-8, as datatrove's
    `len(split_into_sentences(span))`.

    Spans (mostly lines) must not overlap, and each is a text of its own. An empty span has one sentence, as in datatrove.
    `text.buffers.text_buffers` gives `data` and offsets of an Arrow column. `marks`: the result of `mark_tokens` for the
    same spans, where the caller has it.
    """
    counts = np.empty(len(starts), np.int64)
    _count_marked(data, starts, ends, mark_tokens(data, starts, ends) if marks is None else marks, _sentence_kinds(), counts)
    return counts


@cache
def _sentence_kinds() -> npt.NDArray[np.uint8]:
    return spacy_rules().kinds


@kernel
def _count_marked(data, starts, ends, marks, kinds, counts):
    for span in range(starts.size):
        counts[span] = sentences(data, starts[span], ends[span], marks, kinds)


@kernel
def sentences(data, start, end, marks, kinds):
    """Returns the number of sentences of a span whose tokens are marked."""
    count, ended, at = 1, False, start
    while at < end:
        point, width = decode(data, at)
        if kinds[point] & SPACE:
            skipped = point == _SPACE and at > start
            length = 0
            while at < end and kinds[point] & SPACE:
                length += 1
                at += width
                if at < end:
                    point, width = decode(data, at)
            if length > skipped and ended:
                count += 1
                ended = False
            continue
        length, all_kinds = 0, np.uint8(0xFF)
        while True:
            all_kinds &= kinds[point]
            length += 1
            at += width
            if at >= end or marks[at]:
                break
            point, width = decode(data, at)
            if kinds[point] & SPACE:
                break
        if length == 1 and all_kinds & SENTENCE_END:
            ended = True
        elif ended and not all_kinds & PUNCTUATION:
            count += 1
            ended = False
    return count
