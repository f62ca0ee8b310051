# mypy: disallow-untyped-defs=False
"""The quality signals of RedPajama v2 (arXiv 2411.12372; app/src/core/quality_signals) that need no reference model, under its names.

RedPajama publishes some signals for each line. Here a document has one value: the sum of `rps_lines_javascript_counts`, the mean over
the lines of the others. Everything is rounded to eight places, as in RedPajama. The normalised text is in lower case, without ASCII
punctuation, with spaces collapsed, in NFD.

These peculiarities of RedPajama are kept: terminal marks are . ! ? and ” alone; stop words are compared with words in the case as
written; a word has a letter if it has an ASCII letter; a line includes its newline. Raw words are those of NLTK's WordPunct up to
version 3.9. NLTK 3.10 changed its engine of regular expressions, and combining marks became parts of words.
"""

import re
import string
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from math import log
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from corpusmill.filters.rules import Rule
from corpusmill.filters.statistics import ends_in_ellipsis, symbol_counts
from corpusmill.filters.step import DocumentBatch, Step, StepOutput
from corpusmill.filters.stop_words import stop_words
from corpusmill.pipeline.config import Config
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.kernel import kernel
from corpusmill.text.buffers import longest_text, text_buffers
from corpusmill.text.hashing import BASE, find, hash_span, insert, mix64, table_size, word_set
from corpusmill.text.ngrams import count_ngrams, count_words, covered_characters, most_frequent, new_ngram_counts
from corpusmill.text.utf8 import (
    CODE_POINTS,
    NEWLINE,
    SPACE,
    SURROGATES,
    WORD,
    character_classes,
    count_byte,
    count_characters,
    decode,
    find_byte,
    previous,
    strip_end,
    strip_start,
)
from corpusmill.text.words import hash_chunks

#: Kinds of characters, in addition to WORD and SPACE: ASCII letters, `str.isupper`, `str.islower` or title case, `str.isnumeric`.
LATIN, UPPER, SMALL, NUMERIC = 4, 8, 16, 32
BULLETS = "•‣▶◀◦■□▪▫–"
PRECISION = 8
PUNCTUATION = string.punctuation.encode()
LOWER = bytes(range(256)).lower()
LOREM_IPSUM = re.compile("lorem ipsum", re.IGNORECASE)

#: The signals, in the order of the kernel's output.
NAMES = (
    "doc_num_sentences", "doc_word_count", "doc_mean_word_length", "doc_symbol_to_word_ratio", "doc_frac_lines_end_with_ellipsis",
    "doc_frac_no_alph_words", "doc_frac_unique_words", "doc_unigram_entropy", "doc_frac_all_caps_words",
    "doc_lorem_ipsum", "doc_curly_bracket", "doc_stop_word_fraction",
    *(f"doc_frac_chars_top_{n}gram" for n in (2, 3, 4)), *(f"doc_frac_chars_dupe_{n}grams" for n in range(5, 11)),
    "lines_javascript_counts", "lines_ending_with_terminal_punctution_mark", "lines_num_words", "lines_uppercase_letter_fraction",
    "lines_numerical_chars_fraction", "lines_start_with_bulletpoint", "lines", "doc_ldnoobw_words",
)  # fmt: skip
COUNTS = ("doc_num_sentences", "doc_word_count", "lines_javascript_counts", "lines", "doc_ldnoobw_words")

#: RedPajama has no rules of its own. The card of its data set shows how to build Gopher's rules from the signals.
CARD_RULES = (
    Rule("rps_short_doc", "rps_doc_word_count", "<", 50),
    Rule("rps_long_doc", "rps_doc_word_count", ">", 10_000),
    Rule("rps_short_words", "rps_doc_mean_word_length", "<", 3),
    Rule("rps_long_words", "rps_doc_mean_word_length", ">", 10),
    Rule("rps_too_many_symbols", "rps_doc_symbol_to_word_ratio", ">", 0.1),
    Rule("rps_too_many_bullets", "rps_lines_start_with_bulletpoint", ">", 0.9),
    Rule("rps_top_2_gram", "rps_doc_frac_chars_top_2gram", ">", 0.2),
)


class RedPajamaConfig(Config):
    """RedPajama v2's quality signals without reference models: words, lines, repetition, content."""

    preset: Literal["none", "card"] = Field("none", description="The rules that decide; RedPajama leaves them to its users.")
    language: str = Field("en", description="The language of the stop words (spaCy's, or of the file `stop_words`).")
    stop_words: str | None = Field(
        None, description="JSON file of stop words by language, as RedPajama took from 6/stopwords-json; spaCy's where it is missing."
    )
    bad_words: str | None = Field(None, description="Text file of bad words or phrases, one a line, for `rps_doc_ldnoobw_words`.")


