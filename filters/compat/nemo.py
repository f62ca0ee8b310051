# mypy: disallow-untyped-defs=False
"""The heuristics of NeMo Curator 1.4 (stages/text/filters/heuristic), as its filters score an English document.

* Words are those of `str.split`. Lines stand between newlines and are not blank. Paragraphs stand between double newlines.
* Repeated lines and paragraphs are measured by the share of distinct ones.
* The most frequent n-gram counts even if it occurs once: by the characters that `str.replace` of the n-gram (joined by single spaces)
  removes. If several are equally frequent, NeMo takes the first of a Python set, which differs between runs; here it is the earliest.
* Later copies of repeated n-grams count with their spaces; overlapping characters count once.
* A division by zero gives NaN, where NeMo fails.
"""

from functools import cache
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from corpusmill.filters.rules import Rule, n_grams, words_of
from corpusmill.filters.step import DocumentBatch, Step, StepOutput
from corpusmill.pipeline.config import Config
from corpusmill.pipeline.kernel import kernel
from corpusmill.text.buffers import longest_text, text_buffers
from corpusmill.text.hashing import cleared, find, hash_span, insert, table_size, word_set
from corpusmill.text.lines import split_piece_end
from corpusmill.text.ngrams import count_ngrams, count_words, most_frequent, new_ngram_counts
from corpusmill.text.utf8 import (
    NEWLINE,
    SPACE,
    character_classes,
    count_byte,
    count_characters,
    decode,
    find_byte,
    strip_end,
    strip_start,
)
from corpusmill.text.words import hash_chunks, skip_space, walk_chunk

COMMON_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
ELLIPSES = ("...", "[...]", "…", "(...)", "[…]", "-»", "read more..", "read more")
BULLETS = "•‣⁃⁌⁍∙○●◘◦⦾⦿"
END_MARKS = ".?!\"'"
#: Phrases of boilerplate, in lower case. NeMo's longer phrases that contain another phrase are left out.
POLICY = (
    "terms of use", "privacy policy", "cookie policy", "uses cookies", "privacy overview", "use of cookies", "use cookies",
    "privacy & cookies policy", "privacy and cookies policy",
    "necessary cookies are absolutely essential for the website to function properly. this category only includes cookies that "
    "ensures basic functionalities and security features of the website. these cookies do not store any personal information.",
    "any cookies that may not be particularly necessary for the website to function and is used specifically to collect user "
    "personal data via analytics, ads, other embedded contents are termed as non-necessary cookies. it is mandatory to procure "
    "user consent prior to running these cookies on your website.",
    "if you continue to browse this site without changing your cookie settings, you agree to this use. acceptread more",
)  # fmt: skip
#: Every phrase contains one of these.
HINTS = ("cookie", "privacy", "terms of use")

#: Kinds of characters, in addition to SPACE: letters and digits as `regex` defines them, "#", and the character sets of the filters.
ALPHA, DIGIT, HASH, PLAIN, WHITE, PARENTHESIS, URL = 1, 4, 8, 16, 32, 64, 128
TOP = (2, 3, 4)
DUPLICATED = (5, 6, 7, 8, 9, 10)
#: The values, in the order of the kernel's output.
NAMES = (
    "words", "longest_word", "common_words", "mean_word_length", "symbol_word_ratio", "alpha_word_ratio",
    "non_alnum_ratio", "number_ratio", "white_space_ratio", "parentheses_ratio", "url_ratio",
    "bullet_line_ratio", "ellipsis_line_ratio", "unended_line_ratio",
    "unique_line_ratio", "unique_line_char_ratio", "unique_paragraph_ratio", "unique_paragraph_char_ratio", "boilerplate_paragraph_ratio",
    *(f"top_{n}_gram_ratio" for n in TOP), *(f"dup_{n}_gram_ratio" for n in DUPLICATED),
)  # fmt: skip
COUNTS = ("words", "longest_word", "common_words")

