"""RefinedWeb's line corrections (Penedo et al. 2023, arXiv 2306.01116, appendix G.2) as DCLM's code has them.

In DCLM's order (baselines/mappers/modifiers.py, with the options of baselines_configs/dclm_baseline_refinedweb.yaml), each on
what the ones before left, lines of `text.split("\\n")`:

1. lines with more than half upper-case characters (`str.isupper`) go;
2. lines of nothing but digits (`str.isdigit`, more than .999999 of the characters) go;
3. counters go, such as "3 likes" and "1.2K views";
4. lines of fewer than two words (`str.split`) go, empty lines stay;
5. "items in cart", "Read more..." at the end and "Sign-in" at the start go out of lines of at most ten words, whatever
   their case, and the line with them where nothing else is on it. DCLM's dots are those of a regular expression, so any three
   characters may follow "read more".

After each but 4 the whole text is stripped. Words for the removed share are those of fastText that begin with a letter or digit.
A document goes where more than 5 % of its words were removed, where it had none, and where nothing is left.
"""

from functools import cache
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from corpusmill.filters.rules import Rule
from corpusmill.filters.statistics import ratio
from corpusmill.filters.step import Batch, Measured, Step
from corpusmill.pipeline.config import Config
from corpusmill.pipeline.text.buffers import text_array, text_buffers

DCLM = (
    Rule("no_words", "refinedweb_words", "<", 1),
    Rule("no_lines_left", "refinedweb_kept_lines", "<", 1),
    Rule("words_removed", "refinedweb_removed_word_ratio", ">", 0.05),
)


class RefinedwebLinesConfig(Config):
    """RefinedWeb: lines of capitals, digits, counters and single words go, and documents of which much goes with them."""

    preset: Literal["dclm", "refinedweb"] = Field("dclm", description="Whose rules decide.")


@cache
def _tables() -> Any:
    """`Tables` of the kernel. The letters are what Python's `re.IGNORECASE` takes for them, such as a dotless i for an i."""
    import re

    from corpusmill.filters import refinedweb_lines_kernel as kernel
    from corpusmill.pipeline.text.utf8 import CODE_POINTS, DIGIT, SPACE, SURROGATES, WORD, character_classes

    classes = character_classes() & np.uint8(DIGIT | SPACE | WORD)
    characters = "".join(chr(point) for point in range(CODE_POINTS) if point not in SURROGATES)
    for character in characters:
        if character.isupper() or character.isdigit():
            classes[ord(character)] |= character.isupper() * kernel.IS_UPPER | character.isdigit() * kernel.IS_DIGIT
    letters = np.zeros(CODE_POINTS, np.uint8)
    for letter in sorted(set(kernel.ANYWHERE + kernel.AT_END + kernel.AT_START)):
        for alike in re.findall(re.escape(letter), characters, re.IGNORECASE):
            letters[ord(alike)] = ord(letter)
    return kernel.Tables(classes, letters)


class RefinedwebLines(Step):
    Config = RefinedwebLinesConfig
    PRESETS = {"dclm": DCLM, "refinedweb": DCLM}
    MEANINGS = {
        "refinedweb_words": "{count} words",
        "refinedweb_kept_lines": "{count} lines left of the text",
        "refinedweb_removed_word_ratio": "{share} of the words go with lines of capitals, digits, counters and single words",
    }
    rewrites = True

    @property
    def columns(self) -> dict[str, pa.DataType]:
        counts = ("lines", "kept_lines", "uppercase_lines", "numeric_lines", "counter_lines", "one_word_lines", "phrase_lines",
                  "shortened_lines", "words", "kept_words")  # fmt: skip
        return {f"refinedweb_{name}": pa.int64() for name in counts} | {"refinedweb_removed_word_ratio": pa.float64()}

    def measure(self, batch: Batch) -> Measured:
        from corpusmill.filters.refinedweb_lines_kernel import COUNTS, KEPT_WORDS, WORDS, correct_texts

        data, offsets = text_buffers(batch.text)
        new_data = np.empty(offsets[-1] - offsets[0], np.uint8)
        new_offsets = np.empty(len(offsets), np.int64)
        counts = np.zeros((len(batch), COUNTS), np.int64)
        correct_texts(data, offsets, _tables(), new_data, new_offsets, counts)
        removed = ratio(counts[:, WORDS] - counts[:, KEPT_WORDS], counts[:, WORDS])
        columns = dict(zip(self.columns, [*counts.T, removed]))
        return Measured(columns, text_array(new_data[: new_offsets[-1]], new_offsets))
