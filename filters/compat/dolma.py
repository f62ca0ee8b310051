# mypy: disallow-untyped-defs=False
"""Gopher's heuristics as the Dolma toolkit's taggers `gopher_v1` and `gopher_v2` measure them (arXiv 2402.00159;
dolma/taggers/gopher.py).

How Dolma differs from others:

* The word length is the median. Words are those of `str.split`. Required words count with repetition, in the case as written.
* Symbols are words that contain "#" or "…". Bullets are * and - at the very start of a line.
* All copies of a repeated line count, including the first. In `gopher_v1` empty lines count as lines.
* A character of repeated n-grams counts once for each n-gram that it lies in; the sum is divided by that of all n-grams.
"""

from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from corpusmill.filters.rules import Rule, n_grams, words_of
from corpusmill.filters.step import DocumentBatch, Step, StepOutput
from corpusmill.pipeline.config import Config
from corpusmill.pipeline.kernel import kernel
from corpusmill.text.buffers import longest_text, text_buffers
from corpusmill.text.hashing import cleared_copies, find, hash_span, table_size, word_set
from corpusmill.text.lines import count_copy, skip_newlines
from corpusmill.text.ngrams import count_ngrams, count_words, most_frequent, new_ngram_counts
from corpusmill.text.utf8 import ALPHA, NEWLINE, character_classes, count_byte, count_characters, decode, find_byte, previous
from corpusmill.text.words import hash_chunks

REQUIRED_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
#: A kind of character, in addition to those of `text.utf8`.
SYMBOL = 128

NAMES = (
    "words", "median_word_length", "symbol_word_ratio", "alpha_word_ratio", "required_words",
    "bullet_lines", "ellipsis_lines", "duplicate_lines", "duplicate_line_characters",
    *(f"top_{n}" for n in (2, 3, 4)),
    *(f"duplicated_{n}" for n in range(5, 11)),
)  # fmt: skip

#: The limits that Dolma uses for its own statistics of Common Crawl (`gopher_rules`).
RULES = (
    Rule("dolma_short_doc", "dolma_words", "<", 50),
    Rule("dolma_long_doc", "dolma_words", ">", 100_000),
    Rule("dolma_short_words", "dolma_median_word_length", "<", 3),
    Rule("dolma_long_words", "dolma_median_word_length", ">", 10),
    Rule("dolma_too_many_symbols", "dolma_symbol_word_ratio", ">", 0.1),
    Rule("dolma_too_few_alpha_words", "dolma_alpha_word_ratio", "<", 0.8),
    Rule("dolma_too_few_required_words", "dolma_required_words", "<", 2),
    Rule("dolma_too_many_bullets", "dolma_bullet_line_ratio", ">", 0.9),
    Rule("dolma_too_many_ellipses", "dolma_ellipsis_line_ratio", ">", 0.3),
    Rule("dolma_dup_line_frac", "dolma_dup_line_frac", ">", 0.3),
    Rule("dolma_dup_line_char_frac", "dolma_dup_line_char_frac", ">", 0.3),
    *(Rule(f"dolma_top_{n}_gram", f"dolma_top_{n}_gram_char_frac", ">", limit) for n, limit in ((2, 0.2), (3, 0.18), (4, 0.16))),
    *(Rule(f"dolma_dup_{n}_gram", f"dolma_dup_{n}_gram_char_frac", ">", round(0.2 - n / 100, 2)) for n in range(5, 11)),
)


class DolmaConfig(Config):
    """Dolma's Gopher heuristics: words, symbols, bullets, repeated lines and n-grams."""

    preset: Literal["dolma"] = Field("dolma", description="The pipeline whose rules decide.")
    tagger: Literal["gopher_v1", "gopher_v2"] = Field("gopher_v1", description="`gopher_v2` leaves empty lines out.")


@cache
def _tables() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint64]]:
    kinds = character_classes().copy()
    for symbol in "#…":
        kinds[ord(symbol)] |= SYMBOL
    return kinds, word_set(REQUIRED_WORDS)


class Dolma(Step):
    Config = DolmaConfig
    PRESETS = {"dolma": RULES}
    # Numbers of a text without words are 0, those of n-grams NaN for fewer than n words. `dolma_dup_line_char_frac` is divided by the
    # characters of words, so it can exceed 1.
    MEANINGS = {
        "dolma_words": "{count} words",
        "dolma_median_word_length": "words of {number} characters (median)",
        "dolma_symbol_word_ratio": "{ratio} as many words with # or … as words",
        "dolma_alpha_word_ratio": "{share} of the words have a letter",
        "dolma_required_words": f"{{count}} English stop words ({words_of(REQUIRED_WORDS)})",
        "dolma_bullet_line_ratio": "{share} of the lines begin with a bullet (* or -)",
        "dolma_ellipsis_line_ratio": "{share} of the lines end with an ellipsis (...)",
        "dolma_dup_line_frac": "{share} of the lines occur more than once",
        "dolma_dup_line_char_frac": "{share} of the characters are in lines that occur more than once",
        **n_grams("dolma_top_{}_gram_char_frac", "dolma_dup_{}_gram_char_frac"),
    }

    def measure(self, batch: DocumentBatch) -> StepOutput:
        data, offsets = text_buffers(batch.text)
        values = np.full((len(batch), len(NAMES)), np.nan)
        measure_texts(data, offsets, *_tables(), self.config.tagger == "gopher_v2", values)
        found = dict(zip(self.columns, values.T, strict=True))
        return StepOutput(found | {name: found[name].astype(np.int64) for name in ("dolma_words", "dolma_required_words")})


