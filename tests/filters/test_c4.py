"""Compares C4's lines and mC4's paragraphs with datatrove's and C4's own code."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import regex
from datatrove.data import Document
from datatrove.pipeline.filters import c4_filters as reference
from datatrove.pipeline.filters.base_filter import get_filter_result
from datatrove.pipeline.filters.c4_filters import C4ParagraphFilter
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.filters.c4 import C4, MC4, C4Config
from corpusmill.filters.step import DocumentBatch
from corpusmill.text.buffers import text_buffers
from corpusmill.text.spacy_tokens import mark_tokens

# ---- Texts, counts and reasons against datatrove's C4QualityFilter, with spaCy's sentences and corpusmill's; C4's own order of rules.

SENTENCE_END = regex.compile(r"[.!?…]+[\"'”’»)\]]*(?=\s|$)|[\p{Sentence_Terminal}--\p{ASCII}]+[」』”’）]*", regex.V1)


def count_sentences(line: str) -> int:
    """Counts by the rule of `text.sentences`, slowly."""
    count, last = 0, 0
    for end in SENTENCE_END.finditer(line):
        count, last = count + 1, end.end()
    return count + bool(line[last:].strip())


EXTRA = [
    "Lorem ipsum dolor sit amet.\nWe use cookies here now.\nYou need JavaScript to see it.\nThis is { a line.\nOk.\nNo mark here at all\n",
    "See the terms of use, which mention { braces.\nThe javascript { here is lorem ipsum too.\n",
    "a" * 1001 + " is too long a word.\nThis [1] stays [edit] here [citation needed].\nNot this one...\n[12] [3] four.\n",
    "é" * 1000 + " is just short enough.\n" + "é" * 1001 + " is too long.\n",
    "\n".join(f"This is line {n} of a decent text. It has two sentences." for n in range(5)),
    "\"He said so.\"\nIt's said by 'him'\nWhat now?\nStop it now!\n",
    "All \u212aelvin coo\u212aie policy lines go.\nUSES COO\u212aIES too now.\n"
    "use of coo\u212aie pol\u0130cy stays here.\nJava\u017fcript stays here now.\n",
    "Digits of all kinds [١٢٣] go [１] here.\nNot [1a] [ ] [citation] [Edit] [[2]] [edit [] these.\nNor [12 this one.\n",
    "Ends in a citation.[3]\nEnds in dots..[4].\n[1][2][3]\n"
    "\u3000[5] \u3000 one two three. \u2028 next line [ here.\x85And one [more] here.",
    " \u00a0[edit] \n [7] leading space is all that stays. \n [8] ",
]


class Recorded(reference.C4QualityFilter):
    """datatrove's filter with its line statistics recorded."""

    def stat_update(self, *names: str, **_: object) -> None:
        self.lines.update(names)

    def run_one(self, text: str) -> tuple[bool, str | None, str, Counter[str]]:
        self.lines: Counter[str] = Counter()
        document = Document(text=text, id="")
        kept, reason = get_filter_result(self.filter(document))
        return kept, reason, document.text, self.lines


LINE_COLUMNS = {
    "c4_lines": "line-total",
    "c4_kept_lines": "line-kept",
    "c4_long_word_lines": "line-filter-too_long_word",
    "c4_unpunctuated_lines": "line-filter-no_terminal_punc",
    "c4_short_lines": "line-filter-too_few_words",
    "c4_javascript_lines": "line-filter-javascript",
    "c4_policy_lines": "line-filter-policy",
}


@pytest.fixture(scope="session")
def counting() -> Iterator[dict[str, int]]:
    """Makes datatrove's filter count sentences by the rule `counting["rule"]` in place of spaCy's; `counting["found"]` sums them."""
    state: dict[str, Any] = {"rule": "spacy", "found": 0}
    by_spacy = reference.split_into_sentences

    def split(line: str, language: str) -> Sequence[object]:
        parts = by_spacy(line, language) if state["rule"] == "spacy" else range(count_sentences(line))
        state["found"] += len(parts)
        return parts

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "split_into_sentences", split)
        yield state


def assert_equal(measure_step: Callable, counting: dict[str, Any], texts: list[str], options: dict[str, Any]) -> dict[str, list[int]]:
    """Compares every value, text and reason."""
    columns, new_texts = measure_step("c4", options, texts)
    counting["rule"] = options.get("sentence_rule", "spacy")
    options = {name: value for name, value in options.items() if name != "sentence_rule"}
    no_page_rules = Recorded(filter_lorem_ipsum=False, filter_curly_bracket=False, min_num_sentences=0, **options)
    lorem = Recorded(filter_curly_bracket=False, min_num_sentences=-1, **options)
    curly = Recorded(filter_lorem_ipsum=False, min_num_sentences=-1, **options)
    stock = Recorded(**options)
    for place, text in enumerate(texts):
        counting["found"] = 0
        _, _, new_text, lines = no_page_rules.run_one(text)
        assert new_texts[place] == new_text, text[:200]
        for column, name in LINE_COLUMNS.items():
            assert columns[column][place] == lines[name], (column, text[:200])
        found = {name: columns[f"c4_{name}"][place] for name in ("sentences", "lorem_ipsum_lines", "curly_bracket_lines")}
        assert found["sentences"] == counting["found"], text[:200]
        assert (found["lorem_ipsum_lines"] > 0) == (lorem.run_one(text)[1] == "lorem_ipsum"), text[:200]
        assert (found["curly_bracket_lines"] > 0) == (curly.run_one(text)[1] == "curly_bracket"), text[:200]
        fails = found["sentences"] < 5 or found["lorem_ipsum_lines"] > 0 or found["curly_bracket_lines"] > 0
        assert stock.run_one(text)[0] != fails, text[:200]
    return columns


