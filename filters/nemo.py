"""The heuristics of NeMo Curator 1.4 (stages/text/filters/heuristic), as its filters score a document in English.

Words are those of `str.split`; lines are what stands between newlines and is not blank; paragraphs stand between two
newlines. Repeated lines and paragraphs are measured as the share of different ones. The most frequent n-gram counts also
where it occurs once, by what `str.replace` of it (joined by single spaces) takes away; of equally frequent ones NeMo takes
whichever comes first in a set of Python's, which differs from run to run: here it is the earliest. Of repeated n-grams the
later copies count with their spaces, overlaps once. Where NeMo divides by zero the value is NaN.
"""

from functools import cache
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from corpusmill.filters.meanings import n_grams, words_of
from corpusmill.filters.rules import Rule
from corpusmill.filters.step import Batch, Measured, Step
from corpusmill.pipeline.config import Config
from corpusmill.pipeline.text.buffers import text_buffers
from corpusmill.pipeline.text.utf8 import SPACE, character_classes

COMMON_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
ELLIPSES = ("...", "[...]", "…", "(...)", "[…]", "-»", "read more..", "read more")
BULLETS = "•‣⁃⁌⁍∙○●◘◦⦾⦿"
END_MARKS = ".?!\"'"
#: Phrases of boilerplate in lower case; NeMo's long ones that hold one of the others are left out.
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
#: Every phrase holds one of these.
HINTS = ("cookie", "privacy", "terms of use")

#: Kinds of characters beside SPACE: letters and digits as `regex` has them, "#", and what the filters' sets hold.
ALPHA, DIGIT, HASH, PLAIN, WHITE, PARENTHESIS, URL = 1, 4, 8, 16, 32, 64, 128
TOP = (2, 3, 4)
DUPLICATED = (5, 6, 7, 8, 9, 10)
#: What the kernel finds, in its order.
NAMES = (
    "words", "longest_word", "common_words", "mean_word_length", "symbol_word_ratio", "alpha_word_ratio",
    "non_alnum_ratio", "number_ratio", "white_space_ratio", "parentheses_ratio", "url_ratio",
    "bullet_line_ratio", "ellipsis_line_ratio", "unended_line_ratio",
    "unique_line_ratio", "unique_line_char_ratio", "unique_paragraph_ratio", "unique_paragraph_char_ratio", "boilerplate_paragraph_ratio",
    *(f"top_{n}_gram_ratio" for n in TOP), *(f"dup_{n}_gram_ratio" for n in DUPLICATED),
)  # fmt: skip
COUNTS = ("words", "longest_word", "common_words")

#: The defaults of the filters, and for n-grams those of NeMo's English recipe.
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

    preset: Literal["nemo-1.4"] = Field("nemo-1.4", description="Whose rules decide.")


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
        "nemo_symbol_word_ratio": "{share} as many symbols (# and ellipses) as words",
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

    @property
    def columns(self) -> dict[str, pa.DataType]:
        return {f"nemo_{name}": pa.int64() if name in COUNTS else pa.float64() for name in NAMES}

    def setup(self) -> None:
        from corpusmill.pipeline.text.hashing import word_set

        self.words = word_set(COMMON_WORDS), word_set(ELLIPSES)

    def measure(self, batch: Batch) -> Measured:
        from corpusmill.filters.nemo_kernel import measure_texts

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
        return Measured(columns | {f"nemo_{name}": columns[f"nemo_{name}"].astype(np.int64) for name in COUNTS})


def removed(text: bytes, ngram: str) -> int:
    """By how many characters `str.replace` of the n-gram, its words joined by single spaces, shortens a text."""
    words = " ".join(ngram.split())
    return text.count(words.encode()) * len(words)


def boilerplate_ratio(text: str) -> float:
    """The share of paragraphs with a phrase of POLICY; 1 where "lorem ipsum" stands anywhere."""
    lower = text.lower()
    if "lorem ipsum" in lower:
        return 1.0
    if not any(hint in lower for hint in HINTS):
        return 0.0
    paragraphs = lower.split("\n\n")
    return sum(any(phrase in paragraph for phrase in POLICY) for paragraph in paragraphs) / len(paragraphs)
