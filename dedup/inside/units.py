# mypy: disallow-untyped-defs=False
"""Lines and paragraphs as 64-bit keys of their normalised form, and texts without some of them.

64 bits are CCNet's choice, too: of 10^11 different lines some 270 pairs share a key.
"""

from functools import cache

import numpy as np
import numpy.typing as npt

from corpusmill.dedup.config import LineForm
from corpusmill.dedup.words import read_only
from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.buffers import text_array
from corpusmill.pipeline.text.hashing import BASE, ONE, find, hash_span, insert, mix64, table_size
from corpusmill.pipeline.text.lines import paragraph_end
from corpusmill.pipeline.text.utf8 import (
    DIGIT,
    NEWLINE,
    WORD,
    character_classes,
    count_byte,
    count_characters,
    decode,
    find_byte,
    lowercase_table,
    strip_end,
    strip_start,
)

#: What CCNet's `normalize_for_dedup` takes out, after digits became 0: punctuation that is not ASCII's, and control characters.
CCNET_LEFT_OUT = "，。、„”“«»」「《》´∶：？！（）；–—．～’…━〈〉【】％►" + "".join(map(chr, [*range(32), *range(127, 160)]))

Data = npt.NDArray[np.uint8]
Offsets = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]


@cache
def unit_forms(how: LineForm) -> npt.NDArray[np.uint32]:
    """uint32 of length 0x110000: one more than what each character becomes, 0 where it is left out; empty for `none`.

    Lower-casing is `str.lower` where it gives one character.
    """
    if how == "none":
        return np.zeros(0, np.uint32)
    classes = character_classes()
    forms = lowercase_table() + np.uint32(1)
    forms[classes & DIGIT != 0] = ord("0") + 1
    if how == "words":
        forms[classes & WORD == 0] = 0
    else:
        forms[[ord(character) for character in CCNET_LEFT_OUT]] = 0
    return forms


@kernel(error_model="numpy")
def _hash(data, start, end, forms):
    """The hash of one unit; of one that its form leaves empty, the hash of its bytes: marks are not equal for having no letters."""
    value = ONE
    i = start
    if forms.size:
        while i < end:
            point = np.int64(data[i])
            if point < 0x80:
                i += 1
            else:
                point, width = decode(data, i)
                i += width
            form = np.uint64(forms[point])
            value = value * BASE + form if form else value
    return hash_span(data, start, end) if value == ONE else mix64(value)


@kernel
def _unit_end(data, at, end, paragraphs):
    """`(end of the unit, start of the next)`; the last unit ends at `end`."""
    if paragraphs:
        return paragraph_end(data, at, end)
    stop = find_byte(data, at, end, NEWLINE)
    return stop, min(stop + 1, end)


@kernel
def _long_enough(data, start, end, min_chars):
    return end - start >= min_chars and (end - start >= 4 * min_chars or count_characters(data, start, end) >= min_chars)


@kernel(error_model="numpy")
def _unit_keys(data, offsets, hosts, forms, classes, paragraphs, min_chars, scratch, keys, texts, fresh):
    count = 0
    for d in range(len(offsets) - 1):
        at, end = offsets[d], offsets[d + 1]
        size = table_size(count_byte(data, at, end, NEWLINE) + 1)
        scratch[:size] = 0
        while True:
            stop, after = _unit_end(data, at, end, paragraphs)
            first = strip_start(data, at, stop, classes)
            last = strip_end(data, first, stop, classes)
            if _long_enough(data, first, last, min_chars):
                keys[count] = mix64(_hash(data, first, last, forms) ^ hosts[d])
                texts[count] = d
                fresh[count] = not insert(scratch, size - 1, keys[count])
                count += 1
            if stop == end:
                break
            at = after
    return count


def unit_keys(
    data: Data, offsets: Offsets, hosts: Keys, how: LineForm, paragraphs: bool, min_chars: int
) -> tuple[Keys, npt.NDArray[np.int32], npt.NDArray[np.uint32]]:
    """`(keys, texts, fresh)` of all units of n texts in order: the text that each is in, and 1 where it is its key's first in that text.

    `hosts` (n) tells texts apart whose equal units are not to be equal.
    """
    newlines = int(np.count_nonzero(data[offsets[0] : offsets[-1]] == NEWLINE))
    most = newlines + len(offsets) - 1
    keys, texts, fresh = np.empty(most, np.uint64), np.empty(most, np.int32), np.empty(most, np.uint32)
    scratch = np.empty(table_size(newlines + 1), np.uint64)
    count = _unit_keys(
        read_only(data), read_only(offsets), hosts, unit_forms(how), character_classes(), paragraphs, min_chars, scratch, keys, texts, fresh
    )  # fmt: skip
    return keys[:count], texts[:count], fresh[:count]


