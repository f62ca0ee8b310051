# mypy: disallow-untyped-defs=False
"""C4's line rules (arXiv 1910.10683): drops lines that are not natural sentences; the remaining lines are the new text.

Every document is measured and rewritten as if no document-level rule existed, so that thresholds can be changed later.
Presets:

* `datatrove-0.10`, also called `c4-datatrove`: datatrove's C4QualityFilter with its defaults (at least 3 words a line, end
  marks . ? ! " ', 5 sentences);
* `fineweb`: the same, but lines need no end mark;
* `c4-paper`: the rules that made C4 (Raffel et al. 2020, JMLR 21/140; `clean_page` of tensorflow_datasets/text/c4_utils.py): at least
  5 words a line, counted after citations are removed, end marks . ? ! ", 3 sentences.

In all presets, "lorem ipsum" and { count against a document only in lines that pass the earlier line rules. datatrove's presets count
the sentences of the kept lines by spaCy's rule, as datatrove does. C4 used NLTK's punkt model; `c4-paper` counts end marks instead
(`text.sentences`), the only value that differs from the original: on 7,846 real pages its verdict was punkt's in 99.8 %, the
number of sentences in 85 %.
"""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field, model_validator

from corpusmill.filters.rules import Rule
from corpusmill.filters.step import DocumentBatch, Step, StepOutput
from corpusmill.pipeline.config import Config
from corpusmill.pipeline.kernel import kernel
from corpusmill.text.buffers import text_array, text_buffers
from corpusmill.text.lines import line_end, only_newlines
from corpusmill.text.sentences import count_sentences
from corpusmill.text.spacy_tokens import count_spacy_sentences, mark_again
from corpusmill.text.utf8 import DIGIT, NEWLINE, character_classes, count_characters, decode, find_byte, strip_end, strip_start
from corpusmill.text.words import count_split_words, has_longer_word


def _rules(sentences: int) -> tuple[Rule, ...]:
    return (
        Rule("lorem_ipsum", "c4_lorem_ipsum_lines", ">", 0),
        Rule("curly_bracket", "c4_curly_bracket_lines", ">", 0),
        Rule("too_few_sentences", "c4_sentences", "<", sentences),
    )


#: By preset, the options that differ from datatrove's defaults.
OPTIONS: dict[str, dict[str, Any]] = {
    "fineweb": {"filter_no_terminal_punct": False},
    "c4-paper": {"min_words_per_line": 5, "end_marks": '.?!"', "words_in_citations": False, "sentence_rule": "marks"},
}


class C4Config(Config):
    """C4: keep lines of natural sentences, and documents with enough of these lines."""

    preset: Literal["datatrove-0.10", "c4-datatrove", "fineweb", "c4-paper"] = Field(
        "datatrove-0.10", description="The pipeline whose rules decide, and whose options are the defaults."
    )
    filter_no_terminal_punct: bool = Field(
        True, description="Drop lines that do not end in an end mark, or that end in ... (FineWeb does not)."
    )
    end_marks: str = Field(".?!\"'", pattern=r"^[!-~]+$", description="The characters that end a line well (ASCII).")
    min_words_per_line: int = Field(3, ge=0, description="Drop lines with fewer words than this.")
    words_in_citations: bool = Field(True, description="Count the words of a line before citations are removed, as datatrove does.")
    sentence_rule: Literal["spacy", "marks"] = Field(
        "spacy", description="What counts sentences: spaCy's English rule, or end marks of any language (4 times as fast)."
    )
    max_word_length: int = Field(1000, ge=1, description="Drop lines with a longer word than this.")
    remove_citations: bool = Field(True, description="Remove [1], [edit] and [citation needed].")
    filter_javascript: bool = Field(True, description="Drop lines that mention javascript.")
    filter_policy: bool = Field(True, description="Drop lines about cookies, privacy policy and terms of use.")

    @model_validator(mode="before")
    @classmethod
    def _preset_options(cls, options: Any) -> Any:
        """Fills in the preset's options that the recipe does not set."""
        if isinstance(options, dict) and isinstance(options.get("preset"), str):
            return OPTIONS.get(options["preset"], {}) | options
        return options


