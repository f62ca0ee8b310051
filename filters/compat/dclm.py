# mypy: disallow-untyped-defs=False
"""RefinedWeb's heuristics as DCLM reproduces them (arXiv 2406.11794; its code in baselines/mappers/filters/content_filters.py, with the
options of dclm_baseline_refinedweb.yaml).

How DCLM differs from others:

* The number of words counts fastText's tokens that begin with a letter or number. Word length and letters use the words of `str.split`.
* Stop words count with repetition, in any case. The counts of all symbols are summed. Lines are stripped, and empty ones left out.
* All copies of repeated lines, paragraphs and n-grams count, including the first.
* N-grams consist of `uniseg`'s words without punctuation (`text.word_breaks` has the limits) and are divided by the characters
  of these words. Each word of repeated n-grams counts once. The most frequent n-gram counts only if it occurs twice; of several equally
  frequent ones the longest counts.
"""

from typing import Literal

import numpy as np
from pydantic import Field

from corpusmill.filters.refinedweb_lines import count_fasttext_words
from corpusmill.filters.rules import Rule, n_grams, words_of
from corpusmill.filters.step import DocumentBatch, Step, StepOutput
from corpusmill.pipeline.config import Config
from corpusmill.pipeline.kernel import kernel
from corpusmill.text.buffers import longest_text, text_buffers
from corpusmill.text.hashing import cleared_copies, hash_span, table_size
from corpusmill.text.lines import count_copy, split_piece_end
from corpusmill.text.ngrams import count_ngrams, count_words, covered_characters, most_frequent, new_ngram_counts
from corpusmill.text.utf8 import (
    ALPHA,
    NEWLINE,
    character_classes,
    count_byte,
    count_characters,
    decode,
    find_byte,
    previous,
    strip_end,
    strip_start,
)
from corpusmill.text.word_breaks import hash_unicode_words, word_break_table
from corpusmill.text.words import skip_space, walk_chunk

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
#: The rules in the order of DCLM's pipeline.
RULES = (
    Rule("dclm_short_doc", "dclm_words", "<", 50),
    Rule("dclm_long_doc", "dclm_words", ">", 100_000),
    Rule("dclm_short_words", "dclm_mean_word_length", "<", 3),
    Rule("dclm_long_words", "dclm_mean_word_length", ">", 10),
    Rule("dclm_too_many_symbols", "dclm_symbol_word_ratio", ">", 0.1),
    Rule("dclm_too_many_bullets", "dclm_bullet_line_ratio", ">", 0.9),
    Rule("dclm_too_many_ellipses", "dclm_ellipsis_line_ratio", ">", 0.3),
    Rule("dclm_too_many_non_alpha_words", "dclm_non_alpha_word_ratio", ">", 0.2),
    Rule("dclm_too_few_stop_words", "dclm_stop_words", "<", 2),
    Rule("dclm_dup_line_frac", "dclm_dup_line_frac", ">", 0.3),
    Rule("dclm_dup_para_frac", "dclm_dup_para_frac", ">", 0.3),
    Rule("dclm_dup_line_char_frac", "dclm_dup_line_char_frac", ">", 0.2),
    Rule("dclm_dup_para_char_frac", "dclm_dup_para_char_frac", ">", 0.2),
    *(Rule(f"dclm_top_{n}_gram", f"dclm_top_{n}_gram_char_frac", ">", limit) for n, limit in ((2, 0.2), (3, 0.18), (4, 0.16))),
    *(Rule(f"dclm_dup_{n}_gram", f"dclm_dup_{n}_gram_char_frac", ">", round(0.2 - n / 100, 2)) for n in range(5, 11)),
)


class DclmConfig(Config):
    """DCLM's RefinedWeb heuristics: words, symbols, bullets, stop words, repeated lines, paragraphs and n-grams."""

    preset: Literal["dclm"] = Field("dclm", description="The pipeline whose rules decide.")


