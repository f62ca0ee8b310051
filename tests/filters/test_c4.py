"""Texts and reasons against datatrove's C4QualityFilter with our rule for sentences in place of its."""

import re
from collections import Counter
from collections.abc import Callable

import pytest
from datatrove.data import Document
from datatrove.pipeline.filters import c4_filters as reference
from datatrove.pipeline.filters.base_filter import get_filter_result

from corpusmill.filters.c4 import count_sentences

EXTRA = [
    "Lorem ipsum dolor sit amet.\nWe use cookies here now.\nYou need JavaScript to see it.\nThis is { a line.\nOk.\nNo mark here at all\n",
    "See the terms of use, which mention { braces.\nThe javascript { here is lorem ipsum too.\n",
    "a" * 1001 + " is too long a word.\nThis [1] stays [edit] here [citation needed].\nNot this one...\n[12] [3] four.\n",
    "\n".join(f"This is line {n} of a decent text. It has two sentences." for n in range(5)),
    "\"He said so.\"\nIt's said by 'him'\nWhat now?\nStop it now!\n",
]


class Recorded(reference.C4QualityFilter):
    """datatrove's filter with its line statistics kept."""

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


@pytest.mark.parametrize("punctuated", [True, False])
def test_texts_counts_and_reasons(texts: list[str], measure_step: Callable, monkeypatch, punctuated: bool) -> None:
    monkeypatch.setattr(reference, "split_into_sentences", lambda line, language: range(count_sentences(line)))
    texts = texts + EXTRA
    options = {"filter_no_terminal_punct": punctuated}
    columns, new_texts = measure_step("c4", options, texts)
    no_page_rules = Recorded(filter_lorem_ipsum=False, filter_curly_bracket=False, min_num_sentences=-1, **options)
    lorem = Recorded(filter_curly_bracket=False, min_num_sentences=-1, **options)
    curly = Recorded(filter_lorem_ipsum=False, min_num_sentences=-1, **options)
    sentences = Recorded(filter_lorem_ipsum=False, filter_curly_bracket=False, **options)
    for place, text in enumerate(texts):
        _, _, new_text, lines = no_page_rules.run_one(text)
        assert new_texts[place] == new_text, text[:200]
        for column, name in LINE_COLUMNS.items():
            assert columns[column][place] == lines[name], (column, text[:200])
        assert (columns["c4_lorem_ipsum_lines"][place] > 0) == (lorem.run_one(text)[1] == "lorem_ipsum")
        assert (columns["c4_curly_bracket_lines"][place] > 0) == (curly.run_one(text)[1] == "curly_bracket")
        assert (columns["c4_sentences"][place] < 5) == (sentences.run_one(text)[1] == "too_few_sentences")
    assert all(any(values) for name, values in columns.items() if punctuated or name != "c4_unpunctuated_lines")


@pytest.mark.parametrize(
    ("line", "sentences"),
    [
        ("", 0), ("   ", 0), ("One.", 1), ("No end", 1), ("One. Two", 2), ("One.Two", 1), ('He said "no." Then left.', 2),
        ("Version 1.2.3 is out!", 1), ("What?! Really...", 2), ("これは文です。もう一つ。", 2),
        ("「はい。」と言った。", 2), ("e.g. this", 2), ("...", 1),
    ],
)  # fmt: skip
def test_sentences(line: str, sentences: int) -> None:
    assert count_sentences(line) == sentences


def test_options_off(measure_step: Callable) -> None:
    options = {"filter_no_terminal_punct": False, "min_words_per_line": 0, "remove_citations": False, "filter_javascript": False}
    text = "javascript [1]\nok\n\n" + "b" * 2000
    columns, texts = measure_step("c4", {**options, "filter_policy": False, "max_word_length": 5000}, [text])
    assert texts == [re.sub(r"\n\n", "\n\n", text)]
    assert columns["c4_kept_lines"] == [4]