class C4(Step):
    Config = C4Config
    PRESETS = {"datatrove-0.10": _rules(5), "c4-datatrove": _rules(5), "fineweb": _rules(5), "c4-paper": _rules(3)}
    MEANINGS = {
        "c4_lorem_ipsum_lines": '{count} lines with "lorem ipsum", a filler text',
        "c4_curly_bracket_lines": "{count} lines with a curly bracket, as in program code",
        "c4_sentences": "{count} sentences in the lines that are natural text",
    }
    config: C4Config
    rewrites = True

    @property
    def columns(self) -> dict[str, pa.DataType]:
        names = ("lines", "kept_lines", "long_word_lines", "unpunctuated_lines", "short_lines", "javascript_lines", "policy_lines",
                 "lorem_ipsum_lines", "curly_bracket_lines", "sentences")  # fmt: skip
        return {f"c4_{name}": pa.int64() for name in names}

    def measure(self, batch: DocumentBatch) -> StepOutput:
        data, offsets = batch.buffers()
        by_tokens = self.config.sentence_rule == "spacy"
        marks = batch.token_marks() if by_tokens else np.empty(0, np.uint8)
        classes = character_classes()
        end_marks = np.zeros(256, np.bool_)
        end_marks[list(self.config.end_marks.encode())] = True
        new_data, new_marks, new_offsets = np.empty_like(data), np.empty_like(marks), np.empty_like(offsets)
        counts = np.zeros((len(batch), COUNTS), np.int64)
        limits = (self.config.min_words_per_line, self.config.max_word_length)
        rewrite_texts(data, offsets, marks, classes, end_marks, self._flags(), *limits, new_data, new_offsets, new_marks, counts)
        lines = counts[:, KEPT]
        starts, ends = np.empty((2, lines.sum()), np.int64)
        line_spans(new_data, new_offsets, lines, starts, ends)
        if by_tokens:
            found = _sentences_by_tokens(new_data, starts, ends, new_marks)
        else:
            found = count_sentences(new_data, starts, ends)
        strip_texts(new_data, new_marks, new_offsets, classes)
        columns = dict(zip(self.columns, [*counts.T, _sums(found, lines)]))
        length = new_offsets[-1]
        return StepOutput(columns, text_array(new_data[:length], new_offsets), new_marks[:length] if by_tokens else None)

    def _flags(self) -> int:
        flags = (
            (self.config.filter_no_terminal_punct, PUNCTUATED),
            (self.config.remove_citations, NO_CITATIONS),
            (self.config.filter_javascript, NO_JAVASCRIPT),
            (self.config.filter_policy, NO_POLICY),
            (not self.config.words_in_citations, WORDS_WITHOUT_CITATIONS),
        )
        return sum(flag for wanted, flag in flags if wanted)


def _sentences_by_tokens(
    data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64], marks: npt.NDArray[np.uint8]
) -> npt.NDArray[np.int64]:
    """int64: the sentences of each line by spaCy's rule. Lines from which citations were removed get new marks of their tokens first."""
    filled = np.flatnonzero(starts < ends)
    changed = filled[marks[starts[filled]] == CHANGED]
    marks[starts[changed]] = 0
    mark_again(data, starts[changed], ends[changed], marks)
    return count_spacy_sentences(data, starts, ends, marks)