@cache
def _kinds() -> npt.NDArray[np.uint8]:
    kinds = character_classes() & np.uint8(WORD | SPACE)
    for point in range(CODE_POINTS):
        if point not in SURROGATES:
            c = chr(point)
            kinds[point] |= UPPER * c.isupper() | SMALL * (c.islower() or (c.istitle() and not c.isupper())) | NUMERIC * c.isnumeric()
    for letter in string.ascii_letters:
        kinds[ord(letter)] |= LATIN
    return kinds


def normalise(text: bytes) -> bytes:
    """Returns a UTF-8 text in RedPajama's normalised form (utilities/text/normalization.py), except that spaces are not collapsed."""
    if text.isascii():
        return text.translate(LOWER, PUNCTUATION)
    return unicodedata.normalize("NFD", text.translate(None, PUNCTUATION).decode().lower()).encode()


class RedPajama(Step):
    Config = RedPajamaConfig
    PRESETS = {"none": (), "card": CARD_RULES}
    MEANINGS = {
        "rps_doc_word_count": "{count} words",
        "rps_doc_mean_word_length": "words of {number} characters on average",
        "rps_doc_symbol_to_word_ratio": "{ratio} as many symbols (# and ellipses) as words",
        "rps_lines_start_with_bulletpoint": "{share} of the lines begin with a bullet",
        "rps_doc_frac_chars_top_2gram": "one phrase of 2 words takes up {share} of the text",
    }

    @property
    def columns(self) -> dict[str, pa.DataType]:
        names = NAMES if self.config.bad_words else NAMES[:-1]
        return {f"rps_{name}": pa.int64() if name in COUNTS else pa.float64() for name in names}

    def model_files(self) -> list[str]:
        return [path for path in (self.config.stop_words, self.config.bad_words) if path]

    def setup(self) -> None:
        self.stop_words = word_set(sorted(stop_words(self.config.language, self.config.stop_words)))
        phrases = set(self._read(self.config.bad_words).splitlines()) if self.config.bad_words else set()
        self.phrases, self.phrase_lengths = phrase_set(sorted({phrase.strip() for phrase in phrases} - {""}))

    @staticmethod
    def _read(path: str) -> str:
        try:
            with open(path, encoding="utf-8") as file:
                return file.read()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise InputError(f"{path}: can't be read ({reason}).") from error

    def measure(self, batch: DocumentBatch) -> StepOutput:
        data, offsets = text_buffers(batch.text)
        normalised = [normalise(text) for text in _texts(data, offsets)]
        plain = np.frombuffer(b"".join(normalised), np.uint8)
        places = np.concatenate([[0], np.cumsum([len(text) for text in normalised], dtype=np.int64)])
        values = np.full((len(batch), len(NAMES)), np.nan)
        measure_texts(data, offsets, plain, places, _kinds(), (self.stop_words, self.phrases, self.phrase_lengths), values)
        lorem_ipsum = values[:, NAMES.index("doc_lorem_ipsum")]
        for place in np.flatnonzero(lorem_ipsum).tolist():  # the kernel only detects the words
            text = " ".join(normalised[place].decode().split())
            lorem_ipsum[place] = len(LOREM_IPSUM.findall(text)) / len(text)
        columns: dict[str, Any] = {}
        for name, column in zip(NAMES, values.T, strict=True):
            columns[f"rps_{name}"] = column.astype(np.int64) if name in COUNTS else [round(value, PRECISION) for value in column.tolist()]
        return StepOutput(columns)


