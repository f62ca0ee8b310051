# mypy: disallow-untyped-defs=False
"""Walks over the words of a document: hashes, lengths and kinds of all words in one pass, without making strings.

A word rule is a table with the classes of each character. A word is a run of characters of the class WORD, or one
character that is VISIBLE and not WORD. Characters that are not VISIBLE separate words and belong to none.

* `words`: WORD is `re`'s `\\w`, so words are what `re.findall(r"\\w+|[^\\w\\s]", text)` finds;
* `whitespace`: WORD is everything but space, so words are those of `str.split()`;
* `characters`: as `words`, but a character of a script that is written without spaces is a word of its own, and the
  combining marks of those scripts are not counted.

The words of other rules (`text.word_rules`) are found outside of this walk, by `find_words`.
"""

from collections import namedtuple
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.pipeline.kernel import kernel
from corpusmill.text.buffers import read_only, text_array, text_buffers
from corpusmill.text.hashing import BASE, ONE, hash_span, power
from corpusmill.text.utf8 import CODE_POINTS, LINE_BREAK, PUNCTUATION, SPACE, SURROGATES, WORD, decode
from corpusmill.text.word_rules import WITHOUT_TEXT, WORD_RULES, of_finder

#: The class of characters that belong to words. In the tables of word rules it takes the place of SPACE, whose bit it uses.
VISIBLE = SPACE
#: The number of powers of BASE in the lookup table; those for longer words and n-grams are computed.
POWERS = 1024

#: Scratch for the words of one document. `hashes` uint64 and `kinds` uint8: one item a word. `ends` int64: one item more;
#: `ends[w]` is the number of characters before word w, spaces not counted. `prefixes` uint64: one item a character and one
#: more; `prefixes[c]` is the hash of the first c characters, spaces left out, as one word.
#: A word's kind has the classes of any of its characters, but PUNCTUATION only where all of them have it.
Words = namedtuple("Words", "hashes kinds ends prefixes")

#: The scripts that are written without spaces between words (Unicode's Script_Extensions).
UNSPACED = "".join(rf"\p{{scx={script}}}" for script in ("Han", "Hira", "Kana", "Bopo", "Yiii", "Thai", "Laoo", "Tibt", "Mymr", "Khmr"))


class FoundWords(NamedTuple):
    """The words of n texts, for `walk_marked_words`: those of text i are in `data[offsets[i]:offsets[i + 1]]`, and one begins at each byte
    with a mark. No marks at all: words follow from a table of classes (`walk_words`)."""

    data: npt.NDArray[np.uint8]  # read-only, valid UTF-8: the texts themselves (`spacy`, `jieba`), or their words without what is between
    offsets: npt.NDArray[np.int64]  # read-only, n + 1
    marks: npt.NDArray[np.uint8]  # as long as `data`, or empty


