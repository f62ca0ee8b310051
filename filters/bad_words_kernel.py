# mypy: disallow-untyped-defs=False
"""The search for the words of a list in texts: a trie, walked from every place at which a word can begin."""

from collections import namedtuple
from collections.abc import Collection

import numpy as np

from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.utf8 import CODE_POINTS, WORD, decode, lowercase_table

#: A list of words. `symbols` uint16 of length 0x110000: the number of a character's lower case in this list, 0 where no word
#: has it; `children` int32 (nodes, symbols): the next node, 0 where there is none; `ends` bool: nodes at which a word ends.
Trie = namedtuple("Trie", "symbols children ends")


def build_trie(words: Collection[str]) -> Trie:
    """The trie of a list. Words are taken as they are: one with a capital is never found in lower-cased text."""
    lower = lowercase_table()
    characters = sorted({character for word in words for character in word})
    numbers = {character: number for number, character in enumerate(characters, 1)}
    symbols = np.zeros(CODE_POINTS, np.uint16)
    for character, number in numbers.items():
        if lower[ord(character)] == ord(character):
            symbols[ord(character)] = number
    symbols = symbols[lower]
    children: list[dict[int, int]] = [{}]
    ends = [False]
    for word in sorted(words):
        node = 0
        for character in word:
            node = children[node].setdefault(numbers[character], len(children))
            if node == len(children):
                children.append({})
                ends.append(False)
        ends[node] = True
    table = np.zeros((len(children), len(characters) + 1), np.int32)
    for node, next_nodes in enumerate(children):
        for number, child in next_nodes.items():
            table[node, number] = child
    return Trie(symbols, table, np.array(ends))


@kernel
def count_words(data, offsets, places, trie, classes, edges, counts):
    """Sets `counts[i]` for each text i of `places` to the number of characters at which a word of the list begins.

    Only words count where neither the character before nor the one after is of class WORD; `edges` says whether they may stand
    at the start and the end of the text. The case of texts is ignored (`str.lower` of each character).
    """
    symbols, children, ends = trie.symbols, trie.children, trie.ends  # once: each use of a tuple of arrays counts references
    for text in places:
        at, end = offsets[text], offsets[text + 1]
        total, inside = 0, not edges
        while at < end:
            point, width = decode(data, at)
            if not inside:
                node = children[0, symbols[point]]
                if node:
                    total += _begins_word(data, at + width, end, symbols, children, ends, node, classes, edges)
            inside = classes[point] & WORD != 0
            at += width
        counts[text] = total


@kernel(inline="always")
def _begins_word(data, at, end, symbols, children, ends, node, classes, edges):
    """Whether a word ends somewhere after the characters that led to `node`."""
    found = False
    while node:
        if at >= end:
            found |= edges and ends[node]
            break
        point, width = decode(data, at)
        if ends[node] and not classes[point] & WORD:
            found = True
            break
        node = children[node, symbols[point]]
        at += width
    return found