@kernel(error_model="numpy")
def _first_units(data, offsets, hosts, forms, classes, paragraphs, min_chars, table, found):
    for d in range(len(offsets) - 1):
        at, end = offsets[d], offsets[d + 1]
        while True:
            stop, after = _unit_end(data, at, end, paragraphs)
            first = strip_start(data, at, stop, classes)
            last = strip_end(data, first, stop, classes)
            if _long_enough(data, first, last, min_chars):
                slot = find(table, len(table) - 1, mix64(_hash(data, first, last, forms) ^ hosts[d]))
                if slot >= 0 and found[slot, 1] == 0:
                    found[slot, 0], found[slot, 1] = first, last
            if stop == end:
                break
            at = after


def first_units(
    data: Data, offsets: Offsets, hosts: Keys, how: LineForm, paragraphs: bool, min_chars: int, wanted: Keys
) -> npt.NDArray[np.int64]:
    """Where in `data` the first unit with each of the keys `wanted` begins and ends (k x 2; both 0 where there is none)."""
    table = np.zeros(table_size(len(wanted)), np.uint64)
    slots = np.zeros(len(wanted), np.int64)
    _slots(table, wanted, slots)
    found = np.zeros((len(table), 2), np.int64)
    forms = unit_forms(how)
    _first_units(read_only(data), read_only(offsets), hosts, forms, character_classes(), paragraphs, min_chars, table, found)
    return found[slots]


@kernel
def _slots(table, keys, slots):
    for key in keys:
        insert(table, len(table) - 1, key)
    for k in range(len(keys)):
        slots[k] = find(table, len(table) - 1, keys[k])


@kernel
def _copy(data, start, end, out, place):
    for at in range(end - start):
        out[place + at] = data[start + at]
    return place + end - start


@kernel(error_model="numpy")
def _cut_units(data, offsets, hosts, rows, forms, classes, paragraphs, min_chars, table, stays, seen, out, places, counts):
    place = 0
    for d in range(len(offsets) - 1):
        at, end, begin = offsets[d], offsets[d + 1], place
        before = at  # where the unit before this one ends: what lies between is copied with a unit that stays
        some, blank, gap = False, True, False
        while True:
            stop, after = _unit_end(data, at, end, paragraphs)
            first = strip_start(data, at, stop, classes)
            last = strip_end(data, first, stop, classes)
            empty = first == last
            cut = False
            if not empty:
                counts[d, 0] += 1
                if _long_enough(data, first, last, min_chars):
                    slot = find(table, len(table) - 1, mix64(_hash(data, first, last, forms) ^ hosts[d]))
                    if slot >= 0:
                        cut = stays[slot] != rows[d] or seen[slot]
                        seen[slot] |= stays[slot] == rows[d]
            if cut:
                counts[d, 1] += 1
                gap = True
            elif not (empty and gap and blank):  # of the blank lines around what was cut one run is left
                if some:
                    place = _copy(data, before, at, out, place)
                place = _copy(data, at, stop, out, place)
                some, blank, gap = True, empty, False
            before = stop
            if stop == end:
                break
            at = after
        if gap:
            place = strip_end(out, begin, place, classes)
        places[d + 1] = place


class UnitTable:
    """Keys of units to cut, and for each the row in which its first occurrence stays, or -1."""

    def __init__(self, keys: Keys, stays: npt.NDArray[np.int64]):
        self.table = np.zeros(table_size(len(keys)), np.uint64)
        self.stays = np.full(len(self.table), -1)
        _fill(self.table, self.stays, keys, stays)


@kernel
def _fill(table, values, keys, stays):
    for k in range(len(keys)):
        insert(table, len(table) - 1, keys[k])
        values[find(table, len(table) - 1, keys[k])] = stays[k]


def cut_units(
    data: Data, offsets: Offsets, hosts: Keys, rows: Offsets, how: LineForm, paragraphs: bool, min_chars: int, units: UnitTable
) -> tuple:
    """`(texts, counts)`: n texts (Arrow) without the units of the table, and for each how many units it had and how many were cut.

    `rows` (n) are what the table calls a text. A unit goes with the newlines before it.
    """
    out = np.empty(int(offsets[-1] - offsets[0]), np.uint8)
    places = np.zeros(len(offsets), np.int64)
    counts = np.zeros((len(offsets) - 1, 2), np.int64)
    _cut_units(
        read_only(data), read_only(offsets), hosts, rows, unit_forms(how), character_classes(), paragraphs, min_chars,
        units.table, units.stays, np.zeros(len(units.table), np.bool_), out, places, counts,
    )  # fmt: skip
    return text_array(out[: places[-1]], places), counts
