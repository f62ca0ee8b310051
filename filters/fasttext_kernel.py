# mypy: disallow-untyped-defs=False
"""Labels' scores of fastText classifiers for Arrow texts, many times faster than fastText: the sums of a token's rows are kept.

A text's hidden vector is the mean of the rows of all its tokens' words and character n-grams, and of its word n-grams
(`Dictionary::getLine`, `Model::computeHidden` of fastText 0.9.2). Tokens repeat, so their sums are kept in a table of bounded size, those
of all models side by side; a text is read once for all of them. What is in the table changes speed alone: a token's sum is made in one
order, and sums are added in the text's order.
"""

import numpy as np

from corpusmill.filters.fasttext_output import NOT_LISTED, UNKNOWN, output_scores
from corpusmill.filters.fasttext_rows import BLOCK, FLOAT, add_rows, round_row
from corpusmill.filters.fasttext_sums import (
    BEGIN,
    CACHE_LINE,
    CHILDREN,
    DIM,
    END,
    EOS,
    FOUND_ROWS,
    IGNORED,
    INT32,
    LABELS,
    LONGEST,
    LOSS,
    NODES,
    OUTPUT,
    PLACE,
    ROWS,
    WORD_NGRAMS,
    find_word_ngrams,
    fnv,
    signed,
    sum_token,
)  # fmt: skip
from corpusmill.filters.fasttext_tokens import hash_token
from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.buffers import array_at, borrowed, matrix_at, prefetch

WAYS = 4  # places in the table for a token
KEPT_BYTES = 48  # longer tokens hardly ever come twice
CHUNK = 256  # tokens that are looked up before their sums are added
SPARE = 64  # entries for tokens that are not kept
#: Items (of four bytes) at the start of an entry: `fnv`, number of the chunk that used it last; then each model's number of rows.
HASH, USED, COUNTS = 0, 1, 2
EOS_HASH = np.uint64(3617362777)  # `fnv` of `</s>`
#: What a unit is: a model, a way of cutting windows, and which labels are asked for. Items of its row:
MODEL, LAYOUT, FIRST_LABEL, END_LABEL, RESULT, BARE = range(6)
NEVER = 1 << 62
FLOAT32 = np.zeros(0, np.float32)  # a type for `matrix_at`


