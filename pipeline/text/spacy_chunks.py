# mypy: disallow-untyped-defs=False
"""Where the pieces of chunks begin, inside kernels: the table of known chunks, looking them up, and storing spaCy's answers.

An entry's value has a bit for each place at which a piece begins: units of a shape, bytes of a chunk that is known exactly.
Longer exact chunks have their bits in `pool`, and the value is where.

Of a SENSITIVE chunk the neighbours may count (`spacy_neighbours`): then it is known together with them.
"""

from collections import namedtuple

import numpy as np

from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.hashing import ONE
from corpusmill.pipeline.text.spacy_neighbours import context, continues, has_merged
from corpusmill.pipeline.text.spacy_rules import DIGIT, RUN, SPACE, SPLITS, UPPER, run_hash
from corpusmill.pipeline.text.spacy_scan import (
    EXACT,
    MOST_UNITS,
    SHAPE,
    TOO_LONG,
    context_key,
    exact_key,
    scan_chunk,
)
from corpusmill.pipeline.text.table import find
from corpusmill.pipeline.text.utf8 import NEWLINE, decode, eight_bytes

#: Slots of the table, half of which are used; words of the pool: 16 and 8 MB.
SLOTS, POOL = 1 << 20, 1 << 20
#: Chunks that spaCy is asked for at once, words of the pool they may take, and chunks that may wait for its answers.
MOST_QUESTIONS, MOST_POOL, MOST_WAITING = 1 << 15, 1 << 18, 1 << 14

_KNOWN_EXACTLY = np.uint64(1 << 63)  # shapes whose pieces begin within runs
_SENSITIVE = np.uint64(1 << 62)
_POOLED = np.uint64(1 << 61)
_FLAGS = _KNOWN_EXACTLY | _SENSITIVE | _POOLED
_ASKED = _FLAGS
_INLINE_BYTES = 60
_SPACE = 0x20

#: `keys` uint64 and `values` uint64 of SLOTS; `pool` uint64 of POOL. `questions` int64 (MOST_QUESTIONS, 4): first and last
#: byte of what spaCy is asked, and of the chunk in it. `waiting` int64 (MOST_WAITING, 3): number of the text, begin and
#: end of the chunk. `places` is scratch. `counts` int64: see the next line.
Chunks = namedtuple("Chunks", "keys values pool questions waiting places counts")
QUESTIONS, WAITING, ENTRIES, POOL_USED, POOL_ASKED = range(5)
#: The tables of `spacy_rules.SpacyRules` that kernels need.
Rules = namedtuple(
    "Rules", "kinds byte_kinds run_filter splits_mark exception_runs longest_exception_run merged longest_merged merged_pairs merged_units"
)


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
    """Marks all pieces from byte `at` of the text number `text` on; chunks that are not known go to `chunks.waiting`.

    Returns `(text, at)` to go on from: the number of texts where all are done, less where too many chunks wait.
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
    """Marks the pieces of chunks from `start` on, up to the first that is not known by its shape alone; returns where that begins.

    Most chunks are a run, or one of letters and a mark: no table is needed unless spaCy has an exception for it.
    """
    at, stop, last_load = np.uint64(start), np.uint64(end), np.uint64(max(data.size - 8, 0))  # unsigned: none counts from the end
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
    """Marks the chunks that wait, as far as they are known by now; the others go on waiting."""
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
    """`(end, whether it is known)` of the chunk at `start` of the text `data[low:high]`. Marks its pieces, or asks for them."""
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
    """The value of a key; _ASKED where it is not known yet. Then spaCy will be asked if there is room for another question."""
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
    """Stores where pieces begin (`begins`, by byte of `data`) of chunks that spaCy was asked for, at these places of `data`."""
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
