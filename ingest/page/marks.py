# mypy: disallow-untyped-defs=False
"""The attributes of an element: hints of what it is, and the marks by which a page says who wrote it and when."""

import numpy as np

from corpusmill.ingest.page.calls import call_1, call_2
from corpusmill.ingest.page.lexbor import ATTRIBUTE_NAME, ATTRIBUTE_VALUE, FIRST_ATTRIBUTE, NEXT_ATTRIBUTE
from corpusmill.ingest.page.scan import (
    ARIA_HIDDEN,
    AUTHOR,
    BYLINE,
    CLASS,
    DATETIME,
    HIDDEN,
    ID,
    ITEMPROP,
    LINKED_DATA,
    NONE_WORD,
    REL,
    ROLE,
    STYLE,
    TYPE,
    find,
    has_token,
    hash_of,
    hides,
    words_of,
)
from corpusmill.ingest.page.tags import NAME
from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.buffers import array_at

#: Rows of `Page.marks`: the addresses of the first elements that are marked as an author's name, scripts of JSON-LD, and <time> with
#: a date for machines, MARKED of each at most; 0 where there are fewer.
AUTHORS, SCRIPTS, TIMES = range(3)
MARKS, MARKED = 3, 20
TAG_SCRIPT, TAG_TIME = NAME["script"], NAME["time"]
BYTES = np.empty(0, np.uint8)


@kernel
def attributes(element, api, words, judged, tag, marks, is_root, length):
    """(hints, hash of the classes) where the element is `judged`; notes it in `marks` where it is marked. `length`: an int64 to use."""
    hints, classes = 0, np.int64(0)
    attribute = call_1(api[FIRST_ATTRIBUTE], element)
    while attribute:
        data = call_2(api[ATTRIBUTE_NAME], attribute, length.ctypes.data)
        key = hash_of(array_at(np.uint64(data), length[0], BYTES))
        data = call_2(api[ATTRIBUTE_VALUE], attribute, length.ctypes.data)
        value = array_at(np.uint64(data), length[0] if data else 0, BYTES)
        if judged:
            if key == CLASS or key == ID or key == ROLE or key == ITEMPROP:
                found, whole = words_of(value, words)
                hints |= found
                if key == CLASS:
                    classes = whole
            elif key == HIDDEN or (key == ARIA_HIDDEN and len(value) == 4) or (key == STYLE and hides(value)):
                hints |= words[find(words, NONE_WORD), 1]
        if (key == CLASS or key == ITEMPROP or key == REL) and not is_root and marks[AUTHORS, 0] == 0:
            if has_token(value, AUTHOR, BYLINE if key == CLASS else AUTHOR):
                marks[AUTHORS, 0] = element
        elif tag == TAG_SCRIPT and key == TYPE and hash_of(value) == LINKED_DATA:
            _note(marks[SCRIPTS], element)
        elif tag == TAG_TIME and key == DATETIME:
            _note(marks[TIMES], element)
        attribute = call_1(api[NEXT_ATTRIBUTE], attribute)
    return hints, classes


@kernel
def _note(row, element):
    for place in range(len(row)):
        if row[place] == 0:
            row[place] = element
            return