def _sums(values: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """int64: the sums of successive groups of `values`. Group i has `lengths[i]` values."""
    before, stops = np.concatenate([[0], np.cumsum(values)]), np.cumsum(lengths)
    sums: npt.NDArray[np.int64] = before[stops] - before[stops - lengths]
    return sums


# ---- The kernel: reads a text buffer, writes the buffer of the kept lines, counts the dropped lines by reason

#: The counts in a row of the output.
LINES, KEPT, LONG_WORD, UNPUNCTUATED, SHORT, JAVASCRIPT, POLICY, LOREM_IPSUM, CURLY_BRACKET = range(9)
COUNTS = 9

#: Options, combined as bits.
PUNCTUATED, NO_CITATIONS, NO_JAVASCRIPT, NO_POLICY, WORDS_WITHOUT_CITATIONS = 1, 2, 4, 8, 16

_DOT, _OPEN, _CLOSE, _CURLY = ord("."), np.uint8(ord("[")), ord("]"), ord("{")

#: Phrases to find in the lower-cased line: the phrase, the count it belongs to, and the position of its rarest letter.
_PHRASES = (
    ("javascript", JAVASCRIPT, 0), ("lorem ipsum", LOREM_IPSUM, 7), ("terms of use", POLICY, 7), ("privacy policy", POLICY, 3),
    ("cookie policy", POLICY, 3), ("uses cookies", POLICY, 8), ("use of cookies", POLICY, 10), ("use cookies", POLICY, 7),
)  # fmt: skip
_LETTERS = np.zeros((len(_PHRASES), 16), np.uint8)
for _number, (_phrase, _, _) in enumerate(_PHRASES):
    _LETTERS[_number, : len(_phrase)] = list(_phrase.encode())
_LENGTHS = np.array([len(phrase) for phrase, _, _ in _PHRASES])
_MEANINGS = np.array([1 << meaning for _, meaning, _ in _PHRASES])
_ANCHORS = np.array([anchor for _, _, anchor in _PHRASES])
#: First bytes of characters at which a phrase or a { may be: the rarest letters, the Kelvin sign (whose lower case is k), and {.
_KELVIN = 0xE2
_LOOK = np.zeros(256, np.bool_)
for _phrase, _, _anchor in _PHRASES:
    _LOOK[[ord(_phrase[_anchor]), ord(_phrase[_anchor].upper())]] = True
_LOOK[[_KELVIN, _CURLY]] = True

#: Marks the first byte of a line whose tokens are unknown, because citations were removed from it.
CHANGED = np.uint8(0xFF)
_CITATIONS = (b"edit]", b"citation needed]")
_EDIT, _NEEDED = (np.frombuffer(name, np.uint8) for name in _CITATIONS)


@kernel
def rewrite_texts(data, offsets, marks, classes, end_marks, options, min_words, max_word_length, new_data, new_offsets, new_marks, counts):
    """Writes the kept lines of each text, with a newline between them, and each text's counts. The caller still has to call `strip_texts`.

    Fills `new_data` (as long as the texts), `new_offsets` (int64, texts + 1) and `counts` (int64, texts x COUNTS). `marks` has a mark for
    each byte, or is empty. If it has marks, `new_marks` gets those of the new texts; a line from which citations were removed gets CHANGED,
    then zeros.

    `classes`: the `character_classes`. `end_marks` (bool, 256): the last bytes of lines that end well. `options`: the flags above.
    """
    place = np.int64(0)
    new_offsets[0] = 0
    for text in range(offsets.size - 1):
        at, end, row = offsets[text], offsets[text + 1], counts[text]
        newlines = only_newlines(data[at:end])
        while at < end:
            stop, after = line_end(data, at, end, newlines)
            start = strip_start(data, at, stop, classes)
            stop = strip_end(data, start, stop, classes)
            at = after
            begin = place + (row[KEPT] > 0)
            row[LINES] += 1
            if has_longer_word(data, start, stop, classes, max_word_length):
                row[LONG_WORD] += 1
                continue
            last = _copy_line(data, start, stop, classes, options & NO_CITATIONS, new_data, begin)
            if options & PUNCTUATED and not _ends_well(new_data, begin, last, end_marks):
                row[UNPUNCTUATED] += 1
                continue
            if options & WORDS_WITHOUT_CITATIONS:
                words = count_split_words(new_data, begin, last, classes, min_words)
            else:
                words = count_split_words(data, start, stop, classes, min_words)
            if words < min_words:
                row[SHORT] += 1
                continue
            if _content_speaks_against(_phrases_in(new_data, begin, last), options, row):
                continue
            if row[KEPT]:
                new_data[place] = NEWLINE
            if marks.size:
                _copy_marks(marks[start:stop], new_marks, place, begin, last)
            row[KEPT] += 1
            place = last
        new_offsets[text + 1] = place


@kernel
def _copy_marks(marks, new_marks, place, begin, end):
    """Copies the marks of one line; the newline between `place` and `begin` gets none."""
    new_marks[place:end] = 0
    if end - begin == marks.size:
        for at in range(marks.size):
            new_marks[begin + at] = marks[at]
    elif end > begin:
        new_marks[begin] = CHANGED


@kernel
def line_spans(data, offsets, lines, starts, ends):
    """Fills `starts` and `ends` (int64) with the positions of all lines, cut at newlines; text i has `lines[i]` of them."""
    span = 0
    for text in range(offsets.size - 1):
        at = offsets[text]
        for _ in range(lines[text]):
            starts[span] = at
            ends[span] = find_byte(data, at, offsets[text + 1], NEWLINE)
            at = ends[span] + 1
            span += 1


@kernel
def strip_texts(data, marks, offsets, classes):
    """Strips all texts in place (`str.strip`) and closes the gaps between them. `marks`, if there are any, move with their bytes."""
    place = first = offsets[0]
    for text in range(offsets.size - 1):
        last = strip_end(data, first, offsets[text + 1], classes)
        start = strip_start(data, first, last, classes)
        first = offsets[text + 1]
        if start > place:
            for at in range(start, last):
                data[place + at - start] = data[at]
                if marks.size:
                    marks[place + at - start] = marks[at]
        place += last - start
        offsets[text + 1] = place


@kernel
def _ends_well(data, start, end, end_marks):
    if end == start or not end_marks[data[end - 1]]:
        return False
    return end - start < 3 or data[end - 1] != _DOT or data[end - 2] != _DOT or data[end - 3] != _DOT


@kernel
def _content_speaks_against(found, options, row):
    """Whether a line is dropped for its content. Also counts the lines that count against their document, in datatrove's order."""
    row[LOREM_IPSUM] += (found >> LOREM_IPSUM) & 1
    if options & NO_JAVASCRIPT and (found >> JAVASCRIPT) & 1:
        row[JAVASCRIPT] += 1
        return True
    row[CURLY_BRACKET] += (found >> CURLY_BRACKET) & 1
    if options & NO_POLICY and (found >> POLICY) & 1:
        row[POLICY] += 1
        return True
    return False


@kernel
def _copy_line(data, start, end, classes, without_citations, new_data, place):
    """Copies a line without the matches of `\\[\\d*]|\\[edit]|\\[citation needed]`; returns the end of the copy."""
    at = start
    while at < end:
        stop = find_byte(data, at, end, _OPEN) if without_citations else end
        for source in range(at, stop):
            new_data[place + source - at] = data[source]
        place += stop - at
        if stop == end:
            return place
        at = _citation_end(data, stop, end, classes)
        if at == stop:
            new_data[place] = _OPEN
            place += 1
            at += 1
    return place


@kernel
def _citation_end(data, at, end, classes):
    """Returns the end of the citation that begins with the bracket at `at`; `at` if there is none."""
    inside = at + 1
    if inside + _EDIT.size <= end and _equal(data, inside, _EDIT):
        return inside + _EDIT.size
    if inside + _NEEDED.size <= end and _equal(data, inside, _NEEDED):
        return inside + _NEEDED.size
    while inside < end:
        if data[inside] == _CLOSE:
            return inside + 1
        point, width = decode(data, inside)
        if not classes[point] & DIGIT:
            return at
        inside += width
    return at


@kernel
def _equal(data, at, name):
    same = True
    for place in range(name.size):
        same &= data[at + place] == name[place]
    return same


@kernel
def _phrases_in(data, start, end):
    """Returns a bit for each count to which a phrase in the span belongs, and for CURLY_BRACKET."""
    found = 0
    for at in range(start, end):
        if _LOOK[data[at]]:
            if data[at] == _CURLY:
                found |= 1 << CURLY_BRACKET
            else:
                found |= _phrases_at(data, start, end, at)
    return found


@kernel
def _phrases_at(data, start, end, at):
    """Returns a bit for each count to which a phrase with its rarest letter at `at` belongs.

    No phrase has a second k, so only `at` can be a Kelvin sign.
    """
    letter, width = data[at] | 0x20, 1
    if data[at] == _KELVIN:
        if data[at + 1] != 0x84 or data[at + 2] != 0xAA:
            return 0
        letter, width = ord("k"), 3
    found = 0
    for phrase in range(_LENGTHS.size):
        anchor = _ANCHORS[phrase]
        rest = _LENGTHS[phrase] - anchor - 1
        if _LETTERS[phrase, anchor] != letter or at - anchor < start or at + width + rest > end:
            continue
        same = True
        for place in range(anchor):
            same &= _lower(data[at - anchor + place]) == _LETTERS[phrase, place]
        for place in range(rest):
            same &= _lower(data[at + width + place]) == _LETTERS[phrase, anchor + 1 + place]
        if same:
            found |= _MEANINGS[phrase]
    return found


@kernel(inline="always")
def _lower(byte):
    return byte | 0x20 if 0x41 <= byte <= 0x5A else byte


# ---- mC4's paragraphs (Xue et al. 2021, arXiv 2010.11934; datatrove's C4ParagraphFilter): a page needs some long lines.
#
# Lines are those of `text.split("\n")`; their length is in characters, spaces included.

MC4 = (Rule("too_few_paragraphs", "mc4_paragraphs", "<", 3),)


class Mc4ParagraphsConfig(Config):
    """mC4 (arXiv 2010.11934): pages with at least three lines of at least 200 characters."""

    preset: Literal["mc4"] = Field("mc4", description="The pipeline whose rules decide.")
    min_paragraph_length: int = Field(200, ge=1, description="The fewest characters of a line that counts as a paragraph.")


class Mc4Paragraphs(Step):
    Config = Mc4ParagraphsConfig
    PRESETS = {"mc4": MC4}
    config: Mc4ParagraphsConfig

    @property
    def columns(self) -> dict[str, pa.DataType]:
        return {"mc4_paragraphs": pa.int64()}

    @property
    def meanings(self) -> Mapping[str, str]:
        return {"mc4_paragraphs": f"{{count}} lines of at least {self.config.min_paragraph_length} characters"}

    def measure(self, batch: DocumentBatch) -> StepOutput:
        data, offsets = text_buffers(batch.text)
        paragraphs = np.zeros(len(batch), np.int64)
        count_long_lines(data, offsets, self.config.min_paragraph_length, paragraphs)
        return StepOutput({"mc4_paragraphs": paragraphs})


@kernel
def count_long_lines(data, offsets, min_length, counts):
    """Counts each text's lines of `text.split("\\n")` with at least `min_length` characters, into `counts` (int64, one a text)."""
    for text in range(offsets.size - 1):
        at, end = offsets[text], offsets[text + 1]
        while at < end:
            stop = find_byte(data, at, end, NEWLINE)
            counts[text] += stop - at >= min_length and count_characters(data, at, stop) >= min_length
            at = stop + 1