def find_words(rule: str, data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> FoundWords:
    """Returns the words of the texts `data[offsets[i]:offsets[i + 1]]` (valid UTF-8) by a rule; the texts without marks for one of
    WORD_RULES."""
    data, offsets = read_only(data), read_only(offsets)
    if rule in WORD_RULES:
        return FoundWords(data, offsets, np.zeros(0, np.uint8))
    found: FoundWords = of_finder(rule, "find_words")(data, offsets, rule.partition(":")[2])
    return found


def frequent_words(rule: str, texts: list[str], most: int) -> list[tuple[str, int]]:
    """Returns the words with a letter that the texts have most often, with their counts; ties by the word. For rules that are tables of
    characters, words are runs of letters, or single letters (`characters`)."""
    if rule in WORD_RULES:
        import regex

        letters = rf"[{UNSPACED}]|[[\p{{L}}\p{{M}}]--[{UNSPACED}]]+" if rule == "characters" else r"[\p{L}\p{M}]+"
        find = regex.compile(letters, regex.V1).findall
        words = pa.array([word for text in texts for word in find(text)], pa.string())
    else:
        found = find_words(rule, *text_buffers(pa.array(texts, pa.large_string())))
        begins = np.append(found.marks.nonzero()[0], len(found.data))
        words = pc.utf8_trim_whitespace(text_array(found.data, begins))
    counted = pc.value_counts(words.filter(pc.match_substring_regex(words, r"\p{L}"))).to_pylist()
    return sorted(((each["values"], each["counts"]) for each in counted), key=lambda pair: (-pair[1], pair[0]))[:most]


def word_rule_classes(rule: str, classes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Returns the table of a word rule for the walks: `classes` with the rule's WORD and VISIBLE; 0 for invisible characters.

    Where words come without the text between them, all of their characters are visible, spaces too.
    """
    table = classes & ~np.uint8(SPACE | LINE_BREAK) | np.uint8(VISIBLE)
    if rule.startswith(WITHOUT_TEXT):
        return table.astype(np.uint8)
    if rule == "whitespace":
        table |= np.uint8(WORD)
    if rule == "characters":
        table[code_points(f"[{UNSPACED}]")] &= ~np.uint8(WORD)
        table[code_points(rf"[[{UNSPACED}]&&\p{{M}}]")] = 0
    table[classes & SPACE != 0] = 0
    return table.astype(np.uint8)


def code_points(pattern: str) -> list[int]:
    """Returns the code points that match a pattern of one character, in the syntax of the library regex."""
    import regex  # `re` knows no scripts

    everything = "".join(chr(point) for point in range(CODE_POINTS) if point not in SURROGATES)
    return [ord(match.group()) for match in regex.finditer(pattern, everything, regex.V1)]


def base_powers() -> npt.NDArray[np.uint64]:
    """Returns uint64 of length POWERS: BASE to the power of each index."""
    return np.array([power(exponent) for exponent in range(POWERS)], np.uint64)


def hash_word(word: str) -> np.uint64:
    """Returns the hash that `walk_words` gives a word."""
    value = 0
    for character in word:
        value = (value * int(BASE) + ord(character) + 1) & 0xFFFFFFFFFFFFFFFF
    return np.uint64(value)


@kernel
def new_words(limit):
    """Returns scratch for documents of up to `limit` bytes (a text has at most as many words, and characters, as bytes)."""
    return Words(np.empty(limit, np.uint64), np.empty(limit, np.uint8), np.empty(limit + 1, np.int64), np.empty(limit + 1, np.uint64))


@kernel
def base_power(powers, exponent):
    return powers[exponent] if exponent < powers.size else power(exponent)


@kernel
def hash_characters(prefixes, powers, first, end):
    """Returns the hash of the characters `first` to `end - 1` (spaces not counted) as one word."""
    return prefixes[end] - prefixes[first] * base_power(powers, end - first)


@kernel
def walk_words(data, start, end, classes, powers, words):
    """Fills `words` with the words of `data[start:end]` and returns how many there are.

    `classes` is the rule's table (`word_rule_classes`). The processor can't predict where words end, so the loop does not
    branch on that: each character overwrites the end and the kind of its word, so those of the last character stay.
    """
    ends, prefixes = words.ends, words.prefixes
    ends[0], prefixes[0] = 0, np.uint64(0)
    at = skip_invisible(data, start, end, classes)
    word, characters, joined = np.int64(-1), np.int64(0), np.uint64(0)
    before, any_kind = np.int64(0), np.int64(0)
    while at < end:
        point, width = decode(data, at)
        at += width
        kind = np.int64(classes[point]) ^ PUNCTUATION  # inverted: or-ing then finds a character without PUNCTUATION
        visible = (kind & VISIBLE) // VISIBLE
        begins = visible & ~(kind & before & WORD)
        before = kind
        word += begins
        kind &= -visible
        any_kind = kind if begins else any_kind | kind
        extended = joined * BASE + (np.uint64(point) + ONE)
        joined = extended if visible else joined
        characters += visible
        prefixes[characters] = joined
        ends[word + 1] = characters << 8 | any_kind
    unpack_words(words, word + 1, powers)
    return word + 1


@kernel
def count_words(data, start, end, classes):
    """Returns how many words `walk_words` finds."""
    words, before, at = np.int64(0), np.int64(0), start
    while at < end:
        point, width = decode(data, at)
        kind = np.int64(classes[point])
        words += (kind & VISIBLE) // VISIBLE & ~(kind & before & WORD)
        before = kind
        at += width
    return words


@kernel
def skip_invisible(data, at, end, classes):
    while at < end:
        point, width = decode(data, at)
        if classes[point] & VISIBLE:
            break
        at += width
    return at


@kernel
def unpack_words(words, count, powers):
    """Separates ends and kinds, which the walk writes into one integer, and hashes each word."""
    for word in range(count):
        end = words.ends[word + 1] >> 8
        words.kinds[word] = (words.ends[word + 1] & 0xFF) ^ (PUNCTUATION | VISIBLE)
        words.ends[word + 1] = end
        words.hashes[word] = hash_characters(words.prefixes, powers, words.ends[word], end)


# ----------------------------------------------------------------------------------------------------
# The words of `str.split()` inside kernels: how many there are, and how long the longest is.


@kernel
def count_split_words(data, start, end, classes, limit):
    """Returns `len(text.split())`, or `limit` as soon as there are as many words (0: no limit)."""
    words, inside, at = 0, False, start
    while at < end:
        point, width = decode(data, at)
        if classes[point] & SPACE:
            inside = False
        elif not inside:
            inside = True
            words += 1
            if words == limit:
                return words
        at += width
    return words


@kernel
def has_longer_word(data, start, end, classes, limit):
    """Whether a word of `text.split()` has more than `limit` characters."""
    if end - start <= limit:  # a character has at least one byte
        return False
    length, at = 0, start
    while at < end:
        point, width = decode(data, at)
        length = 0 if classes[point] & SPACE else length + 1
        if length > limit:
            return True
        at += width
    return False


# ----------------------------------------------------------------------------------------------------
# Words of `str.split()` as spans of the text, one by one, for kernels that look into words.


@kernel
def walk_chunk(data, at, end, kinds):
    """Returns `(end, characters, kinds)` of the word that begins at `at`, which must not be a space.

    The kinds of the word's characters are or-ed. The table `kinds` is uint8 of length 0x110000, in which spaces have SPACE;
    the caller defines the other bits.
    """
    characters, found = 0, kinds[0] & 0
    while at < end:
        byte = data[at]
        if byte < 0x80:
            kind, width = kinds[byte], 1
        else:
            point, width = decode(data, at)
            kind = kinds[point]
        if kind & SPACE:
            break
        characters += 1
        found |= kind
        at += width
    return at, characters, found


@kernel
def skip_space(data, at, end, kinds):
    """Returns the start of the next word, or `end`."""
    while at < end:
        point, width = decode(data, at)
        if not kinds[point] & SPACE:
            return at
        at += width
    return end


@kernel
def hash_chunks(data, start, end, kinds, hashes, ends, seen):
    """Fills in three arrays for the words of `data[start:end]`, and returns the number of words: `hashes` (uint64), `ends`
    (int64, one item more: the characters before each word, spaces not counted) and `seen` (uint8: the or-ed kinds)."""
    count = 0
    ends[0] = 0
    at = skip_space(data, start, end, kinds)
    while at < end:
        stop, characters, seen[count] = walk_chunk(data, at, end, kinds)
        hashes[count] = hash_span(data, at, stop)
        ends[count + 1] = ends[count] + characters
        count += 1
        at = skip_space(data, stop, end, kinds)
    return count


# ----------------------------------------------------------------------------------------------------
# The walk over words whose beginnings are marked (`find_words`). `walk_words` finds them by a table of classes instead.


@kernel
def walk_marked_words(data, start, end, marks, classes, powers, words):
    """Fills `words` with the words of `data[start:end]`, and returns their number. A word begins at a byte with a mark, or
    after a space, and ends where the next one begins or at a space.

    `classes` is the table of a word rule, of which only VISIBLE and the kinds of characters are used.
    """
    ends, prefixes = words.ends, words.prefixes
    ends[0], prefixes[0] = 0, np.uint64(0)
    at = skip_invisible(data, start, end, classes)
    word, characters, joined = np.int64(-1), np.int64(0), np.uint64(0)
    before, any_kind = np.int64(0), np.int64(0)
    while at < end:
        point, width = decode(data, at)
        kind = np.int64(classes[point]) ^ PUNCTUATION
        visible = (kind & VISIBLE) // VISIBLE
        begins = visible & (1 - before | (marks[at] != 0))
        before = visible
        at += width
        word += begins
        kind &= -visible
        any_kind = kind if begins else any_kind | kind
        extended = joined * BASE + (np.uint64(point) + ONE)
        joined = extended if visible else joined
        characters += visible
        prefixes[characters] = joined
        ends[word + 1] = characters << 8 | any_kind
    unpack_words(words, word + 1, powers)
    return word + 1
