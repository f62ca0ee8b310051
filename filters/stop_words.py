"""Stop words of the document's own language: a text without any is no prose.

Words are runs of `\\w` in lower case (character by character), so entries of the lists that hold other characters ("don't")
never count. Languages whose words are not set apart by spaces have no values.
"""

from collections.abc import Mapping
from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from corpusmill.filters.language_codes import canonical
from corpusmill.filters.meanings import plain
from corpusmill.filters.rules import Rule
from corpusmill.filters.statistics import ratio
from corpusmill.filters.step import Batch, Measured, Step
from corpusmill.filters.stop_word_lists import languages, stop_words
from corpusmill.pipeline.config import Config
from corpusmill.pipeline.errors import ConfigError, InputError
from corpusmill.pipeline.text.buffers import text_buffers
from corpusmill.pipeline.text.utf8 import SPACE, WORD, character_classes, lowercase_table

#: Languages without spaces between words, as ISO 639-3.
UNSPACED = frozenset({"zho", "jpn", "tha", "lao", "khm", "mya", "bod"})


class StopWordsConfig(Config):
    """Stop words: how many of them a text has, by lists for 60 languages (spaCy's) or a file."""

    language: str = Field("en", description="Whose stop words, where `column` is not given.")
    column: str | None = Field(
        None, description="Column with each document's language: a step's before, or the documents' own, as `language`."
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
        # null or NaN where there is no list for the language
        return {"stop_words": pa.int64(), "different_stop_words": pa.int64(), "stop_word_share": pa.float64()}

    @property
    def meanings(self) -> Mapping[str, str]:
        language = f"the language {self.config.language}" if self.config.column is None else "the document's language"
        words = plain(f"stop words of {language} (its most frequent small words)")
        return {"different_stop_words": f"{{count}} different {words}", "stop_word_share": f"{{share}} of the words are {words}"}

    @property
    def rules(self) -> tuple[Rule, ...]:
        few, low = self.config.min_different, self.config.min_share
        rules = [] if few is None else [Rule("too_few_stop_words", "different_stop_words", "<", few)]
        return (*rules, *(() if low is None else (Rule("low_stop_word_share", "stop_word_share", "<", low),)))

    def model_files(self) -> list[str]:
        return [self.config.lists] if self.config.lists else []

    def setup(self) -> None:
        known = languages(self.config.lists)
        self.names = {canonical(name): name for name in known if canonical(name) not in UNSPACED}
        self.tables: dict[str, npt.NDArray[np.uint64]] = {}
        if self.config.column is None and canonical(self.config.language) not in self.names:
            raise ConfigError(f"there are no stop words for the language {self.config.language!r} (there are for {', '.join(known)}).")

    def measure(self, batch: Batch) -> Measured:
        from corpusmill.filters.stop_words_kernel import count_stop_words

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
        return Measured(columns | {"stop_word_share": share})

    def _languages(self, batch: Batch) -> list[str]:
        """The language of each document as ISO 639-3."""
        name = self.config.column
        if name is None:
            return [canonical(self.config.language)] * len(batch)
        column = batch.column(name)
        if column is None:
            raise InputError(f"the documents have no column {name}, which `stop_words` takes the language from.")
        return [canonical(str(code or "")) for code in column.to_pylist()]

    def _table(self, code: str) -> npt.NDArray[np.uint64]:
        from corpusmill.pipeline.text.hashing import hash_set
        from corpusmill.pipeline.text.words import hash_word

        if code not in self.tables:
            lower = lowercase_table()
            words = {"".join(chr(lower[ord(c)]) for c in word) for word in stop_words(self.names[code], self.config.lists)}
            self.tables[code] = hash_set(hash_word(word) for word in sorted(words))
        return self.tables[code]
