"""Finds the places in a text that a rule counts, so that a reader sees why a document failed.

A step measures the text again, and shows its places only if the value is the one in the report. Lines are judged by the step itself, each
line as a text of its own. Places are found otherwise (words, repeated phrases) only where a test compares them with the step's value.

Only steps of this program are loaded, and no model: a run that is looked at may come from a stranger.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.filters.bad_words import LDNOOBW, PACKAGE, UNSEPARATED, list_files, read_words
from corpusmill.filters.gopher import DUPLICATED, TOP
from corpusmill.filters.language_codes import canonical
from corpusmill.filters.pii import KINDS
from corpusmill.filters.pii_scan import TextColumn
from corpusmill.filters.statistics import datatrove_classes
from corpusmill.filters.step import DocumentBatch, NamedStep, build_steps
from corpusmill.filters.stop_words import StopWordsConfig, stop_words
from corpusmill.pipeline.cache import cache_folder
from corpusmill.pipeline.errors import CorpusmillError
from corpusmill.text.damage import MOJIBAKE
from corpusmill.text.utf8 import ALPHA, lowercase_table
from corpusmill.text.word_rules import WITHOUT_TEXT, sends_requests
from corpusmill.text.words import VISIBLE, base_powers, new_words, walk_marked_words, walk_words, word_rule_classes

LARGEST_LIST = 4 << 20  # bytes of a list of words
MOST_GAP = 100  # characters between two words
Span = tuple[int, int]  # characters of the text: start and end
Spans = list[Span]


@dataclass(frozen=True)
class Places:
    """What a column counts, in words ("lines that begin with a bullet"), and where: in rising order. They may overlap."""

    what: str
    spans: Spans


@dataclass
class MeasuredText:
    """A text as a step measured it. `values`: by column. `new_text`: the text after the step."""

    named: NamedStep
    batch: DocumentBatch
    text: str
    values: dict[str, Any]
    new_text: str

    @property
    def step(self) -> Any:
        return self.named.step

    def places(self, column: str) -> Places | None:
        """Returns the places that a column of the report counts; None if no place in the text stands for its value."""
        column = column.removesuffix(self.named.suffix)
        return FINDERS[column](self, column) if column in FINDERS else None

    @cached_property
    def words(self) -> "TextWords":
        return TextWords(self.batch, self.text)


def measure_again(settings: Mapping[str, Any], text: str, row: Mapping[str, Any]) -> Iterator[MeasuredText]:
    """Yields each step whose places can be shown, with the text as the earlier steps left it.

    `settings`: the section `filter` of a resolved recipe. `row`: the document's row of the report. The text after a step of other code
    (`python`, `datatrove`) is unknown, so the caller has to compare `values` with the row. A step with damaged options is left out.
    """
    given, steps, rule = settings.get("steps"), list[dict[str, Any]](), str(settings.get("word_rule") or "words")
    known = {name: pa.array([value]) for name, value in row.items() if isinstance(value, str | int | float)}
    documents = pa.table({"id": [str(row.get("id"))], "text": pa.array([text], pa.large_string())})
    for item in given if isinstance(given, list) else ():
        try:
            if item.keys() - KNOWN:
                continue
            if sends_requests(rule):
                continue
            named = build_steps([*steps, item])[-1]
            batch = DocumentBatch(documents, pa.array([text], pa.large_string()), rule, values=known)
            if hasattr(named.step.config, "lists") and not _has_lists(named.step.config, str(row.get(f"bad_words_list{named.suffix}"))):
                continue
            named.step.setup()
            output = named.step.measure(batch)
        except (CorpusmillError, ValueError, TypeError, LookupError, AttributeError, OSError):
            continue
        steps.append(item)
        values = {f"{name}{named.suffix}": pa.array(output.columns[name])[0].as_py() for name in named.step.columns}
        new_text = text if output.text is None else str(output.text[0].as_py())
        yield MeasuredText(named, batch, text, values, new_text)
        text = new_text


def _has_lists(config: Any, language: str) -> bool:
    """Whether the lists of words are on this machine and small: to look at a run sends no request, and opens no device or huge file."""
    lists = config.lists
    if lists == PACKAGE:
        return (cache_folder() / "word-lists" / LDNOOBW.sha256[:16] / ".whole").is_file()
    if lists is not None:
        files = [Path(lists), *(Path(lists).iterdir() if Path(lists).is_dir() else ())]
        return all(path.is_dir() or (path.is_file() and path.stat().st_size <= LARGEST_LIST) for path in files)
    if isinstance(config, StopWordsConfig):
        return True
    from huggingface_hub import cached_assets_path

    folder = cached_assets_path(library_name="datatrove", namespace="filters", subfolder="c4_badwords")
    return any(path.name.endswith(f"_{language}") for path in folder.iterdir())


# ---- Lines and paragraphs


def lines(text: str) -> Spans:
    """Returns the lines of `str.splitlines`."""
    spans, at = [], 0
    for line in text.splitlines(keepends=True):
        spans.append((at, at + len(line.splitlines()[0])))
        at += len(line)
    return spans


def pieces(separator: str, text: str, begin: int = 0, end: int | None = None) -> Spans:
    """Returns the parts of `re.split(separator, text[begin:end])`."""
    breaks = [match.span() for match in re.compile(separator).finditer(text, begin, len(text) if end is None else end)]
    starts, ends = [begin, *(end for _, end in breaks)], [*(start for start, _ in breaks), len(text) if end is None else end]
    return list(zip(starts, ends, strict=True))


def paragraphs(text: str) -> Spans:
    begin = len(text) - len(text.lstrip())
    return pieces("\n{2,}", text, begin, max(begin, len(text.rstrip())))


def repeated(text: str, spans: Iterable[Span]) -> Spans:
    """Returns the spans whose text an earlier one has."""
    seen: set[str] = set()
    return [(begin, end) for begin, end in spans if text[begin:end] in seen or seen.add(text[begin:end])]  # type: ignore[func-returns-value]


def copies(what: str, split: Callable[[str], Spans], measured: MeasuredText, column: str) -> Places:
    return Places(f"copies of an earlier {what}", repeated(measured.text, split(measured.text)))


def with_text(split: Callable[[str], Spans], text: str) -> Spans:
    """Returns the lines that are not blank."""
    return [(begin, end) for begin, end in split(text) if text[begin:end].strip()]


filled = partial(with_text, partial(pieces, "\n"))


def judged_lines(what: str, split: Callable[[str], Spans], measured: MeasuredText, column: str, of: str = "", wanted: int = 1) -> Places:
    """Returns the lines for which the column (or `of`) has the value `wanted`, each as a text of its own."""
    spans = split(measured.text)
    texts = pa.array([measured.text[begin:end] for begin, end in spans], pa.large_string())
    batch = DocumentBatch(pa.table({"id": [""] * len(spans)}), texts, measured.batch.word_rule)
    values = measured.step.measure(batch).columns[of or column]
    return Places(what, [span for span, value in zip(spans, values, strict=True) if value == wanted])


# ---- Words and phrases


@cache
def _classes(word_rule: str) -> npt.NDArray[np.uint8]:
    return word_rule_classes(word_rule, datatrove_classes())


class TextWords:
    """The words of a text by the run's word rule. `begins` and `ends`: their places in the text. `joined`: the text without spaces."""

    def __init__(self, batch: DocumentBatch, text: str):
        data, _, marks = batch.found_words()
        classes, words = _classes(batch.word_rule), new_words(len(data) + 1)
        if marks.size:
            count = walk_marked_words(data, 0, len(data), marks, classes, base_powers(), words)
        else:
            count = walk_words(data, 0, len(data), classes, base_powers(), words)
        points = np.frombuffer(data.tobytes().decode().encode("utf-32-le"), np.uint32)
        visible = np.flatnonzero(classes[points] & VISIBLE)
        self.count, self.kinds, cuts = count, words.kinds[:count], words.ends[: count + 1]
        self.joined, self.cuts = points[visible].tobytes().decode("utf-32-le"), cuts.tolist()
        self.begins, self.ends = visible[cuts[:-1]].tolist(), (visible[cuts[1:] - 1] + 1).tolist()
        if batch.word_rule.startswith(WITHOUT_TEXT):
            self.begins, self.ends = self._in_text(text)

    def _in_text(self, text: str) -> tuple[list[int], list[int]]:
        """Returns where the words stand in the text, from left to right. A word that its library has rewritten has no characters there."""
        begins, ends, begin, end = list[int](), list[int](), 0, 0
        for at in range(self.count):
            word = self.gram(at, 1)
            while end < len(text) and text[end].isspace():
                end += 1
            if not text.startswith(word, end) and text.startswith(word, begin):
                end = begin  # morphemes that share a character
            begin = text.find(word, end, end + len(word) + MOST_GAP)
            begin, end = (begin, begin + len(word)) if begin >= 0 else (end, end)
            begins.append(begin)
            ends.append(end)
        return begins, ends

    def gram(self, at: int, n: int) -> str:
        """Returns `n` words from number `at` on, without spaces."""
        return self.joined[self.cuts[at] : self.cuts[at + n]]

    def span(self, at: int, n: int = 1) -> Span:
        return self.begins[at], self.ends[at + n - 1]


