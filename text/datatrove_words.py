"""The words of datatrove for any of its languages: its own tokenizers (`datatrove.utils.word_tokenizers`), called for each text.

They use spaCy, jieba, Sudachi, pythainlp, Kiwi and others. Words can overlap (Kiwi's morphemes), have spaces within, and be rewritten; each
counts as the library gives it. Two differences bound the time and keep results equal in every process:

* A text of more than LONGEST characters is cut before its words are looked for: at the last line break, else at the last white space, else
  after so many characters. Runs without white space are cut after MOST_RUN characters, and runs of symbols after MOST_SYMBOLS. Some
  libraries need quadratic time. Japanese texts are cut as datatrove cuts them.
* spaCy accepts the word IS_ALPHA once in a process, and datatrove takes it out of later texts; here it is the first text.

Where a library fails on a text, datatrove stops. Here the text has the words of `str.split`.

For Japanese datatrove calls spaCy, which calls Sudachi, and most of the time goes into attributes of words that nobody reads. Here Sudachi
is called alone; the words are the same.
"""

import logging
import re
from collections.abc import Iterator
from functools import cache, partial
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.names import instead_of
from corpusmill.text.buffers import read_only, text_buffers
from corpusmill.text.words import FoundWords

LONGEST, MOST_RUN, MOST_SYMBOLS = 1 << 17, 1 << 14, 1 << 8
_RUN = re.compile(rf"\S{{{MOST_RUN}}}(?=\S)|(?:(?![-=_])[^\w\s]){{{MOST_SYMBOLS}}}(?=\S)")  # spaCy takes a ruler of these for a word
#: What Sudachi has to read of each word of its dictionary to join numbers as it does with everything read.
_READ = {"pos", "normalized_form"}
#: Bytes of UTF-8 after which datatrove cuts Japanese texts, since Sudachi takes no longer ones.
_JAPANESE_PART = 40_000
_INSTALL = "pip install 'corpusmill[languages]'"


def libraries(language: str) -> tuple[str, ...]:
    """Returns nothing, since datatrove knows what each language needs. Raises InputError for an unknown language and a missing library."""
    from datatrove.utils.word_tokenizers import load_tokenizer_assignments, load_word_tokenizer

    known = load_tokenizer_assignments()
    if language not in known:
        raise InputError(f"word_rule: datatrove has no words for the language {language!r}{instead_of(language, known)}.")
    try:
        load_word_tokenizer(language)
    except ImportError as error:
        raise InputError(f"word_rule: datatrove:{language}: {str(error).rstrip('.')}; most of them come with {_INSTALL}.") from None
    if is_japanese(language) and find_spec("sudachipy") is None:
        raise InputError(f"word_rule: datatrove:{language}: sudachipy is not installed here; {_INSTALL}.")
    return ()


def fetches(language: str) -> bool:
    """Whether a tokenizer fetches its model at its first use."""
    from datatrove.utils.word_tokenizers import StanzaTokenizer, TibetanTokenizer, load_word_tokenizer

    libraries(language)
    return isinstance(load_word_tokenizer(language), StanzaTokenizer | TibetanTokenizer)


def is_japanese(language: str) -> bool:
    """Whether datatrove takes its Japanese tokenizer for a language that it knows."""
    from datatrove.utils.word_tokenizers import load_tokenizer_assignments

    return load_tokenizer_assignments()[language] is load_tokenizer_assignments()["jpn"]


class Japanese:
    """datatrove's words for Japanese (`datatrove.utils.japanese_tokenizer`): Sudachi's shortest units without white space around them."""

    def __init__(self) -> None:
        from sudachipy import Dictionary, SplitMode

        self._tokenize = Dictionary().tokenizer(SplitMode.A, fields=_READ).tokenize

    def word_tokenize(self, part: str) -> list[str]:
        return [word for morpheme in self._tokenize(part) if (word := morpheme.surface().strip())]


@cache
def _tokenizer(language: str) -> Any:
    """Returns datatrove's tokenizer, loaded. Raises InputError in one sentence."""
    from datatrove.utils.word_tokenizers import load_word_tokenizer

    libraries(language)
    if is_japanese(language):
        return Japanese()
    tokenizer = load_word_tokenizer(language)
    if tokenizer.language == "zh":
        import jieba

        jieba.setLogLevel(logging.WARNING)  # it says on stderr what it reads
    try:
        tokenizer.word_tokenize("IS_ALPHA")
    except Exception as error:  # whatever a library raises without its model
        raise InputError(f"word_rule: datatrove:{language}: its tokenizer can't be loaded ({error}); {_INSTALL}.") from error
    return tokenizer


def find_words(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], language: str) -> FoundWords:
    """Returns the words of the rule `datatrove:LANGUAGE` (`text.words.find_words`). Raises InputError where the library is missing."""
    from datatrove.utils.word_tokenizers import chunk_text_on_bytes

    tokenizer = _tokenizer(language)
    cut = partial(chunk_text_on_bytes, max_chunk_size=_JAPANESE_PART) if is_japanese(language) else parts
    words, counts = list[str](), [0]
    for start, end in pairwise(offsets.tolist()):
        for part in cut(data[start:end].tobytes().decode()):
            try:
                words += tokenizer.word_tokenize(part)
            except Exception:  # noqa: BLE001 - see above
                words += part.split()
        counts.append(len(words))
    found, begins = text_buffers(pa.array(words, pa.large_string()))
    marks = np.zeros(len(found), np.uint8)
    marks[begins[:-1]] = 1
    return FoundWords(found, read_only(begins[counts]), marks)


def parts(text: str) -> Iterator[str]:
    """Yields the parts of a text in which words are looked for: the text itself, unless it is long or has a long run."""
    text = _RUN.sub(r"\g<0>\n", text) if len(text) > MOST_SYMBOLS else text
    while len(text) > LONGEST:
        end = max(text.rfind("\n", 0, LONGEST), 0) or max(text.rfind(" ", 0, LONGEST), 0) or LONGEST
        yield text[:end]
        text = text[end:]
    yield text