#: The defaults of the filters; the limits for n-grams come from NeMo's English recipe.
RULES = (
    Rule("nemo_non_alnum", "nemo_non_alnum_ratio", ">", 0.25),
    Rule("nemo_symbols", "nemo_symbol_word_ratio", ">", 0.1),
    Rule("nemo_numbers", "nemo_number_ratio", ">", 0.15),
    Rule("nemo_urls", "nemo_url_ratio", ">", 0.2),
    Rule("nemo_white_space", "nemo_white_space_ratio", ">", 0.25),
    Rule("nemo_parentheses", "nemo_parentheses_ratio", ">", 0.1),
    Rule("nemo_boilerplate", "nemo_boilerplate_paragraph_ratio", ">", 0.4),
    Rule("nemo_unique_lines", "nemo_unique_line_ratio", "<", 0.7),
    Rule("nemo_unique_paragraphs", "nemo_unique_paragraph_ratio", "<", 0.7),
    Rule("nemo_unique_line_chars", "nemo_unique_line_char_ratio", "<", 0.8),
    Rule("nemo_unique_paragraph_chars", "nemo_unique_paragraph_char_ratio", "<", 0.8),
    Rule("nemo_short_doc", "nemo_words", "<", 50),
    Rule("nemo_long_doc", "nemo_words", ">", 100_000),
    Rule("nemo_unended_lines", "nemo_unended_line_ratio", ">", 0.85),
    Rule("nemo_short_words", "nemo_mean_word_length", "<", 3),
    Rule("nemo_long_words", "nemo_mean_word_length", ">", 10),
    Rule("nemo_too_long_word", "nemo_longest_word", ">", 1000),
    Rule("nemo_alpha_words", "nemo_alpha_word_ratio", "<", 0.8),
    Rule("nemo_bullets", "nemo_bullet_line_ratio", ">", 0.9),
    Rule("nemo_ellipses", "nemo_ellipsis_line_ratio", ">", 0.3),
    Rule("nemo_common_words", "nemo_common_words", "<", 2),
    *(Rule(f"nemo_top_{n}_gram", f"nemo_top_{n}_gram_ratio", ">", limit) for n, limit in zip(TOP, (0.2, 0.18, 0.16), strict=True)),
    *(Rule(f"nemo_dup_{n}_gram", f"nemo_dup_{n}_gram_ratio", ">", round(0.2 - n / 100, 2)) for n in DUPLICATED),
)


class NemoConfig(Config):
    """NeMo Curator's heuristics: kinds of characters, words, lines, boilerplate, repetition."""

    preset: Literal["nemo-1.4"] = Field("nemo-1.4", description="The pipeline whose rules decide.")


@cache
def _kinds() -> npt.NDArray[np.uint8]:
    import regex

    kinds = character_classes() & np.uint8(SPACE)
    everything = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    for kind, characters in (
        (ALPHA, "".join(regex.findall("[[:alpha:]]+", everything))),
        (DIGIT, "".join(regex.findall("[[:digit:]]+", everything))),
        (HASH, "#"),
        (PLAIN, letters + "\n?!,."),
        (WHITE, "\t\n\r\b "),
        (PARENTHESIS, "{}⟨⟩[]()"),
        (URL, letters + "$-_@.&+/:=?#~!*(),"),
    ):
        kinds[np.frombuffer(characters.encode("utf-32-le"), np.uint32)] |= kind
    return kinds