def words_without_letter(measured: MeasuredText, column: str) -> Places:
    words = measured.words
    return Places("words without a letter", [words.span(int(at)) for at in np.flatnonzero(words.kinds & ALPHA == 0)])


def gopher_stop_words(measured: MeasuredText, column: str) -> Places:
    words, wanted = measured.words, set(measured.step.config.stop_words)
    return Places("the stop words that are there", [words.span(at) for at in range(words.count) if words.gram(at, 1) in wanted])


def most_frequent(n: int, measured: MeasuredText, column: str) -> Places:
    """Returns all places of the most frequent phrase; of equally frequent ones, the first in the text."""
    words, what = measured.words, f"the most frequent phrase of {n} words"
    grams = [tuple(words.gram(at + word, 1) for word in range(n)) for at in range(words.count - n + 1)]
    counts = Counter(grams)
    most = max(counts, key=counts.__getitem__, default=())
    return Places(what, [words.span(at, n) for at, gram in enumerate(grams) if gram == most])


def duplicated(n: int, measured: MeasuredText, column: str) -> Places:
    """Returns phrases that occurred before, from left to right; after one, the search goes on at its end."""
    words, seen, spans, at = measured.words, set[str](), Spans(), 0
    while at + n <= words.count:
        gram = words.gram(at, n)
        if gram in seen:
            spans.append(words.span(at, n))
            at += n
        else:
            seen.add(gram)
            at += 1
    return Places(f"phrases of {n} words that occurred before", spans)


