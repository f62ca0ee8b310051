"""Gopher's repetition heuristics (MassiveText, arXiv 2112.11446, table A1) as datatrove measures them.

Where datatrove and the paper differ: only copies after the first count; repeated n-grams are found greedily from the
left; the most frequent n-gram counts also where it occurs once; characters of n-grams are compared with all of the text.
"""

from typing import Literal

import pyarrow as pa
from pydantic import Field

from corpusmill.filters.meanings import n_grams
from corpusmill.filters.rules import Rule
from corpusmill.filters.statistics import REPETITION, Needs
from corpusmill.filters.step import Batch, Measured, Step
from corpusmill.pipeline.config import Config

TOP = (2, 3, 4)
DUPLICATED = (5, 6, 7, 8, 9, 10)


def _duplicated(limits: tuple[float, ...]) -> tuple[Rule, ...]:
    return tuple(Rule(f"duplicated_{n}_n_grams", f"dup_{n}_gram_char_frac", ">", limit) for n, limit in zip(DUPLICATED, limits))


_TOP = tuple(Rule(f"top_{n}_gram", f"top_{n}_gram_char_frac", ">", limit) for n, limit in zip(TOP, (0.2, 0.18, 0.16)))
_NGRAMS = (*_TOP, *_duplicated((0.15, 0.14, 0.13, 0.12, 0.11, 0.10)))
DATATROVE = (
    Rule("repetition_empty", "repetition_characters", "<", 1),
    Rule("dup_para_frac", "dup_para_frac", ">", 0.3),
    Rule("dup_para_char_frac", "dup_para_char_frac", ">", 0.2),
    Rule("dup_line_frac", "dup_line_frac", ">", 0.3),
    Rule("dup_line_char_frac", "dup_line_char_frac", ">", 0.2),
    *_NGRAMS,
)

#: The limits in the order of the paper's table. Where it is silent (whether the first copy counts, what characters are compared with) this
#: reads it as datatrove does: copies after the first, each character once, over all characters of the text.
PAPER = (
    Rule("dup_line_frac", "dup_line_frac", ">", 0.3),
    Rule("dup_para_frac", "dup_para_frac", ">", 0.3),
    Rule("dup_line_char_frac", "dup_line_char_frac", ">", 0.2),
    Rule("dup_para_char_frac", "dup_para_char_frac", ">", 0.2),
    *_NGRAMS,
)

#: For the word rule `characters`: limits of our own, no paper's. Five characters are two or three words and repeat in any text: 5% of the
#: 281 Japanese manual pages on which these were set exceed each of them, and fewer of 128 Chinese ones.
CHARACTERS = (*DATATROVE[:5], *_TOP, *_duplicated((0.35, 0.31, 0.28, 0.25, 0.22, 0.19)))


class GopherRepetitionConfig(Config):
    """Gopher repetition: repeated lines, paragraphs and word n-grams."""

    preset: Literal["datatrove-0.10", "fineweb", "gopher-paper", "characters"] = Field("datatrove-0.10", description="Whose rules decide.")


class GopherRepetition(Step):
    Config = GopherRepetitionConfig
    PRESETS = {"datatrove-0.10": DATATROVE, "fineweb": DATATROVE, "gopher-paper": PAPER, "characters": CHARACTERS}
    MEANINGS = {
        "repetition_characters": "{count} characters, so there is no text",
        "dup_para_frac": "{share} of the paragraphs are copies of an earlier one",
        "dup_para_char_frac": "{share} of the characters are in copies of an earlier paragraph",
        "dup_line_frac": "{share} of the lines are copies of an earlier one",
        "dup_line_char_frac": "{share} of the characters are in copies of an earlier line",
        **n_grams("top_{}_gram_char_frac", "dup_{}_gram_char_frac"),
    }

    @property
    def columns(self) -> dict[str, pa.DataType]:
        names = ["dup_para_frac", "dup_para_char_frac", "dup_line_frac", "dup_line_char_frac"]
        names += [f"top_{n}_gram_char_frac" for n in TOP] + [f"dup_{n}_gram_char_frac" for n in DUPLICATED]
        return {"repetition_characters": pa.int64()} | dict.fromkeys(names, pa.float64())

    @property
    def needs(self) -> Needs:
        return Needs(REPETITION)

    def measure(self, batch: Batch) -> Measured:
        found = batch.statistics(self.needs)
        return Measured(
            {
                "repetition_characters": found["characters"],
                "dup_para_frac": found.ratio("repeated_paragraphs", "paragraphs"),
                "dup_para_char_frac": found.ratio("repeated_paragraph_characters", "characters"),
                "dup_line_frac": found.ratio("repeated_line_runs", "line_runs"),
                "dup_line_char_frac": found.ratio("repeated_line_run_characters", "characters"),
                **{f"top_{n}_gram_char_frac": found.ratio(f"top_{n}", "characters") for n in TOP},
                **{f"dup_{n}_gram_char_frac": found.ratio(f"duplicated_{n}", "characters") for n in DUPLICATED},
            }
        )