class Dclm(Step):
    Config = DclmConfig
    PRESETS = {"dclm": RULES}
    # Words are fastText tokens that begin with a letter or number. The mean is NaN without words, a share of lines or paragraphs for a
    # blank text, and one of n-grams without words of uniseg.
    MEANINGS = {
        "dclm_words": "{count} words",
        "dclm_stop_words": f"{{count}} English stop words ({words_of(STOP_WORDS)})",
        "dclm_mean_word_length": "words of {number} characters on average",
        "dclm_symbol_word_ratio": "{ratio} as many symbols (# and ellipses) as words",
        "dclm_non_alpha_word_ratio": "{share} of the words have no letter",
        "dclm_bullet_line_ratio": "{share} of the lines begin with a bullet",
        "dclm_ellipsis_line_ratio": "{share} of the lines end with an ellipsis (...)",
        "dclm_dup_line_frac": "{share} of the lines are copies of an earlier one",
        "dclm_dup_line_char_frac": "{share} of the characters are in copies of an earlier line",
        "dclm_dup_para_frac": "{share} of the paragraphs are copies of an earlier one",
        "dclm_dup_para_char_frac": "{share} of the characters are in copies of an earlier paragraph",
        **n_grams("dclm_top_{}_gram_char_frac", "dclm_dup_{}_gram_char_frac"),
    }

    def measure(self, batch: DocumentBatch) -> StepOutput:
        data, offsets = text_buffers(batch.text)
        counts = np.zeros((len(batch), 2), np.int64)
        ratios = np.full((len(batch), len(self.columns) - 2), np.nan)
        measure_texts(data, offsets, character_classes(), word_break_table(), counts, ratios)
        return StepOutput(dict(zip(self.columns, [*counts.T, *ratios.T], strict=True)))


# ---- The kernel

HASH, STAR, HYPHEN, DOT, SPACE = np.uint8(0x23), 0x2A, 0x2D, 0x2E, 0x20
STOP_WORD_KEYS = tuple(int.from_bytes(b"\1" + word.encode()) for word in STOP_WORDS)
BULLET, BLACK_CIRCLE, ELLIPSIS = 0x2022, 0x25CF, 0x2026


@kernel
def measure_texts(data, offsets, kinds, breaks, counts, ratios):
    """Fills `counts` (int64, texts x 2) and `ratios` (float64, texts x 18, at first NaN), in the order of the step's columns."""
    longest = longest_text(offsets)
    hashes, ends = np.empty(longest + 1, np.uint64), np.empty(longest + 2, np.int64)
    ngrams, table = new_ngram_counts(longest + 1), np.empty(2 * table_size(longest + 1), np.uint64)
    for text in range(offsets.size - 1):
        start, end = offsets[text], offsets[text + 1]
        counts[text, 0] = count_fasttext_words(data, start, end, kinds)
        counts[text, 1] = word_values(data, start, end, kinds, ratios[text])
        line_values(data, start, end, kinds, table, ratios[text, 3:7])
        paragraph_values(data, start, end, kinds, table, ratios[text, 7:9])
        count = hash_unicode_words(data, start, end, breaks, hashes, ends)
        if count:
            repetition(hashes, ends, count, ngrams, ratios[text, 9:])


@kernel
def word_values(data, start, end, kinds, row):
    """Measures words of `str.split`: mean length, symbols for each word, the share without a letter. Returns the number of stop words."""
    words, characters, letterless, stops = 0, 0, 0, 0
    at = skip_space(data, start, end, kinds)
    while at < end:
        stop, length, found = walk_chunk(data, at, end, kinds)
        words += 1
        characters += length
        letterless += found & ALPHA == 0
        if 2 <= stop - at <= 4:
            stops += is_stop_word(data, at, stop)
        at = skip_space(data, stop, end, kinds)
    if words:
        row[0], row[1], row[2] = characters / words, count_symbols(data, start, end) / words, letterless / words
    return stops


@kernel
def is_stop_word(data, start, end):
    """Whether a word of two to four bytes is in STOP_WORDS, in any case. Only ASCII characters have these letters as lower case."""
    key = np.uint64(1)  # so that a leading NUL counts
    for at in range(start, end):
        byte = np.uint64(data[at])
        key = key << np.uint64(8) | (byte | np.uint64(0x20) if 0x41 <= byte <= 0x5A else byte)
    return key in STOP_WORD_KEYS