@kernel
def find_entries(data, starts, ends, keys, begin, end, chunk, models, table, entries, token, found, total, slots):
    """The entries of the tokens from `begin` up to `end` into `slots` (int64); returns how many have one before the spare ones run out."""
    sets = np.uint64(table.size // WAYS)
    width = entries.shape[1] * FLOAT
    address, base = table.ctypes.data, entries.ctypes.data
    spare, last_spare = table.size, entries.shape[0]
    for at in range(begin, end):
        prefetch(address + np.int64((keys[at] >> np.uint64(32)) * sets >> np.uint64(32)) * (WAYS * 8))
    for at in range(begin, end):
        key = keys[at]
        first = np.int64((key >> np.uint64(32)) * sets >> np.uint64(32)) * WAYS
        one, two, three = table[first + 1] == key, table[first + 2] == key, table[first + 3] == key
        slot = first + one + 2 * two + 3 * three
        if table[slot] == key:
            entries[slot, USED] = chunk
        else:
            if ends[at] - starts[at] <= KEPT_BYTES:
                slot = oldest(table, entries, first, chunk)
            else:
                slot = -1
            if slot >= 0:
                table[slot] = key
            elif spare == last_spare:
                return at - begin
            else:
                slot = spare
                spare += 1
            entries[slot, USED] = chunk
            fill_entry(data, starts[at], ends[at], key, models, entries, slot, token, found, total)
        slots[at - begin] = slot
        for line in range(0, width, CACHE_LINE):
            prefetch(base + slot * width + line)
    return end - begin


@kernel
def oldest(table, entries, first, chunk):
    """The place to give up for another token: one that is free, or that was not used for longest; -1 where this chunk uses all."""
    best, age = -1, np.uint32(0)
    for slot in range(first, first + WAYS):
        if table[slot] == 0:
            return slot
        unused = np.uint32(chunk - entries[slot, USED])
        if unused > age:
            best, age = slot, unused
    return best


@kernel
def fill_entry(data, start, end, key, models, entries, slot, token, found, total):
    """Makes a token's sums for all models."""
    size = end - start + 2
    token[0], token[size - 1] = BEGIN, END
    for at in range(start, end):
        token[at - start + 1] = np.int8(data[at])
    entries[slot, HASH] = fnv(token, 1, size - 1)
    for model in range(models.shape[0]):
        numbers = borrowed(models[model])
        total[:] = 0.0
        entries[slot, COUNTS + model] = sum_token(data, start, end, key, numbers, token, size, found, total.ctypes.data)
        round_row(entries.ctypes.data + (slot * entries.shape[1] + numbers[PLACE]) * FLOAT, total.ctypes.data, numbers[DIM])


@kernel
def add_tokens(slots, begin, end, number, model, entries, running, state, found, hidden):
    """Adds the sums of the tokens `slots[begin:end]` and the rows of their word n-grams to the float64 sum at the address `hidden`.

    Returns the number of rows.
    """
    place, width = entries.ctypes.data + model[PLACE] * FLOAT, entries.shape[1] * FLOAT
    pairs = model[WORD_NGRAMS] > 1
    count = waiting = 0
    for at in range(begin, end):
        rows = entries[slots[at], COUNTS + number]
        if rows == IGNORED:
            continue
        if waiting + model[WORD_NGRAMS] >= FOUND_ROWS:
            add_rows(hidden, found, waiting, model[DIM])
            waiting = 0
        found[waiting] = place + slots[at] * width
        waiting += 1
        count += rows
        if pairs:
            more = find_word_ngrams(signed(entries[slots[at], HASH]), running, state, model, found, waiting)
            count, waiting = count + more - waiting, more
    add_rows(hidden, found, waiting, model[DIM])
    return count


@kernel
def finish_window(unit, model, running, state, found, hidden, count, values, listed, place):
    """Adds the end of the line and writes the scores of the unit's labels as row `place` of its result, NOT_LISTED for those that fastText
    does not list, and clears what was summed up.

    Where there is nothing but the end of the line, they are UNKNOWN, unless the unit is asked for what fastText makes of that.
    """
    known, waiting = count > 0 or unit[BARE], 0
    if model[EOS] >= 0:
        found[0], waiting = model[ROWS] + model[EOS] * model[DIM] * FLOAT, 1
    if model[WORD_NGRAMS] > 1:
        waiting = find_word_ngrams(signed(EOS_HASH), running, state, model, found, waiting)
    add_rows(hidden.ctypes.data, found, waiting, model[DIM])
    count += waiting
    listed = listed[: model[LABELS]]
    listed[:] = NOT_LISTED if known and count else UNKNOWN
    if known and count:
        vector = hidden[: model[DIM]]
        vector /= count
        output = matrix_at(np.uint64(model[OUTPUT]), model[DIM], model[LABELS], FLOAT32)
        children = matrix_at(np.uint64(model[CHILDREN]), model[NODES], 2, INT32)
        output_scores(vector, output, children, model[LOSS], values, listed)
    width = unit[END_LABEL] - unit[FIRST_LABEL]
    scores = array_at(np.uint64(unit[RESULT] + place * width * FLOAT), width, FLOAT32)
    scores[:] = listed[unit[FIRST_LABEL] : unit[END_LABEL]]
    hidden[:] = 0.0
    state[:] = 0


@kernel
def cut_windows(keys, begin, end, words, new_line, begins):
    """Where the windows of a text begin, of which the tokens are those from `begin` up to `end`, into `begins`; returns their number.

    A window begins with every so manyth word; what is left at the end is a window of its own where it has half as many words or more,
    else it belongs to the window before. Each text has a window, if an empty one. A token with the key `new_line` is no word; `words`
    0: the text is one window.
    """
    begins[0] = begin
    windows, inside = 1, 0
    if words:
        for at in range(begin, end):
            if keys[at] != new_line:
                if inside == words:
                    begins[windows] = at
                    windows, inside = windows + 1, 0
                inside += 1
        if windows > 1 and 2 * inside < words:
            windows -= 1
    begins[windows] = NEVER
    return windows


@kernel
def score_tokens(data, starts, ends, first, offset, new_line, models, units, layouts, windows, table, entries, clock):
    """Scores texts: the tokens of text i are those from `first[i]` up to `first[i + 1]`, and a token is `data[starts[t]:ends[t]]`.

    A layout is the number of words of a window, 0 for the whole text. Fills `windows` int64 (layouts, all texts + 1) from text `offset` on:
    text i has the windows from `windows[layout, i]` up to the next; and the unit's result, float32 (windows, labels that are asked for).
    """
    data, starts, ends, first = borrowed(data), borrowed(starts), borrowed(ends), borrowed(first)
    models, units, table, entries = borrowed(models), borrowed(units), borrowed(table), borrowed(entries)
    longest, most = 0, 0
    for at in range(first[0], first[-1]):
        longest = max(longest, ends[at] - starts[at])
    for text in range(first.size - 1):
        most = max(most, first[text + 1] - first[text])
    keys = np.empty(first[-1], np.uint64)
    for at in range(first[0], first[-1]):
        keys[at] = hash_token(data, starts[at], ends[at])
    token, found = np.empty(longest + 2, np.int8), np.empty(FOUND_ROWS + models[:, LONGEST].max() + 2, np.int64)
    wide, labels = -(-models[:, DIM].max() // BLOCK) * BLOCK, max(models[:, LABELS].max(), models[:, NODES].max())
    total, values, listed = np.empty(wide), np.empty(labels), np.empty(labels, np.float32)
    hidden = np.zeros((units.shape[0], wide))
    running = np.zeros((units.shape[0], max(models[:, WORD_NGRAMS].max() - 1, 1)), np.uint64)
    begins = np.empty((len(layouts), most + 2), np.int64)
    state, counts, window = np.zeros((units.shape[0], 2), np.int64), np.zeros(units.shape[0], np.int64), np.zeros(units.shape[0], np.int64)
    slots = np.empty(CHUNK, np.int64)
    for text in range(first.size - 1):
        begin, end = first[text], first[text + 1]
        for layout in range(len(layouts)):
            cut = cut_windows(keys, begin, end, layouts[layout], new_line, begins[layout])
            windows[layout, offset + text + 1] = windows[layout, offset + text] + cut
        window[:] = 0
        while begin < end:
            clock[0] += np.uint32(1)
            stop = begin + find_entries(
                data, starts, ends, keys, begin, min(begin + CHUNK, end), clock[0], models, table, entries, token, found, total, slots
            )
            for number in range(units.shape[0]):
                unit = units[number]
                model, layout = borrowed(models[unit[MODEL]]), unit[LAYOUT]
                at = begin
                while at < stop:
                    if at == begins[layout, window[number] + 1]:
                        place = windows[layout, offset + text] + window[number]
                        finish_window(
                            unit, model, running[number], state[number], found, hidden[number], counts[number], values, listed, place
                        )
                        counts[number] = 0
                        window[number] += 1
                    to = min(stop, begins[layout, window[number] + 1])
                    counts[number] += add_tokens(
                        slots, at - begin, to - begin, unit[MODEL], model, entries, running[number], state[number], found,
                        hidden[number].ctypes.data,
                    )  # fmt: skip
                    at = to
            begin = stop
        for number in range(units.shape[0]):
            unit = units[number]
            place = windows[unit[LAYOUT], offset + text] + window[number]
            model = borrowed(models[unit[MODEL]])
            finish_window(unit, model, running[number], state[number], found, hidden[number], counts[number], values, listed, place)
            counts[number] = 0