# ---- The kernel

TOP_2, DUPLICATED_5 = NAMES.index("top_2"), NAMES.index("duplicated_5")
LINES = NAMES.index("bullet_lines")
#: Lengths below this are counted, and the median is read from the counts. For a longer median the lengths are sorted.
LENGTHS = 256
STAR, HYPHEN, ELLIPSIS = 0x2A, 0x2D, 0x2026


@kernel
def measure_texts(data, offsets, kinds, required, skip_empty_lines, out):
    """Fills `out` (float64, texts x NAMES, at first NaN) for the texts `data[offsets[i]:offsets[i + 1]]`."""
    longest = longest_text(offsets)
    hashes, ends, seen = np.empty(longest + 1, np.uint64), np.empty(longest + 2, np.int64), np.empty(longest + 1, np.uint8)
    counts, table = new_ngram_counts(longest // 2 + 1), np.empty(2 * table_size(longest + 1), np.uint64)
    lengths = np.zeros(LENGTHS, np.int64)
    for text in range(offsets.size - 1):
        start, end, row = offsets[text], offsets[text + 1], out[text]
        count = hash_chunks(data, start, end, kinds, hashes, ends, seen)
        symbol, alpha, wanted = 0, 0, 0
        for word in range(count):
            symbol += seen[word] & SYMBOL != 0
            alpha += seen[word] & ALPHA != 0
            wanted += find(required, required.size - 1, hashes[word]) >= 0
        row[0] = count
        row[1] = median_length(ends, count, lengths)
        row[2], row[3], row[4] = symbol / max(count, 1), alpha / max(count, 1), wanted
        line_values(data, start, end, skip_empty_lines, table, ends[count], row)
        repetition(hashes, ends, count, counts, row)


@kernel
def median_length(ends, count, lengths):
    """Returns `statistics.median` of the words' lengths; 0.0 without words."""
    if count == 0:
        return 0.0
    lengths[:] = 0
    for word in range(count):
        lengths[min(ends[word + 1] - ends[word], LENGTHS - 1)] += 1
    if count - lengths[LENGTHS - 1] <= count // 2:
        whole = np.sort(np.diff(ends[: count + 1]))
        return (whole[(count - 1) // 2] + whole[count // 2]) / 2
    return (_nth_length(lengths, (count - 1) // 2) + _nth_length(lengths, count // 2)) / 2


@kernel
def _nth_length(lengths, rank):
    length = 0
    while rank >= lengths[length]:
        rank -= lengths[length]
        length += 1
    return length


@kernel
def line_values(data, start, end, skip_empty_lines, table, characters, row):
    """Measures lines of `text.split("\\n")` or `re.split("\\n+", text)`: bullets, ellipses, repeated lines with all copies."""
    if start == end:  # dolma returns at once
        row[LINES : LINES + 4] = 0
        return
    lines, bullets, ellipses, repeated, repeated_characters = 0, 0, 0, 0, 0
    mask = cleared_copies(table, count_byte(data, start, end, NEWLINE) + 1)
    at = start
    while True:
        stop = find_byte(data, at, end, NEWLINE)
        lines += 1
        if stop > at:
            bullets += data[at] == STAR or data[at] == HYPHEN
            ellipses += stop - at >= 3 and decode(data, previous(data, stop))[0] == ELLIPSIS
        copies = count_copy(table, mask, hash_span(data, at, stop))
        repeated += copies
        repeated_characters += copies * count_characters(data, at, stop)
        if stop == end:
            break
        at = skip_newlines(data, stop, end) if skip_empty_lines else stop + 1
    row[LINES], row[LINES + 1], row[LINES + 2] = bullets / lines, ellipses / lines, repeated / lines
    row[LINES + 3] = repeated_characters / max(characters, 1)


@kernel
def repetition(hashes, ends, count, counts, row):
    """Measures the most frequent 2- to 4-gram (even if it occurs once) and the share of repeated 5- to 10-grams among all of them.

    Both by characters, which count once for each n-gram that they lie in. If the text has fewer than n words, the value stays NaN.
    """
    count_words(hashes, count, counts)
    characters = max(ends[count], 1)
    for n in range(2, 11):
        if count < n:
            break
        repeats = count_ngrams(count, n, counts)
        if n < 5:
            _, times, length = most_frequent(count, n, ends, counts)
            row[TOP_2 + n - 2] = times * length / characters
            continue
        repeated, total = 0, 0
        for at in range(count - n + 1):
            length = ends[at + n] - ends[at]
            total += length
            if repeats and counts.first[at] >= 0:
                repeated += length
        row[DUPLICATED_5 + n - 5] = repeated / max(total, 1)