def matches(what: str, pattern: str, measured: MeasuredText, column: str) -> Places:
    return Places(what, [match.span() for match in re.finditer(pattern, measured.text)])


# ---- Words of lists, personal data, damage


def _lower(text: str) -> str:
    """Returns the text in small letters, character by character."""
    return str(lowercase_table()[np.frombuffer(text.encode("utf-32-le"), np.uint32)].astype(np.uint32).tobytes(), "utf-32-le")


def listed_stop_words(measured: MeasuredText, _: str) -> Places:
    config = measured.step.config
    column = config.column
    code = config.language if column is None else str((measured.batch.column(column) or [""])[0])
    words = set(map(_lower, stop_words(measured.step.names[canonical(code)], config.lists)))
    found = [match.span() for match in re.finditer(r"\w+", _lower(measured.text)) if match[0] in words]
    return Places("the stop words that are there", found)


def bad_words(measured: MeasuredText, column: str) -> Places:
    config, name = measured.step.config, measured.values[f"bad_words_list{measured.named.suffix}"]
    words = sorted(read_words(list_files(config.lists, name)[name]), key=len, reverse=True)
    before, after = r"(?<!\w)", r"(?!\w)"
    if config.preset == "c4-paper":
        before, after = r"(?<=[^a-z\n])", r"(?=[^a-z\n])"
    elif canonical(name) in map(canonical, UNSEPARATED):
        before = after = ""
    pattern = re.compile(f"{before}(?=({'|'.join(f'{re.escape(word)}{after}' for word in words)}))")
    lowered = measured.text.lower()
    if len(lowered) != len(measured.text):  # a dotted capital I becomes two characters
        lowered = _lower(measured.text)
    return Places(f"words of the list {name}", [match.span(1) for match in pattern.finditer(lowered)])