class Nemo(Step):
    Config = NemoConfig
    PRESETS = {"nemo-1.4": RULES}
    MEANINGS = {
        "nemo_words": "{count} words",
        "nemo_longest_word": "a longest word of {count} characters",
        "nemo_common_words": f"{{count}} English stop words ({words_of(COMMON_WORDS)})",
        "nemo_mean_word_length": "words of {number} characters on average",
        "nemo_symbol_word_ratio": "{ratio} as many symbols (# and ellipses) as words",
        "nemo_alpha_word_ratio": "{share} of the words have a letter",
        "nemo_non_alnum_ratio": "{share} of the characters are neither letters nor digits nor plain marks",
        "nemo_number_ratio": "{share} of the characters are digits",
        "nemo_white_space_ratio": "{share} of the characters are white space",
        "nemo_parentheses_ratio": "{share} of the characters are brackets",
        "nemo_url_ratio": "{share} of the characters are in addresses of pages",
        "nemo_bullet_line_ratio": "{share} of the lines begin with a bullet",
        "nemo_ellipsis_line_ratio": "{share} of the lines end with an ellipsis",
        "nemo_unended_line_ratio": "{share} of the lines end without a mark such as . ! or ?",
        "nemo_unique_line_ratio": "{share} different lines among all lines",
        "nemo_unique_line_char_ratio": "{share} of the characters are in different lines",
        "nemo_unique_paragraph_ratio": "{share} different paragraphs among all paragraphs",
        "nemo_unique_paragraph_char_ratio": "{share} of the characters are in different paragraphs",
        "nemo_boilerplate_paragraph_ratio": "{share} of the paragraphs are about cookies, privacy or terms of use",
        **n_grams("nemo_top_{}_gram_ratio", "nemo_dup_{}_gram_ratio"),
    }

    def setup(self) -> None:
        self.words = word_set(COMMON_WORDS), word_set(ELLIPSES)

    def measure(self, batch: DocumentBatch) -> StepOutput:
        data, offsets = text_buffers(batch.text)
        values = np.full((len(batch), len(NAMES)), np.nan)
        spans = np.zeros((len(batch), 2 * len(TOP) + 1), np.int64)
        measure_texts(data, offsets, _kinds(), self.words, values, spans)
        boilerplate, top = NAMES.index("boilerplate_paragraph_ratio"), NAMES.index("top_2_gram_ratio")
        view, places = memoryview(data), offsets.tolist()  # type: ignore[arg-type]
        for row, found, (start, end) in zip(values, spans.tolist(), pairwise(places)):
            text = bytes(view[start:end])
            row[boilerplate] = boilerplate_ratio(text.decode())
            for place in range(len(TOP)):
                first, last = found[2 * place : 2 * place + 2]
                row[top + place] = removed(text, text[first:last].decode()) / found[-1] if last else 1.0
        columns: dict[str, Any] = {f"nemo_{name}": column for name, column in zip(NAMES, values.T, strict=True)}
        return StepOutput(columns | {f"nemo_{name}": columns[f"nemo_{name}"].astype(np.int64) for name in COUNTS})


def removed(text: bytes, ngram: str) -> int:
    """Returns the number of characters that `str.replace` of the n-gram, its words joined by single spaces, removes from a text."""
    words = " ".join(ngram.split())
    return text.count(words.encode()) * len(words)


def boilerplate_ratio(text: str) -> float:
    """Returns the share of paragraphs with a phrase of POLICY; 1 if the text has "lorem ipsum"."""
    lower = text.lower()
    if "lorem ipsum" in lower:
        return 1.0
    if not any(hint in lower for hint in HINTS):
        return 0.0
    paragraphs = lower.split("\n\n")
    return sum(any(phrase in paragraph for phrase in POLICY) for paragraph in paragraphs) / len(paragraphs)


# ---- The kernel

WORDS, CHARACTERS, LINES = NAMES.index("words"), NAMES.index("non_alnum_ratio"), NAMES.index("bullet_line_ratio")
PARAGRAPHS, DUPLICATED_5 = NAMES.index("unique_paragraph_ratio"), NAMES.index("dup_5_gram_ratio")
BULLET_POINTS, MARKS = tuple(map(ord, BULLETS)), tuple(map(ord, END_MARKS))
#: All ellipses in one array, and where each begins.
MARK_BYTES = np.frombuffer("".join(ELLIPSES).encode(), np.uint8)
MARK_PLACES = np.cumsum([0] + [len(mark.encode()) for mark in ELLIPSES])
COLON, SLASH, PERCENT = np.uint8(0x3A), 0x2F, 0x25


