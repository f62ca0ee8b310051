"""How a text is written as one line for fastText: the same when a classifier is trained and when it scores.

* `plain`: line breaks are spaces, as DCLM's classifier is given its texts (`" ".join(text.strip().splitlines())`); Dolma's Jigsaw taggers
  (`text.replace("\\n", " ").strip()`) differ from it in no text without rare line breaks.
* `lower`: `plain`, in lower case as Python's `str.lower` has it (a final sigma is one, a capital dotted I becomes two characters).
* `words`: lower case; tokens are runs of word characters (`re`'s `\\w` and combining marks), `<url>` for `http(s)://` and what follows it,
  `<user>` for `@name`, `<nl>` for white space with a line break in it, and every other character alone.

Tokens stand one space apart. What fastText takes for a space (NUL too) is one, and what `str.splitlines` takes for a line break is one.
Tokens that mean something to fastText are left out: those that begin with `__label__` are labels to it when it trains, and it ignores them
when it predicts; at `</s>` a line ends, so a page could hide everything behind it. Without such tokens `plain` and `lower` change
nothing that they have written.
"""

from functools import cache
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.filters.classifier.card import Form
from corpusmill.pipeline.text.buffers import text_array, text_buffers
from corpusmill.pipeline.text.utf8 import CODE_POINTS, LINE_BREAK, SPACE, SURROGATES, WORD, character_classes, lowercase_table

FORMS: tuple[Form, ...] = get_args(Form)
NEW_LINE = "<nl>"  # the token of the form `words`
#: A character's entry in `character_table`: the code point of its lower case, and these bits.
POINT_BITS = 21
IS_SPACE, IS_BREAK, IS_WORD, IS_CASED, IS_IGNORABLE = (1 << bit for bit in range(POINT_BITS, POINT_BITS + 5))
GROWTH = 4  # no text has more bytes than this many times its own, and WORST_TOKEN: `@a@b` becomes `<user> <user>`
WORST_TOKEN = 16


def write_form(form: Form, text: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The texts in a form: large_string, as many as `text` has, without line breaks. Raises ValueError where a text is null."""
    return text_array(*write_tokens(form, *text_buffers(text))[:2])


def write_tokens(form: Form, data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> tuple[npt.NDArray[Any], ...]:
    """`(data, offsets, starts, first)` of the texts in a form: as they were given, and where the tokens of text i begin,
    int64 `starts[first[i]:first[i + 1]]`. A token ends a byte before the next begins, or where its text does."""
    from corpusmill.filters.classifier.forms_kernel import write_lines, write_words

    if form not in FORMS:
        raise ValueError(f"there is no form {form!r}")
    size = int(offsets[-1] - offsets[0])
    out = np.empty(size * GROWTH + WORST_TOKEN, np.uint8)
    ends, first, starts = np.zeros(len(offsets), np.int64), np.zeros(len(offsets), np.int64), np.empty(size, np.int64)
    if form == "words":
        write_words(data, offsets, character_table(), out, ends, starts, first)
    else:
        write_lines(data, offsets, character_table(), form == "lower", out, ends, starts, first)
    return out[: ends[-1]], ends, starts[: first[-1]], first


@cache
def character_table() -> npt.NDArray[np.uint32]:
    """uint32 of length 0x110000, for the kernels: see POINT_BITS. Kept per process."""
    import unicodedata

    classes = character_classes()
    table = lowercase_table().copy()
    marks = [point for point in range(CODE_POINTS) if unicodedata.category(chr(point))[0] == "M"]
    words = classes & WORD != 0
    words[marks] = True
    spaces = classes & SPACE != 0
    spaces[0] = True
    cased, ignorable = _sigma_context()
    for bit, has in (
        (IS_SPACE, spaces), (IS_BREAK, classes & LINE_BREAK != 0), (IS_WORD, words), (IS_CASED, cased), (IS_IGNORABLE, ignorable)
    ):  # fmt: skip
        table[has] |= np.uint32(bit)
    return table


def _sigma_context() -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Of each code point, whether it is cased and whether it is passed over where `str.lower` looks for the end of a sigma's word.

    Python tells neither (Unicode's Final_Sigma, section 3.13), so it is asked what it makes of a sigma before each character.
    """
    points = np.delete(np.arange(CODE_POINTS, dtype="<u4"), [*SURROGATES, 0x130])
    answers = []
    for after in " a":  # a sigma before a cased character is no final one; before one that is passed over, what follows decides
        rows = np.tile(np.array([ord(character) for character in f"aΣ?{after} "], "<u4"), (len(points), 1))
        rows[:, 2] = points
        lowered = np.frombuffer(rows.tobytes().decode("utf-32-le").lower().encode("utf-32-le"), "<u4").reshape(rows.shape)
        answers.append(lowered[:, 1] == ord("σ"))
    cased, ignorable = np.zeros(CODE_POINTS, np.bool_), np.zeros(CODE_POINTS, np.bool_)
    cased[points], ignorable[points] = answers[0], ~answers[0] & answers[1]
    cased[0x130] = True
    return cased, ignorable
