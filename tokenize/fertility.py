# mypy: disallow-untyped-defs=False
"""Into how many tokens words are cut, the same words for every tokenizer.

A word is a run of letters, marks and numbers; in scripts that are written without spaces each letter with its marks is one. Spaces and
symbols are no words. Fertility (Rust et al., arXiv 2012.15613) is the number of tokens that a word has bytes in.
"""

from functools import cache

import numpy as np
import numpy.typing as npt

from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.utf8 import CODE_POINTS, decode
from corpusmill.pipeline.text.words import UNSPACED

RUN, SINGLE, MARK = 1, 2, 4
#: Columns of what `cut_words` finds in a text.
WORDS, TOUCHED, SPLIT = range(3)


@cache
def word_kinds() -> npt.NDArray[np.uint8]:
    """uint8 of length 0x110000: what each code point is to a word; 0 for what belongs to none. Kept per process."""
    import regex

    table = np.zeros(CODE_POINTS, np.uint8)
    everything = "".join(map(chr, [*range(0xD800), *range(0xE000, CODE_POINTS)]))
    kinds = {r"[\p{L}\p{N}]+": RUN, rf"[[{UNSPACED}]&&[\p{{L}}\p{{N}}]]+": SINGLE, r"\p{M}+": MARK}
    for pattern, kind in kinds.items():
        for found in regex.finditer(pattern, everything, regex.VERSION1):
            table[ord(found.group()[0]) : ord(found.group()[-1]) + 1] = kind
    return table


@kernel
def cut_words(data, offsets, ids, counts, sizes, kinds, found):
    """Fills `found` (int64 `[texts, 3]`) with each text's words, the tokens that they have bytes in (a token counts for each word that
    it holds a part of), and the words that more than one token holds.

    Text i is `data[offsets[i]:offsets[i + 1]]`, its tokens are the next `counts[i]` of `ids`, of `sizes[id]` bytes each, which
    together are the text.
    """
    first = 0
    for text in range(len(offsets) - 1):
        at, end = offsets[text], offsets[text + 1]
        words = touched = split = 0
        token, border = first - 1, at  # `border` is where the token ends
        while at < end:
            point, width = decode(data, at)
            kind = kinds[point]
            begin = at
            at += width
            if kind == 0 or kind == MARK:
                continue
            more = MARK if kind == SINGLE else MARK | RUN
            while at < end:
                point, width = decode(data, at)
                if not kinds[point] & more:
                    break
                at += width
            while border <= begin:
                token += 1
                border += sizes[ids[token]]
            here = 1
            while border < at:
                token += 1
                border += sizes[ids[token]]
                here += 1
            words += 1
            touched += here
            split += here > 1
        found[text, WORDS], found[text, TOUCHED], found[text, SPLIT] = words, touched, split
        first += counts[text]