def personal_data(measured: MeasuredText, column: str) -> Places:
    texts = TextColumn(measured.batch.text)
    (kind,) = [place for place, kind in enumerate(measured.step.kinds) if kind.column == column]
    characters = np.append(0, np.cumsum(texts.data & 0xC0 != 0x80))  # before each byte
    found = measured.step.find(texts)[kind] - texts.offsets[0]
    spans = [(int(characters[begin]), int(characters[end])) for begin, end in found.tolist()]
    return Places(f"finds of {measured.step.kinds[kind].description}", spans)


def mojibake(measured: MeasuredText, column: str) -> Places:
    return Places("characters that a wrong encoding made", [match.span() for match in MOJIBAKE.finditer(measured.text)])


def characters(text: str) -> Spans:
    return [match.span() for match in re.finditer(r"[^ -~]", text)]


# ---- The finders by column

Finder = Callable[[MeasuredText, str], Places]
_COPIED_LINES, _BULLET = partial(copies, "line", partial(pieces, "\n+")), "lines that begin with a bullet"
_COPIED_PARAGRAPHS, _ELLIPSIS = partial(copies, "paragraph", paragraphs), "lines that end with an ellipsis"
_UNENDED = "lines without an end mark"

FINDERS: dict[str, Finder] = {
    "gopher_hash_ratio": partial(matches, "# signs", "#"),
    "gopher_ellipsis_ratio": partial(matches, "ellipses", r"\.\.\.|…"),
    "gopher_alpha_word_ratio": words_without_letter,
    "gopher_stop_words": gopher_stop_words,
    "gopher_bullet_line_ratio": partial(judged_lines, _BULLET, lines),
    "gopher_ellipsis_line_ratio": partial(judged_lines, _ELLIPSIS, lines),
    **dict.fromkeys(("dup_para_frac", "dup_para_char_frac"), _COPIED_PARAGRAPHS),
    **dict.fromkeys(("dup_line_frac", "dup_line_char_frac"), _COPIED_LINES),
    **{f"top_{n}_gram_char_frac": partial(most_frequent, n) for n in TOP},
    **{f"dup_{n}_gram_char_frac": partial(duplicated, n) for n in DUPLICATED},
    "line_punct_ratio": partial(judged_lines, _UNENDED, filled, wanted=0),
    "short_line_ratio": partial(judged_lines, "short lines", filled),
    "char_dup_ratio": partial(copies, "line", filled),
    "c4_lorem_ipsum_lines": partial(judged_lines, "lines with lorem ipsum", lines),
    "c4_curly_bracket_lines": partial(judged_lines, "lines with a curly bracket", lines),
    "c4_sentences": partial(judged_lines, "lines whose sentences do not count", partial(with_text, lines), of="c4_kept_lines", wanted=0),
    "mc4_paragraphs": partial(judged_lines, "the lines that are long enough", filled),
    **{f"{step}_bullet_line_ratio": partial(judged_lines, _BULLET, filled) for step in ("dclm", "nemo")},
    **{f"{step}_ellipsis_line_ratio": partial(judged_lines, _ELLIPSIS, filled) for step in ("dclm", "nemo")},
    "nemo_unended_line_ratio": partial(judged_lines, _UNENDED, filled),
    **dict.fromkeys(("different_stop_words", "stop_word_share"), listed_stop_words),
    **dict.fromkeys(("bad_words_draw", "bad_words_density"), bad_words),
    **{f"{kind}_char_ratio": partial(judged_lines, "damaged characters", characters) for kind in ("replacement", "control", "private_use")},
    "mojibake_char_ratio": mojibake,
    **{kind.column: personal_data for kind in KINDS},
}
#: The steps that are measured again: those with finders, and those that write a new text.
KNOWN = {
    "gopher_quality", "gopher_repetition", "fineweb_quality", "c4", "mc4_paragraphs", "dclm", "nemo", "refinedweb_lines", "stop_words",
    "bad_words", "encoding_damage", "pii",
}  # fmt: skip
