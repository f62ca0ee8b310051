"""Tests the places of failed rules in a text: carried back to the stage's input text, in the terminal, and as JSON."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from printing import printed

from corpusmill.report.answers.marks import Mark, TextAlignment, dedup_marks, filter_marks, marked_text
from corpusmill.report.answers.raw import raw
from corpusmill.report.answers.why import explain
from corpusmill.report.read import ReportRule


@given(
    st.lists(st.tuples(st.sampled_from(["a", "b", "the", "é", "mill."]), st.booleans()), max_size=40), st.sampled_from([" ", "\n", "  "])
)
def test_removed_words_and_the_way_back(drawn: list[tuple[str, bool]], space: str) -> None:
    words = [(f"{number}{word}", kept) for number, (word, kept) in enumerate(drawn)]  # of equal words nobody knows which one was removed
    before, after = space.join(word for word, _ in words), " ".join(word for word, kept in words if kept)
    alignment = TextAlignment(before, after)
    removed = " ".join(before[begin:end] for begin, end in alignment.removed()).split()
    assert len(removed) == sum(not kept for _, kept in words)
    for match in re.finditer(r"\S+", after):
        begin, end = alignment.back(match.span())
        assert before[begin:end] == match[0]
    if after.split():
        begin, end = alignment.back((0, len(after)))
        assert before[begin:end].split()[0] == after.split()[0] and before[begin:end].split()[-1] == after.split()[-1]


def test_a_part_of_a_word_goes_back_to_its_part() -> None:
    alignment = TextAlignment("gone here: {mail} it[1] is", "here: {mail} it is")
    assert alignment.back((7, 11)) == (12, 16) and alignment.removed() == [(0, 4), (18, 23)]
    assert alignment.back((13, 15)) == (0, 0)  # "it" is another word than "it[1]"


def test_what_dedup_cut_and_words_of_an_evaluation_set() -> None:
    text = "one two\nthree four\nfive six"
    assert dedup_marks({"lines_cut": 1}, text, "one two\nfive six") == [
        Mark("dedup", "", "what dedup cut: it repeats in the corpus", [(8, 18)])
    ]
    assert dedup_marks({"lines_cut": 0, "failed": []}, text, text) == dedup_marks({"substring_spans": 2}, text, None) == []
    (mark,) = dedup_marks({"contamination_passage": "two\nthree", "failed": ["contaminated"]}, text, None)
    assert (mark.rule, mark.spans) == ("contaminated", [(4, 13)])
    assert dedup_marks({"contamination_passage": "cut away"}, text, None)[0].spans is None


def test_places_of_a_filter_of_ones_own_and_damaged_ones() -> None:
    rules = [ReportRule("python:loud", "too_loud", "marks", ">", 1)]
    row: dict[str, Any] = {"failed": ["too_loud"], "marks": 2}
    for column, spans in (([2, 3, 5, 6], [(2, 3), (5, 6)]), ("[5, 6, 2, 3]", [(2, 3), (5, 6)]), ([5, 99, -1, 2, 3, 3, 1], []), ("odd", [])):
        assert filter_marks({}, rules, {**row, "marks_places": column}, "no! no!")[0].spans == spans
    assert "a column marks_places" in filter_marks({}, rules, row, "no! no!")[0].what


def test_places_are_shown_only_where_the_value_is_the_reported_one() -> None:
    settings = {"steps": [{"fineweb_quality": {}}], "word_rule": "words"}
    rules = [ReportRule("fineweb_quality", "line_punct_ratio", "line_punct_ratio", "<", 0.6)]
    row = {"failed": ["line_punct_ratio"], "line_punct_ratio": 0.5}
    assert filter_marks(settings, rules, row, "one.\ntwo")[0].spans == [(5, 8)]
    for other in ({**row, "line_punct_ratio": 0.4}, {"failed": row["failed"]}):
        (mark,) = filter_marks(settings, rules, other, "one.\ntwo")
        assert mark.spans is None and "unknown" in mark.what
    assert "unknown" in filter_marks({"steps": [{"fineweb_quality": {"preset": 1}}]}, rules, row, "one.\ntwo")[0].what


def test_why_marks_the_text(marked_run: Path) -> None:
    text = printed(explain(str(marked_run), "http://repeats.test/", marks=True).show)
    assert (
        "Why filter decided so, in the text that ingest wrote:" in text and "A dup_para_frac: 3 places: copies of an earlier para" in text
    )
    assert "A dup_line_char_frac: 3 places" in text and "B top_4_gram: 4 places" in text  # the same places have the same letter
    assert "\n⟦B The miller of the⟧ river ground the corn. \U0001f600 and more.\n\n⟦A,B" in text and "  curly_bracket: 1 place" in text
    assert "The text begins" not in text
    assert "\x1b" not in text and "\u202e" not in text
    assert "what c4 leaves out" in printed(explain(str(marked_run), "http://first.test/", marks=True).show)
    plain = printed(explain(str(marked_run), "http://repeats.test/").show)
    assert "⟦" not in plain and "The text begins" in plain
    (story,) = explain(str(marked_run), "http://mail.test/", marks=True).as_json()["documents"]
    (marked,) = story["marked"]
    places = {mark["rule"]: [marked["text"][begin:end] for begin, end in mark["spans"]] for mark in marked["marks"] if mark["rule"]}
    assert (marked["stage"], marked["text_of"]) == ("filter", "ingest")
    assert places == {"pii_emails": ["anna@firma.de"], "bad_words": ["damns", "damn"]}


def test_a_long_text_is_cut_to_the_passages_with_places() -> None:
    text = "".join(f"{'x' * 300} HIT {number} " for number in range(60))
    shown = marked_text(text, {"A": [match.span() for match in re.finditer("HIT", text)]}).plain
    assert shown.count("⟦A HIT⟧") == 40 and "20 more passages with places are not shown." in shown
    assert shown.startswith(" … 221 characters …\n") and len(shown) < len(text) / 2
    overlapping = marked_text("a b c", {"A": [(0, 3)], "B": [(2, 5), (4, 4)]}).plain
    assert overlapping == "⟦A a ⟧⟦A,B b⟧⟦B  c⟧"


def test_the_blocks_of_a_page(marked_run: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    raw(str(marked_run), "http://mail.test/", "blocks")
    shown = capfdbinary.readouterr().out.decode().splitlines()
    assert shown[0] == "+ menu" and shown[-2:] == ["+ Short.", "+ Two damns, damn it, for the miller."]