def _texts(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> Iterator[bytes]:
    view = memoryview(data)  # type: ignore[arg-type]
    places = offsets.tolist()
    for start, end in pairwise(places):
        yield bytes(view[start:end])


# ---- The kernel: measures each text as it is, then its normalised form

(SENTENCES, WORDS, WORD_LENGTH, SYMBOLS, ELLIPSIS_LINES, NO_LETTERS, UNIQUE, ENTROPY, CAPITALS, LOREM_IPSUM_FOUND, CURLY, STOP_WORDS,
 TOP_2, _3, _4, DUPLICATED_5, _6, _7, _8, _9, _10, JAVASCRIPT, TERMINAL, LINE_WORDS, LINE_UPPER, LINE_NUMERIC, BULLET, LINES, BAD_WORDS,
) = range(len(NAMES))  # fmt: skip
BULLET_POINTS = tuple(map(ord, BULLETS))
MARKS = tuple(map(ord, ".!?”"))
DOT, EXCLAMATION, QUESTION, CURLY_OPEN, CURLY_CLOSE = 0x2E, 0x21, 0x3F, np.uint8(0x7B), np.uint8(0x7D)
LOREM, IPSUM, SCRIPT = (np.frombuffer(word, np.uint8) for word in (b"lorem", b"ipsum", b"javascript"))


def phrase_set(phrases: Sequence[str]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """Returns a table for `find` with the `phrase_key` of each phrase, and the distinct numbers of words in phrases.

    The words of a phrase stand between single spaces.
    """
    table = np.zeros(4 * table_size(len(phrases)), np.uint64)
    lengths = set()
    for phrase in phrases:
        spans = [np.frombuffer(word.encode(), np.uint8) for word in phrase.split(" ")]
        hashes = np.array([hash_span(span, 0, span.size) for span in spans], np.uint64)
        insert(table, table.size - 1, np.uint64(phrase_key(hashes, 0, hashes.size)))
        lengths.add(hashes.size)
    return table, np.array(sorted(lengths), np.int64)


@kernel
def phrase_key(hashes, at, n):
    key = np.uint64(n)
    for word in range(at, at + n):
        key = mix64(key * BASE + hashes[word])
    return key


@kernel
def measure_texts(data, offsets, plain, places, kinds, lists, out):
    """Fills `out` (float64, texts x NAMES, at first NaN) for the texts `data[offsets[i]:offsets[i + 1]]`.

    The normalised forms are `plain[places[i]:places[i + 1]]`. `lists`: stop words, bad phrases, and the numbers of words of the phrases.
    """
    stop_words, phrases, phrase_lengths = lists
    longest = longest_text(places)
    hashes, ends, seen = np.empty(longest + 1, np.uint64), np.empty(longest + 2, np.int64), np.empty(longest + 1, np.uint8)
    counts = new_ngram_counts(longest // 2 + 1)
    for text in range(offsets.size - 1):
        start, end, row = offsets[text], offsets[text + 1], out[text]
        begin, stop = places[text], places[text + 1]
        count = hash_chunks(plain, begin, stop, kinds, hashes, ends, seen)
        row[WORDS] = count
        row[SENTENCES] = count_sentences(data, start, end, kinds)
        characters = max(count_characters(data, start, end), 1)
        row[CURLY] = (count_byte(data, start, end, CURLY_OPEN) + count_byte(data, start, end, CURLY_CLOSE)) / characters
        raw_word_values(data, start, end, kinds, stop_words, count, row)
        line_values(data, start, end, kinds, row)
        row[LINE_WORDS] = count / row[LINES] if row[LINES] else np.nan
        row[LINE_NUMERIC] = numeric_line_fraction(plain, begin, stop, kinds) / row[LINES] if row[LINES] else np.nan
        found, scripts = fixed_words(plain, begin, stop, kinds)
        row[LOREM_IPSUM_FOUND], row[JAVASCRIPT] = found, scripts
        row[TOP_2 : DUPLICATED_5 + 6] = 0
        row[BAD_WORDS] = count_phrases(hashes, count, phrases, phrase_lengths)
        if count:
            unigram_values(hashes, ends, count, counts, row)
            repetition(ends, count, counts, row)


@kernel
def count_sentences(data, start, end, kinds):
    """Counts matches of `\\b[^.!?]+[.!?]*`: each begins at the first word character after the previous match."""
    sentences = 0
    at = start
    while at < end:
        point, width = decode(data, at)
        if not kinds[point] & WORD:
            at += width
            continue
        sentences += 1
        while at < end and data[at] != DOT and data[at] != EXCLAMATION and data[at] != QUESTION:
            at += 1
        while at < end and (data[at] == DOT or data[at] == EXCLAMATION or data[at] == QUESTION):
            at += 1
    return sentences


@kernel
def raw_word_values(data, start, end, kinds, stop_words, normalised_words, row):
    """Measures NLTK's WordPunct words (runs of `\\w`, runs of other characters except spaces): letters, capitals, stop words, symbols."""
    words, letters, capitals, stops = 0, 0, 0, 0
    at = start
    while at < end:
        point, width = decode(data, at)
        kind = kinds[point]
        if kind & SPACE:
            at += width
            continue
        first, found = at, kind
        inside = kind & (WORD | SPACE)
        while True:
            found |= kind
            at += width
            if at >= end:
                break
            point, width = decode(data, at)
            kind = kinds[point]
            if kind & (WORD | SPACE) != inside:
                break
        words += 1
        letters += found & LATIN != 0
        capitals += found & (UPPER | SMALL) == UPPER
        stops += find(stop_words, stop_words.size - 1, hash_span(data, first, at)) >= 0
    row[STOP_WORDS] = stops / words if normalised_words else 0.0
    if words:
        hashes, ellipses = symbol_counts(data, start, end)
        row[SYMBOLS] = (hashes + ellipses) / words
        row[NO_LETTERS] = 1.0 - letters / words
        row[CAPITALS] = capitals / words


@kernel
def line_values(data, start, end, kinds, row):
    """Measures lines of `[^\\n]*\\n|[^\\n]+$`: their number, the shares with a terminal mark, an ellipsis, a bullet, and the capitals."""
    lines, terminal, ellipses, bullets, upper = 0, 0, 0, 0, 0.0
    at = start
    while at < end:
        stop = find_byte(data, at, end, NEWLINE)
        lines += 1
        after = min(stop + 1, end)
        capitals, characters = 0, 0
        place = at
        while place < after:
            point, width = decode(data, place)
            capitals += kinds[point] & UPPER != 0
            characters += 1
            place += width
        upper += capitals / characters
        first = strip_start(data, at, stop, kinds)
        if first < stop:
            last = strip_end(data, first, stop, kinds)
            bullets += decode(data, first)[0] in BULLET_POINTS
            terminal += decode(data, previous(data, last))[0] in MARKS
            ellipses += ends_in_ellipsis(data, first, last)
        at = after
    row[LINES] = lines
    if lines:
        row[ELLIPSIS_LINES], row[TERMINAL], row[BULLET], row[LINE_UPPER] = (
            ellipses / lines,
            terminal / lines,
            bullets / lines,
            upper / lines,
        )


@kernel
def numeric_line_fraction(data, start, end, kinds):
    """Sums over the normalised lines their shares of numeric characters, spaces collapsed and stripped; an empty line adds 0."""
    total = 0.0
    at = start
    while at < end:
        stop = find_byte(data, at, end, NEWLINE)
        numeric, characters, space = 0, 0, True
        while at < stop:
            point, width = decode(data, at)
            if kinds[point] & SPACE:
                space = True
            else:
                characters += 1 + (space and characters > 0)
                space = False
                numeric += kinds[point] & NUMERIC != 0
            at += width
        if characters:
            total += numeric / characters
        at = stop + 1
    return total


@kernel
def fixed_words(data, start, end, kinds):
    """Counts "lorem ipsum", in the text with spaces collapsed, and the word "javascript"."""
    found, scripts, lorem = 0, 0, False
    at = strip_start(data, start, end, kinds)
    while at < end:
        stop = at
        while stop < end:
            point, width = decode(data, stop)
            if kinds[point] & SPACE:
                break
            stop += width
        found += lorem and _equal(data, at, min(at + 5, stop), IPSUM)
        lorem = stop - at >= 5 and _equal(data, stop - 5, stop, LOREM)
        scripts += stop - at == 10 and _equal(data, at, stop, SCRIPT)
        at = strip_start(data, stop, end, kinds)
    return found, scripts


@kernel
def _equal(data, start, end, wanted):
    same = end - start == wanted.size
    for place in range(wanted.size * same):
        same &= data[start + place] == wanted[place]
    return same


@kernel
def count_phrases(hashes, count, phrases, lengths):
    found = 0
    for n in lengths:
        for at in range(count - n + 1):
            found += find(phrases, phrases.size - 1, phrase_key(hashes, at, n)) >= 0
    return found


@kernel
def unigram_values(hashes, ends, count, counts, row):
    """Computes mean length, share of distinct words, and the entropy in nats, summed in the order of first occurrence."""
    row[UNIQUE] = count_words(hashes, count, counts) / count
    row[WORD_LENGTH] = ends[count] / count
    entropy = 0.0
    for at in range(count):
        if counts.words[at] == at:
            share = np.float64(counts.times[at]) / count
            entropy += -share * log(share)
    row[ENTROPY] = entropy


@kernel
def repetition(ends, count, counts, row):
    """Measures the most frequent 2- to 4-gram if it repeats, and words in repeated 5- to 10-grams. Needs the result of `count_words`."""
    for n in range(2, 11):
        if not count_ngrams(count, n, counts):
            continue
        if n < 5:
            _, times, length = most_frequent(count, n, ends, counts)
            row[TOP_2 + n - 2] = times * length / ends[count]
        else:
            row[DUPLICATED_5 + n - 5] = covered_characters(count, n, ends, counts) / ends[count]
