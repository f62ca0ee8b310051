"""Gopher's quality heuristics (MassiveText, arXiv 2112.11446, A1.1), measured as datatrove measures them."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from corpusmill.filters.rules import Rule, n_grams, words_of
from corpusmill.filters.statistics import LINES, REPETITION, WORDS, Needs
from corpusmill.filters.step import StatisticsStep
from corpusmill.pipeline.config import Config

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")

_SYMBOLS = (
    Rule("gopher_too_many_hashes", "gopher_hash_ratio", ">", 0.1),
    Rule("gopher_too_many_ellipsis", "gopher_ellipsis_ratio", ">", 0.1),
    Rule("gopher_too_many_bullets", "gopher_bullet_line_ratio", ">", 0.9),
    Rule("gopher_too_many_end_ellipsis", "gopher_ellipsis_line_ratio", ">", 0.3),
    Rule("gopher_below_alpha_threshold", "gopher_alpha_word_ratio", "<", 0.8),
)
_STOP_WORDS = Rule("gopher_enough_stop_words", "gopher_stop_words", "<", 2)
QUALITY = (
    Rule("gopher_short_doc", "gopher_words", "<", 50),
    Rule("gopher_long_doc", "gopher_words", ">", 100_000),
    Rule("gopher_below_avg_threshold", "gopher_mean_word_length", "<", 3),
    Rule("gopher_above_avg_threshold", "gopher_mean_word_length", ">", 10),
    *_SYMBOLS,
    _STOP_WORDS,
)

#: The paper counts every word. datatrove leaves words of punctuation alone out of the number of words and of their mean length.
QUALITY_PAPER = (
    Rule("gopher_short_doc", "gopher_all_words", "<", 50),
    Rule("gopher_long_doc", "gopher_all_words", ">", 100_000),
    Rule("gopher_below_avg_threshold", "gopher_mean_all_word_length", "<", 3),
    Rule("gopher_above_avg_threshold", "gopher_mean_all_word_length", ">", 10),
    *_SYMBOLS,
    _STOP_WORDS,
)

#: For the word rule `characters`, where a word is mostly one character. The limits are our own. 50 words of Chinese are about 80
#: characters; word lengths and English stop words mean nothing there.
QUALITY_CHARACTERS = (
    Rule("gopher_short_doc", "gopher_words", "<", 80),
    Rule("gopher_long_doc", "gopher_words", ">", 160_000),
    *_SYMBOLS,
)


class GopherQualityConfig(Config):
    """Gopher quality: number and length of words, symbols, bullets, ellipses, alphabetic words, stop words."""

    preset: Literal["datatrove-0.10", "fineweb", "gopher-paper", "characters"] = Field(
        "datatrove-0.10", description="The pipeline whose rules decide."
    )
    stop_words: tuple[str, ...] = Field(STOP_WORDS, description="Stop words, in the case as written; a text must have some of them.")


class GopherQuality(StatisticsStep):
    Config = GopherQualityConfig
    PRESETS = {"datatrove-0.10": QUALITY, "fineweb": QUALITY, "gopher-paper": QUALITY_PAPER, "characters": QUALITY_CHARACTERS}
    MEANINGS = {
        "gopher_words": "{count} words",
        "gopher_all_words": "{count} words",
        "gopher_mean_word_length": "words of {number} characters on average",
        "gopher_mean_all_word_length": "words of {number} characters on average",
        "gopher_hash_ratio": "{ratio} as many # signs as words",
        "gopher_ellipsis_ratio": "{ratio} as many ellipses (...) as words",
        "gopher_bullet_line_ratio": "{share} of the lines begin with a bullet",
        "gopher_ellipsis_line_ratio": "{share} of the lines end with an ellipsis (...)",
        "gopher_alpha_word_ratio": "{share} of the words have a letter",
    }

    STATISTICS = {
        "gopher_words": ("nonsymbol_words",),  # words with at least one character that is not punctuation
        "gopher_all_words": ("words",),
        "gopher_mean_word_length": ("nonsymbol_characters", "nonsymbol_words"),
        "gopher_mean_all_word_length": ("word_characters", "words"),
        "gopher_hash_ratio": ("hashes", "words"),
        "gopher_ellipsis_ratio": ("ellipses", "words"),
        "gopher_bullet_line_ratio": ("bullet_lines", "lines"),
        "gopher_ellipsis_line_ratio": ("ellipsis_lines", "lines"),
        "gopher_alpha_word_ratio": ("alpha_words", "words"),
        "gopher_stop_words": ("stop_words",),  # each different word once
    }

    @property
    def meanings(self) -> Mapping[str, str]:
        of = "Gopher's eight English stop words" if self.config.stop_words == STOP_WORDS else "the stop words"
        return {**self.MEANINGS, "gopher_stop_words": f"{{count}} of {of} ({words_of(self.config.stop_words)})"}

    @property
    def needs(self) -> Needs:
        return Needs(WORDS | LINES, stop_words=self.config.stop_words)


# ---- Repetition (table A1)
#
# datatrove differs from the paper: only copies after the first count; repeated n-grams are found greedily from the left; the most frequent
# n-gram counts even if it occurs once; the characters of n-grams are divided by all characters of the text.

TOP = (2, 3, 4)
DUPLICATED = (5, 6, 7, 8, 9, 10)


def _duplicated(limits: tuple[float, ...]) -> tuple[Rule, ...]:
    return tuple(Rule(f"duplicated_{n}_n_grams", f"dup_{n}_gram_char_frac", ">", limit) for n, limit in zip(DUPLICATED, limits))


_TOP = tuple(Rule(f"top_{n}_gram", f"top_{n}_gram_char_frac", ">", limit) for n, limit in zip(TOP, (0.2, 0.18, 0.16)))
_NGRAMS = (*_TOP, *_duplicated((0.15, 0.14, 0.13, 0.12, 0.11, 0.10)))
_LINES = (
    Rule("repetition_empty", "repetition_characters", "<", 1),
    Rule("dup_para_frac", "dup_para_frac", ">", 0.3),
    Rule("dup_para_char_frac", "dup_para_char_frac", ">", 0.2),
    Rule("dup_line_frac", "dup_line_frac", ">", 0.3),
    Rule("dup_line_char_frac", "dup_line_char_frac", ">", 0.2),
)
REPEATED = (*_LINES, *_NGRAMS)

#: The limits in the order of the paper's table. The paper does not say whether the first copy counts, nor by which characters to divide.
#: The values here are datatrove's: copies after the first, each character once, divided by all characters of the text.
REPEATED_PAPER = (
    Rule("dup_line_frac", "dup_line_frac", ">", 0.3),
    Rule("dup_para_frac", "dup_para_frac", ">", 0.3),
    Rule("dup_line_char_frac", "dup_line_char_frac", ">", 0.2),
    Rule("dup_para_char_frac", "dup_para_char_frac", ">", 0.2),
    *_NGRAMS,
)

#: For the word rule `characters`. The limits are our own: five characters are two or three words, and repeat in any text. They were set on
#: 281 Japanese manual pages, of which 5% exceed each limit. Of 128 Chinese pages, fewer do.
REPEATED_CHARACTERS = (*_LINES, *_TOP, *_duplicated((0.35, 0.31, 0.28, 0.25, 0.22, 0.19)))


class GopherRepetitionConfig(Config):
    """Gopher repetition: repeated lines, paragraphs and word n-grams."""

    preset: Literal["datatrove-0.10", "fineweb", "gopher-paper", "characters"] = Field(
        "datatrove-0.10", description="The pipeline whose rules decide."
    )


class GopherRepetition(StatisticsStep):
    Config = GopherRepetitionConfig
    PRESETS = {"datatrove-0.10": REPEATED, "fineweb": REPEATED, "gopher-paper": REPEATED_PAPER, "characters": REPEATED_CHARACTERS}
    MEANINGS = {
        "repetition_characters": "{count} characters, so there is no text",
        "dup_para_frac": "{share} of the paragraphs are copies of an earlier one",
        "dup_para_char_frac": "{share} of the characters are in copies of an earlier paragraph",
        "dup_line_frac": "{share} of the lines are copies of an earlier one",
        "dup_line_char_frac": "{share} of the characters are in copies of an earlier line",
        **n_grams("top_{}_gram_char_frac", "dup_{}_gram_char_frac"),
    }

    STATISTICS = {
        "repetition_characters": ("characters",),
        "dup_para_frac": ("repeated_paragraphs", "paragraphs"),
        "dup_para_char_frac": ("repeated_paragraph_characters", "characters"),
        "dup_line_frac": ("repeated_line_runs", "line_runs"),
        "dup_line_char_frac": ("repeated_line_run_characters", "characters"),
        **{f"top_{n}_gram_char_frac": (f"top_{n}", "characters") for n in TOP},
        **{f"dup_{n}_gram_char_frac": (f"duplicated_{n}", "characters") for n in DUPLICATED},
    }

    @property
    def needs(self) -> Needs:
        return Needs(REPETITION)
