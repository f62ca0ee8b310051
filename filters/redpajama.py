"""The quality signals of RedPajama v2 that need no reference model (app/src/core/quality_signals), under their names there.

RedPajama publishes the signals of each line; here stands what a document's lines come to: the sum of
`rps_lines_javascript_counts`, the mean over the lines of the others. Everything is rounded to eight places as there.
The normalised text is lower case, without ASCII punctuation, spaces collapsed, in NFD.

Quirks that are kept: terminal marks are . ! ? and ” alone; stop words are looked up in the words as they are written;
words with letters are those with ASCII letters; a line counts its newline. Raw words are those of NLTK's WordPunct as it was
then (up to 3.9): NLTK 3.10 changed the engine of its expressions, to which combining marks are parts of words.
"""

import re
import string
import unicodedata
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from corpusmill.filters.rules import Rule
from corpusmill.filters.step import Batch, Measured, Step
from corpusmill.pipeline.config import Config
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.text.buffers import text_buffers
from corpusmill.pipeline.text.utf8 import CODE_POINTS, SPACE, SURROGATES, WORD, character_classes

#: Kinds of characters beside WORD and SPACE: ASCII letters, `str.isupper`, `str.islower` or title case, `str.isnumeric`.
LATIN, UPPER, SMALL, NUMERIC = 4, 8, 16, 32
BULLETS = "•‣▶◀◦■□▪▫–"
PRECISION = 8
PUNCTUATION = string.punctuation.encode()
LOWER = bytes(range(256)).lower()
LOREM_IPSUM = re.compile("lorem ipsum", re.IGNORECASE)

#: What the kernel finds, in its order.
NAMES = (
    "doc_num_sentences", "doc_word_count", "doc_mean_word_length", "doc_symbol_to_word_ratio", "doc_frac_lines_end_with_ellipsis",
    "doc_frac_no_alph_words", "doc_frac_unique_words", "doc_unigram_entropy", "doc_frac_all_caps_words",
    "doc_lorem_ipsum", "doc_curly_bracket", "doc_stop_word_fraction",
    *(f"doc_frac_chars_top_{n}gram" for n in (2, 3, 4)), *(f"doc_frac_chars_dupe_{n}grams" for n in range(5, 11)),
    "lines_javascript_counts", "lines_ending_with_terminal_punctution_mark", "lines_num_words", "lines_uppercase_letter_fraction",
    "lines_numerical_chars_fraction", "lines_start_with_bulletpoint", "lines", "doc_ldnoobw_words",
)  # fmt: skip
COUNTS = ("doc_num_sentences", "doc_word_count", "lines_javascript_counts", "lines", "doc_ldnoobw_words")

#: RedPajama decides nothing; the card of its data set shows how Gopher's rules are built from the signals.
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

    preset: Literal["none", "card"] = Field("none", description="Whose rules decide: RedPajama leaves that to its users.")
    language: str = Field("en", description="Whose stop words count, as spaCy or the file `stop_words` names the language.")
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
    """RedPajama's normalisation of a UTF-8 text (utilities/text/normalization.py), but for spaces: those stay as they are."""
    if text.isascii():
        return text.translate(LOWER, PUNCTUATION)
    return unicodedata.normalize("NFD", text.translate(None, PUNCTUATION).decode().lower()).encode()


class RedPajama(Step):
    Config = RedPajamaConfig
    PRESETS = {"none": (), "card": CARD_RULES}
    MEANINGS = {
        "rps_doc_word_count": "{count} words",
        "rps_doc_mean_word_length": "words of {number} characters on average",
        "rps_doc_symbol_to_word_ratio": "{share} as many symbols (# and ellipses) as words",
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
        from corpusmill.filters.redpajama_kernel import phrase_set
        from corpusmill.filters.stop_word_lists import stop_words
        from corpusmill.pipeline.text.hashing import word_set

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

    def measure(self, batch: Batch) -> Measured:
        from corpusmill.filters.redpajama_kernel import measure_texts

        data, offsets = text_buffers(batch.text)
        normalised = [normalise(text) for text in _texts(data, offsets)]
        plain = np.frombuffer(b"".join(normalised), np.uint8)
        places = np.concatenate([[0], np.cumsum([len(text) for text in normalised], dtype=np.int64)])
        values = np.full((len(batch), len(NAMES)), np.nan)
        measure_texts(data, offsets, plain, places, _kinds(), (self.stop_words, self.phrases, self.phrase_lengths), values)
        lorem_ipsum = values[:, NAMES.index("doc_lorem_ipsum")]
        for place in np.flatnonzero(lorem_ipsum).tolist():  # which the kernel only finds
            text = " ".join(normalised[place].decode().split())
            lorem_ipsum[place] = len(LOREM_IPSUM.findall(text)) / len(text)
        columns: dict[str, Any] = {}
        for name, column in zip(NAMES, values.T, strict=True):
            columns[f"rps_{name}"] = column.astype(np.int64) if name in COUNTS else [round(value, PRECISION) for value in column.tolist()]
        return Measured(columns)


def _texts(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> Iterator[bytes]:
    view = memoryview(data)  # type: ignore[arg-type]
    places = offsets.tolist()
    for start, end in pairwise(places):
        yield bytes(view[start:end])