@kernel
def measure_texts(data, offsets, kinds, word_sets, out, spans):
    """Fills `out` (float64, texts x NAMES, at first NaN) for the texts `data[offsets[i]:offsets[i + 1]]`.

    `spans` (int64, texts x 7, at first 0) gets the start and the end, in the text's bytes, of the most frequent 2-, 3- and 4-gram, and last
    the number of characters.
    """
    common, ellipses = word_sets
    longest = longest_text(offsets)
    hashes, ends, seen = np.empty(longest + 1, np.uint64), np.empty(longest + 2, np.int64), np.empty(longest + 1, np.uint8)
    counts, table = new_ngram_counts(longest // 2 + 1), np.empty(table_size(longest + 1), np.uint64)
    for text in range(offsets.size - 1):
        start, end, row = offsets[text], offsets[text + 1], out[text]
        characters = count_characters(data, start, end)
        spans[text, -1] = characters
        count = hash_chunks(data, start, end, kinds, hashes, ends, seen)
        word_values(hashes, ends, seen, count, common, row)
        if count:
            row[WORDS + 4] = symbol_words(data, start, end, kinds, ellipses) / count
        character_values(data, start, end, kinds, characters, row)
        line_values(data, start, end, kinds, table, row)
        paragraph_values(data, start, end, table, row)
        count_words(hashes, count, counts)
        for n in range(TOP[0], DUPLICATED[-1] + 1):
            count_ngrams(count, n, counts)
            if n > TOP[-1]:
                row[DUPLICATED_5 + n - DUPLICATED[0]] = later_copies(ends, count, n, counts) / characters if count >= n else 1.0
            elif count >= n:
                first = most_frequent(count, n, ends, counts)[0]
                place = 2 * (n - TOP[0])
                spans[text, place], spans[text, place + 1] = word_span(data, start, end, kinds, first, n)


@kernel
def word_values(hashes, ends, seen, count, common, row):
    longest, wanted, letters = 0, 0, 0
    for word in range(count):
        longest = max(longest, ends[word + 1] - ends[word])
        wanted += find(common, common.size - 1, hashes[word]) >= 0
        letters += seen[word] & ALPHA != 0
    row[WORDS], row[WORDS + 1], row[WORDS + 2] = count, longest, wanted
    if count:
        row[WORDS + 3], row[WORDS + 5] = ends[count] / count, letters / count


@kernel
def symbol_words(data, start, end, kinds, ellipses):
    """Counts words that are an ellipsis, or in which the number of runs of "#" exceeds half the number of characters."""
    symbols = 0
    at = skip_space(data, start, end, kinds)
    while at < end:
        stop, characters, found = walk_chunk(data, at, end, kinds)
        if found & HASH:
            runs = 0
            for place in range(at, stop):
                runs += kinds[data[place]] & HASH != 0 and (place == at or kinds[data[place - 1]] & HASH == 0)
            symbols += runs / characters > 0.5
        elif stop - at <= 5 and not found & ALPHA:
            symbols += find(ellipses, ellipses.size - 1, hash_span(data, at, stop)) >= 0
        at = skip_space(data, stop, end, kinds)
    return symbols


@kernel
def character_values(data, start, end, kinds, characters, row):
    """Computes shares of characters; all are 1 for an empty text, as in NeMo."""
    if not characters:
        row[CHARACTERS : CHARACTERS + 5] = 1.0
        return
    plain, digits, white, parentheses = 0, 0, 0, 0
    at = start
    while at < end:
        point, width = decode(data, at)
        kind = kinds[point]
        plain += kind & PLAIN != 0
        digits += kind & DIGIT != 0
        white += kind & WHITE != 0
        parentheses += kind & PARENTHESIS != 0
        at += width
    place = CHARACTERS
    row[place], row[place + 1], row[place + 2] = (characters - plain) / characters, digits / characters, white / characters
    row[place + 3], row[place + 4] = parentheses / characters, url_characters(data, start, end, kinds) / characters


@kernel
def url_characters(data, start, end, kinds):
    """Counts characters in matches of `https?://(?:[A-Za-z0-9$\\-_@.&+/:=?#~!*(),]|%[0-9A-Fa-f]{2})+`."""
    total, free = 0, start
    colon = find_byte(data, start, end, COLON)
    while colon < end:
        at = colon + 3
        begin = _scheme_start(data, free, colon)
        if begin >= 0 and at < end and data[colon + 1] == SLASH and data[colon + 2] == SLASH:
            while at < end:
                if data[at] < 0x80 and kinds[data[at]] & URL:
                    at += 1
                elif at + 2 < end and data[at] == PERCENT and _is_hex(data[at + 1]) and _is_hex(data[at + 2]):
                    at += 3
                else:
                    break
            if at > colon + 3:
                total += at - begin
                free = at
        colon = find_byte(data, max(colon + 1, free), end, COLON)
    return total


@kernel
def _scheme_start(data, free, colon):
    """Returns the start of `https?` that ends at the colon and begins at `free` or later; -1 if there is none."""
    begin = colon - 5 if colon - 5 >= free and data[colon - 1] == 0x73 else colon - 4
    if begin >= free and data[begin] == 0x68 and data[begin + 1] == 0x74 and data[begin + 2] == 0x74 and data[begin + 3] == 0x70:
        return begin
    return -1


@kernel
def _is_hex(byte):
    return 0x30 <= byte <= 0x39 or 0x41 <= byte <= 0x46 or 0x61 <= byte <= 0x66


@kernel
def line_values(data, start, end, kinds, table, row):
    """Measures lines of `text.split("\\n")` that are not blank: bullets, ellipses, no end mark; distinct lines and their characters."""
    mask = cleared(table, count_byte(data, start, end, NEWLINE) + 1)
    lines, bullets, ellipses, unended, unique, characters, unique_characters = 0, 0, 0, 0, 0, 0, 0
    at = start
    while at < end:
        stop = find_byte(data, at, end, NEWLINE)
        first = strip_start(data, at, stop, kinds)
        if first < stop:
            last = strip_end(data, first, stop, kinds)
            lines += 1
            bullets += decode(data, first)[0] in BULLET_POINTS
            ellipses += ends_in_ellipsis(data, first, last)
            unended += data[last - 1] not in MARKS
            length = count_characters(data, at, stop)
            characters += length
            if not insert(table, mask, hash_span(data, at, stop)):
                unique += 1
                unique_characters += length
        at = stop + 1
    if lines:
        row[LINES], row[LINES + 1], row[LINES + 2] = bullets / lines, ellipses / lines, unended / lines
        row[LINES + 3], row[LINES + 4] = unique / lines, unique_characters / characters


@kernel
def ends_in_ellipsis(data, start, end):
    """Whether the span, in lower case, ends in one of ELLIPSES. Only ASCII characters have letters of ELLIPSES as lower case."""
    for mark in range(MARK_PLACES.size - 1):
        size = MARK_PLACES[mark + 1] - MARK_PLACES[mark]
        same = end - start >= size
        for place in range(size * same):
            byte = data[end - size + place]
            same &= (byte + 0x20 if 0x41 <= byte <= 0x5A else byte) == MARK_BYTES[MARK_PLACES[mark] + place]
        if same:
            return True
    return False


@kernel
def paragraph_values(data, start, end, table, row):
    """Measures paragraphs, the pieces of `text.split("\\n\\n")`: distinct ones and their characters."""
    mask = cleared(table, count_byte(data, start, end, NEWLINE) // 2 + 1)
    pieces, unique, characters, unique_characters = 0, 0, 0, 0
    at = start
    while True:
        stop = split_piece_end(data, at, end)
        pieces += 1
        length = count_characters(data, at, stop)
        characters += length
        if not insert(table, mask, hash_span(data, at, stop)):
            unique += 1
            unique_characters += length
        if stop == end:
            break
        at = stop + 2
    row[PARAGRAPHS] = unique / pieces
    if characters:
        row[PARAGRAPHS + 1] = unique_characters / characters


@kernel
def later_copies(ends, count, n, counts):
    """Counts characters of n-grams that occurred before, spaces between their words included, without characters that already counted."""
    total, overlap = 0, 0
    for at in range(count - n + 1):
        if counts.first[at] >= 0 and counts.first[at] != at:
            total += ends[at + n] - ends[at + overlap] + min(n - overlap, n - 1)
            overlap = n
        overlap = max(overlap - 1, 0)
    return total


@kernel
def word_span(data, start, end, kinds, first, n):
    """Returns the start and the end, in the text's bytes, of the words `first` to `first + n - 1`."""
    begin = 0
    at = skip_space(data, start, end, kinds)
    for word in range(first + n):
        if word == first:
            begin = at - start
        stop = walk_chunk(data, at, end, kinds)[0]
        at = skip_space(data, stop, end, kinds)
    return begin, stop - start
