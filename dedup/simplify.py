# mypy: disallow-untyped-defs=False
"""The texts that other pipelines compare, as a kernel over Arrow's bytes: datatrove's `simplify_text` and its like.

Equal to the Python functions of `simplify_tables` to the byte. Each character becomes what a table says; a number, a final
sigma and runs of spaces need what stands beside them. Combining marks that stay and are not in canonical order are what a walk
can't put right: such a document is handed to the Python function.
"""

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from corpusmill.dedup.simplify_tables import (
    BLANK,
    CASED,
    CHANGED,
    DIGIT,
    GONE,
    IGNORABLE,
    SEPARATOR,
    SIGMA,
    Simplification,
    reference,
    tables,
)
from corpusmill.dedup.words import decode, encode, read_only
from corpusmill.pipeline.kernel import kernel

_SPACE, _ZERO = 0x20, 0x30
_SIGMA, _FINAL_SIGMA = 0x3C3, 0x3C2
#: What is asked of all characters but the usual ones.
_SPECIAL = BLANK | GONE | DIGIT | SIGMA
_OUT_OF_ORDER = -1


@kernel
def _after_number(data, i, end, kinds):
    """The end of the number of which one digit ends before `i`: digits, and at most one separator with digits behind it."""
    parted = False
    while i < end:
        point, step = decode(data, i, end)
        if not kinds[point] & DIGIT:
            if parted or not kinds[point] & SEPARATOR or i + step >= end:
                break
            digit, _ = decode(data, i + step, end)
            if not kinds[digit] & DIGIT:
                break
            parted = True
        i += step
    return i


@kernel
def _cased_follows(data, i, end, kinds):
    while i < end:
        point, step = decode(data, i, end)
        if not kinds[point] & (IGNORABLE | GONE):
            return kinds[point] & CASED != 0
        i += step
    return False


@kernel(error_model="numpy")
def _simplify_text(data, start, end, t, out, begin):
    """Writes the text `data[start:end]` to `out` from `begin`; returns the place behind it, or _OUT_OF_ORDER."""
    kinds, place, i = t.kinds, begin, start
    blank, cased, order = True, False, 0  # whether a space would be one too many; of the last letter; the last combining class
    while i < end:
        point = np.int64(data[i])
        if point < 0x80:
            i += 1
        else:
            point, step = decode(data, i, end)
            i += step
        kind = kinds[point]
        if kind & _SPECIAL:
            if kind & GONE:
                continue
            order = 0
            if kind & BLANK:
                if not blank and place > begin:
                    out[place] = _SPACE
                    place += 1
                blank = True
            elif kind & DIGIT:
                out[place] = _ZERO
                place += 1
                i = _after_number(data, i, end, kinds)
                blank = False
            else:
                place = encode(_FINAL_SIGMA if cased and not _cased_follows(data, i, end, kinds) else _SIGMA, out, place)
                blank = False
        else:
            if t.first[point] and t.first[point] < order:
                return _OUT_OF_ORDER
            if kind & CHANGED:
                form = t.begins[point]
                for k in range(t.sizes[point]):
                    out[place] = t.forms[form + k]
                    place += 1
                if t.sizes[point]:
                    order = t.last[point]
            else:
                place = encode(point, out, place)
                order = t.last[point]
            blank = False
        if not kind & IGNORABLE:
            cased = kind & CASED != 0
    while place > begin and out[place - 1] == _SPACE:
        place -= 1
    return place


@kernel(error_model="numpy")
def _simplify(data, offsets, first, t, out, places):
    """Simplifies the texts from number `first` on; returns the number of the first that needs Python, or of texts."""
    for d in range(first, len(offsets) - 1):
        place = _simplify_text(data, offsets[d], offsets[d + 1], t, out, places[d])
        if place == _OUT_OF_ORDER:
            return d
        places[d + 1] = place
    return len(offsets) - 1


def simplified(
    data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], how: Simplification
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Arrow text `(data, offsets)` in another pipeline's form, laid out alike and valid UTF-8. Bytes that are none count as U+FFFD."""
    out = np.empty(int(offsets[-1] - offsets[0]) * 3 + 1, np.uint8)  # no character grows more than threefold
    places = np.zeros(len(offsets), np.int64)
    texts = len(offsets) - 1
    done = 0
    while (done := _simplify(read_only(data), read_only(offsets), done, tables(how), out, places)) < texts:
        text = data[offsets[done] : offsets[done + 1]].tobytes().decode(errors="replace")
        form = reference(how)(text).encode()
        out[places[done] : places[done] + len(form)] = np.frombuffer(form, np.uint8)
        places[done + 1] = places[done] + len(form)
        done += 1
    return out, places


def texts_of(data: npt.NDArray[np.uint8], places: npt.NDArray[np.int64]) -> list[str]:
    """The texts as Python has them."""
    return [data[a:b].tobytes().decode() for a, b in pairwise(places.tolist())]