@kernel
def count_symbols(data, start, end):
    """`sum(text.count(symbol) for symbol in ("#", "...", ". . .", "…"))`: each symbol by itself, without overlaps."""
    symbols, dots, free = count_byte(data, start, end, HASH), 0, start
    for at in range(start, end):
        byte = data[at]
        if byte != DOT:
            dots = 0
            symbols += byte == 0xE2 and data[at + 1] == 0x80 and data[at + 2] == 0xA6
            continue
        dots += 1
        symbols += dots % 3 == 0
        if at >= free and ends_in_spaced_dots(data, at, min(at + 5, end)):
            symbols += 1
            free = at + 5
    return symbols


@kernel
def ends_in_spaced_dots(data, start, end):
    """Whether the span ends in ". . ."."""
    return (
        end - start >= 5
        and data[end - 1] == DOT
        and data[end - 2] == SPACE
        and data[end - 3] == DOT
        and data[end - 4] == SPACE
        and data[end - 5] == DOT
    )


@kernel
def line_values(data, start, end, kinds, table, row):
    """Measures lines of `text.split("\\n")`, stripped, without empty ones: bullets, ellipses, repeated lines and their characters."""
    lines, bullets, ellipses, repeated, characters, repeated_characters = 0, 0, 0, 0, 0, 0
    mask = cleared_copies(table, count_byte(data, start, end, NEWLINE) + 1)
    at = start
    while at < end:
        stop = find_byte(data, at, end, NEWLINE)
        first = strip_start(data, at, stop, kinds)
        if first < stop:
            last = strip_end(data, first, stop, kinds)
            lines += 1
            point = decode(data, first)[0]
            bullets += point in (STAR, HYPHEN, BULLET, BLACK_CIRCLE)
            ellipses += ends_in_ellipsis(data, first, last)
            length = count_characters(data, first, last)
            copies = count_copy(table, mask, hash_span(data, first, last))
            characters += length
            repeated += copies
            repeated_characters += copies * length
        at = stop + 1
    if lines:
        row[0], row[1], row[2], row[3] = bullets / lines, ellipses / lines, repeated / lines, repeated_characters / characters


@kernel
def ends_in_ellipsis(data, start, end):
    if data[end - 1] != DOT:
        return decode(data, previous(data, end))[0] == ELLIPSIS
    return (end - start >= 3 and data[end - 2] == DOT and data[end - 3] == DOT) or ends_in_spaced_dots(data, start, end)


@kernel
def paragraph_values(data, start, end, kinds, table, row):
    """Measures paragraphs, the pieces of `text.split("\\n\\n")`, stripped, without empty ones: repeated ones and their characters."""
    pieces, repeated, characters, repeated_characters = 0, 0, 0, 0
    mask = cleared_copies(table, count_byte(data, start, end, NEWLINE) // 2 + 1)
    at = start
    while at < end:
        stop = split_piece_end(data, at, end)
        first = strip_start(data, at, stop, kinds)
        if first < stop:
            last = strip_end(data, first, stop, kinds)
            length = count_characters(data, first, last)
            copies = count_copy(table, mask, hash_span(data, first, last))
            pieces += 1
            characters += length
            repeated += copies
            repeated_characters += copies * length
        at = stop + 2
    if pieces:
        row[0], row[1] = repeated / pieces, repeated_characters / characters


@kernel
def repetition(hashes, ends, count, ngrams, row):
    """Measures the most frequent 2- to 4-gram that repeats (of equally frequent ones the longest) and words in repeated 5- to 10-grams."""
    count_words(hashes, count, ngrams)
    for n in range(2, 11):
        repeats = count_ngrams(count, n, ngrams)
        if not repeats:
            row[n - 2] = 0.0
        elif n < 5:
            _, times, length = most_frequent(count, n, ends, ngrams)
            for at in range(count - n + 1):
                if ngrams.first[at] == at and ngrams.times[at] == times:
                    length = max(length, ends[at + n] - ends[at])
            row[n - 2] = times * length / ends[count]
        else:
            row[n - 2] = covered_characters(count, n, ends, ngrams) / ends[count]