@pytest.mark.parametrize("options", [{}, {"sentence_rule": "marks"}])
def test_texts_counts_and_reasons(texts: list[str], measure_step: Callable, counting: dict[str, Any], options: dict[str, Any]) -> None:
    columns = assert_equal(measure_step, counting, texts[::4] + EXTRA, options)  # spaCy is slow
    assert all(any(values) for values in columns.values())


#: Fragments from which hypothesis builds lines near the rules' limits.
PIECES = st.sampled_from(
    ["[", "]", "[1]", "[٣]", "[edit]", "[citation needed]", ".", "...", "!", "?", '"', "'", "…", "。", "」", ")", " ", "\u3000",
     "\x85", "\n", "\r\n", "\u2028", "\x1c", "word", "é", "\u212a", "\u0130", "{", "JavaScript",
     "lorem", " ipsum", "use", "s", " of", " coo", "k", "K",
     "ies", "ie", " policy", "privacy", "terms of ", "\0", "漢字", "😀"]
)  # fmt: skip
TEXTS = st.lists(PIECES | st.text(max_size=4), max_size=40).map("".join)


@given(
    st.lists(TEXTS, max_size=4),
    st.fixed_dictionaries(
        {name: st.booleans() for name in ("filter_no_terminal_punct", "remove_citations", "filter_javascript", "filter_policy")}
        | {
            "min_words_per_line": st.integers(0, 4),
            "max_word_length": st.integers(1, 12),
            "sentence_rule": st.sampled_from(["spacy", "marks"]),
        }
    ),
)
def test_any_text_and_options(measure_step: Callable, counting: dict[str, Any], texts: list[str], options: dict[str, Any]) -> None:
    assert_equal(measure_step, counting, texts, options)


def clean_page(text: str) -> tuple[str, bool, bool]:
    """Applies C4's rules to lines in their original order, slowly; returns the new text, and whether it saw lorem ipsum and {."""
    kept, lorem, curly = [], False, False
    for raw in text.splitlines():
        line = raw.strip()
        if any(len(word) > 1000 for word in line.split()):
            continue
        line = re.sub(r"\[\d*]|\[edit]|\[citation needed]", "", line)
        if not line.endswith((".", "?", "!", '"')) or line.endswith("...") or len(line.split()) < 5:
            continue
        lower = line.lower()
        lorem |= "lorem ipsum" in lower
        if "javascript" in lower:
            continue
        curly |= "{" in line
        if not any(phrase in lower for phrase in reference.POLICY_SUBSTRINGS):
            kept.append(line)
    return "\n".join(kept).strip(), lorem, curly


def test_paper(texts: list[str], measure_step: Callable) -> None:
    texts = [*texts, *EXTRA, "One two [1] [2] [3] [4].\nOne two three four five.\nIt's one two three 'four five'\n"]
    columns, new_texts = measure_step("c4", {"preset": "c4-paper"}, texts)
    for place, text in enumerate(texts):
        lorem, curly = columns["c4_lorem_ipsum_lines"][place] > 0, columns["c4_curly_bracket_lines"][place] > 0
        assert (new_texts[place], lorem, curly) == clean_page(text), text[:200]
    assert new_texts[-1] == "One two three four five."
    assert C4.PRESETS["c4-paper"][-1].threshold == 3 and C4.PRESETS["c4-datatrove"][-1].threshold == 5


def test_a_preset_gives_the_options_that_a_recipe_does_not() -> None:
    paper = C4Config.model_validate({"preset": "c4-paper", "min_words_per_line": 2})
    assert (paper.min_words_per_line, paper.end_marks, paper.words_in_citations) == (2, '.?!"', False)
    assert C4Config.model_validate(paper.model_dump()) == paper
    assert not C4Config.model_validate({"preset": "fineweb"}).filter_no_terminal_punct


def test_the_marks_of_tokens_go_on_with_the_new_texts(texts: list[str]) -> None:
    batch = DocumentBatch(pa.table({}), pa.array(EXTRA + texts, pa.large_string()).slice(1), "spacy")
    measured = C4(C4Config(filter_no_terminal_punct=False)).measure(batch)
    data, offsets = text_buffers(measured.text)
    assert np.array_equal(measured.token_marks, mark_tokens(data, offsets[:-1], offsets[1:]))


# ---- Verdicts against datatrove's C4ParagraphFilter, values against Python.

EXTRA_MC4_PARAGRAPHS = [
    "a" * 200 + "\n" + "é" * 200 + "\n" + " " * 200,
    "a" * 200 + "\n" + "é" * 199 + "\n" + "b" * 400,
    ("x" * 200 + "\r") * 3,
]


def test_mc4_values_and_verdicts(texts: list[str], measure_step: Callable) -> None:
    texts = texts + EXTRA_MC4_PARAGRAPHS
    counts = measure_step("mc4_paragraphs", {}, texts)[0]["mc4_paragraphs"]
    verdicts = [bool(MC4[0].threshold <= count) for count in counts]
    assert counts == [sum(len(line) >= 200 for line in text.split("\n")) for text in texts]
    assert verdicts == [C4ParagraphFilter().filter(Document(text=text, id="")) is True for text in texts]
    assert len(set(verdicts)) == 2


@given(st.lists(st.text(st.sampled_from("a é漢😀\n\r")), max_size=5), st.integers(1, 6))
@settings(deadline=None)
def test_mc4_any_text(measure_step: Callable, texts: list[str], length: int) -> None:
    counts = measure_step("mc4_paragraphs", {"min_paragraph_length": length}, texts)[0]["mc4_paragraphs"]
    assert counts == [sum(len(line) >= length for line in text.split("\n")) for text in texts]
