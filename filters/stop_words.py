# mypy: disallow-untyped-defs=False
r"""Stop words of the document's own language: a text without any is not prose.

Words are runs of `\w`, lower-cased character by character. Entries of the lists with other characters ("don't") therefore never match.
Languages without spaces between words have no values.
"""

from collections.abc import Mapping
from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from corpusmill.filters.language_codes import canonical
from corpusmill.filters.rules import Rule, limits, plain
from corpusmill.filters.statistics import ratio
from corpusmill.filters.step import DocumentBatch, Step, StepOutput
from corpusmill.pipeline.config import Config, parse_json
from corpusmill.pipeline.errors import ConfigError, InputError
from corpusmill.pipeline.kernel import kernel
from corpusmill.text.buffers import text_buffers
from corpusmill.text.hashing import BASE, ONE, find, hash_set
from corpusmill.text.stop_words import SHIPPED
from corpusmill.text.utf8 import SPACE, WORD, character_classes, decode, lowercase_table
from corpusmill.text.words import hash_word

#: Languages without spaces between words, as ISO 639-3.
UNSPACED = frozenset({"zho", "jpn", "tha", "lao", "khm", "mya", "bod"})


class StopWordsConfig(Config):
    """Stop words: how many of them a text has, by lists for 60 languages (spaCy's) or a file."""

    language: str = Field("en", description="The language of the stop words, if `column` is not given.")
    column: str | None = Field(
        None, description="Column with each document's language, from an earlier step or the documents, for example `language`."
    )
    lists: str | None = Field(None, description="JSON file {language: [words]}; spaCy's lists where it is missing.")
    min_different: int | None = Field(2, ge=0, description="Fewest different stop words; null: no rule.")
    min_share: float | None = Field(None, ge=0, le=1, description="Lowest share of stop words among all words; null: no rule.")


@cache
def _tables() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint32]]:
    return character_classes() & np.uint8(WORD | SPACE), lowercase_table()


class StopWords(Step):
    Config = StopWordsConfig

    @property
    def columns(self) -> dict[str, pa.DataType]:
        # null or NaN if the language has no list
        return {"stop_words": pa.int64(), "different_stop_words": pa.int64(), "stop_word_share": pa.float64()}

    @property
    def meanings(self) -> Mapping[str, str]:
        language = f"the language {self.config.language}" if self.config.column is None else "the document's language"
        words = plain(f"stop words of {language} (its most frequent small words)")
        return {"different_stop_words": f"{{count}} different {words}", "stop_word_share": f"{{share}} of the words are {words}"}

    @property
    def rules(self) -> tuple[Rule, ...]:
        few, low = self.config.min_different, self.config.min_share
        return limits(("too_few_stop_words", "different_stop_words", "<", few), ("low_stop_word_share", "stop_word_share", "<", low))

    def model_files(self) -> list[str]:
        return [self.config.lists] if self.config.lists else []

    def setup(self) -> None:
        known = languages(self.config.lists)
        self.names = {canonical(name): name for name in known if canonical(name) not in UNSPACED}
        self.tables: dict[str, npt.NDArray[np.uint64]] = {}
        if self.config.column is None and canonical(self.config.language) not in self.names:
            raise ConfigError(f"there are no stop words for the language {self.config.language!r} (there are for {', '.join(known)}).")

    def measure(self, batch: DocumentBatch) -> StepOutput:
        data, offsets = text_buffers(batch.text)
        counts = np.zeros((len(batch), 3), np.int64)
        codes = self._languages(batch)
        for code in sorted(set(codes) & set(self.names)):
            documents = np.array([place for place, other in enumerate(codes) if other == code], np.int64)
            count_stop_words(data, offsets, documents, *_tables(), self._table(code), counts)
        unknown = np.array([code not in self.names for code in codes], bool)
        share = ratio(counts[:, 1], counts[:, 0])
        share[unknown] = np.nan
        columns = {name: pa.array(counts[:, place], mask=unknown) for place, name in ((1, "stop_words"), (2, "different_stop_words"))}
        return StepOutput(columns | {"stop_word_share": share})

    def _languages(self, batch: DocumentBatch) -> list[str]:
        """Returns the language of each document as ISO 639-3. Raises InputError if there is no column with the language."""
        name = self.config.column
        if name is None:
            return [canonical(self.config.language)] * len(batch)
        column = batch.column(name)
        if column is None:
            raise InputError(f"the documents have no column {name}, which `stop_words` takes the language from.")
        return [canonical(str(code or "")) for code in column.to_pylist()]

    def _table(self, code: str) -> npt.NDArray[np.uint64]:
        if code not in self.tables:
            lower = lowercase_table()
            words = {"".join(chr(lower[ord(c)]) for c in word) for word in stop_words(self.names[code], self.config.lists)}
            self.tables[code] = hash_set(hash_word(word) for word in sorted(words))
        return self.tables[code]


# ---- The kernel


@kernel
def count_stop_words(data, offsets, documents, kinds, lower, stop_words, out):
    """Fills the rows `documents` of `out` (int64, texts x 3): words (runs of `\\w`), stop words, distinct stop words.

    `kinds`: the classes of characters. `lower` (uint32): the lower case of each code point. `stop_words`: a table of the `hash_word` of
    each stop word in lower case.
    """
    seen = np.full(stop_words.size, -1, np.int64)
    for text in documents:
        at, end = offsets[text], offsets[text + 1]
        words, stops, different = 0, 0, 0
        while at < end:
            point, width = decode(data, at)
            at += width
            if not kinds[point] & WORD:
                continue
            value = np.uint64(0)
            while True:
                value = value * BASE + np.uint64(lower[point]) + ONE
                if at >= end:
                    break
                point, width = decode(data, at)
                if not kinds[point] & WORD:
                    break
                at += width
            words += 1
            slot = find(stop_words, stop_words.size - 1, value)
            if slot >= 0:
                stops += 1
                different += seen[slot] != text
                seen[slot] = text
        out[text, 0], out[text, 1], out[text, 2] = words, stops, different


# ---- The lists: JSON files `{language: [words]}`.


def languages(path: str | None = None) -> tuple[str, ...]:
    """Returns the codes of the languages that have a list, as the file writes them. Raises InputError."""
    return tuple(sorted(_lists(path or str(SHIPPED))))


def stop_words(language: str, path: str | None = None) -> frozenset[str]:
    """Returns the stop words of a language. Raises ConfigError if the language has no list, InputError if the file can't be read."""
    name = {canonical(known): known for known in languages(path)}.get(canonical(language))
    if name is None:
        where = "" if path is None else f"{path}: "
        known = ", ".join(languages(path))
        raise ConfigError(f"{where}there is no list of stop words for the language {language!r} (there is one for {known}).")
    return _lists(path or str(SHIPPED))[name]


@cache
def _lists(path: str) -> dict[str, frozenset[str]]:
    try:
        with open(path, encoding="utf-8") as file:
            lists = parse_json(file.read())
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror}).") from error
    except ValueError as error:
        raise InputError(f"{path}: is no JSON ({error}).") from error
    if not isinstance(lists, dict) or not all(
        isinstance(words, list) and all(isinstance(w, str) for w in words) for words in lists.values()
    ):
        raise InputError(f"{path}: is no JSON object of lists of words by language.")
    return {language: frozenset(words) for language, words in lists.items()}
