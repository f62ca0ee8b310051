"""Weak answers: whether a text has a word of a list."""

import numpy as np
import pyarrow as pa

from corpusmill.filters.bad_words import UNSEPARATED, read_words, usual_lower
from corpusmill.filters.bad_words_kernel import build_trie, count_words
from corpusmill.filters.language_codes import canonical
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.text.buffers import text_buffers
from corpusmill.pipeline.text.utf8 import CODE_POINTS, character_classes


def has_word(text: pa.Array, path: str) -> pa.Array:
    """Whether each text has a word of the list in the file `path`, found as the step `bad_words` finds them (bool).

    A list that is named after a language that does not part words (ja, th, zh) is found within words. Raises InputError.
    """
    words = {word.lower() for word in read_words(path)}
    if not words:
        raise InputError(f"{path}: there is no word in it.")
    name = path.replace("\\", "/").rpartition("/")[2]
    inside = canonical(name.partition(".")[0]) in map(canonical, UNSEPARATED)
    classes = np.zeros(CODE_POINTS, np.uint8) if inside else character_classes()
    data, offsets = text_buffers(usual_lower(text))
    counts = np.zeros(len(text), np.int64)
    count_words(data, offsets, np.arange(len(text)), build_trie(words), classes, True, counts)
    return pa.array(counts > 0)
