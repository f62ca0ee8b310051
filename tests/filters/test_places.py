"""Compares the places of each rule with the value that its step measured: places and value must count the same things."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datatrove.pipeline.filters import gopher_repetition_filter as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.filters import places
from corpusmill.filters.places import MeasuredText, Places, filled, lines, measure_again, paragraphs, pieces
from corpusmill.filters.step import STEPS, resolve_step

STEP_OPTIONS: dict[str, dict[str, Any]] = {
    "gopher_quality": {}, "gopher_repetition": {}, "fineweb_quality": {}, "c4": {}, "mc4_paragraphs": {"min_paragraph_length": 40},
    "dclm": {}, "nemo": {}, "stop_words": {}, "encoding_damage": {}, "pii": {},
}  # fmt: skip


def again(name: str, options: dict[str, Any], text: str, word_rule: str = "words") -> MeasuredText:
    (measured,) = measure_again({"steps": [resolve_step({name: options})], "word_rule": word_rule}, text, {"id": "x"})
    return measured


def size(text: str, found: Places) -> int:
    return sum(end - begin for begin, end in found.spans)


def visible(text: str, found: Places) -> int:
    return sum(len("".join(text[begin:end].split())) for begin, end in found.spans)


def share(above: float, below: float) -> float:
    return above / below if below else math.nan


def different(text: str, found: Places) -> int:
    return len({text[begin:end] for begin, end in found.spans})


def joined(n: int) -> Callable[[str, Places, MeasuredText], int]:
    """The characters of all places of a phrase, with one space between its words."""
    return lambda text, found, measured: visible(text, found) + (n - 1) * len(found.spans)


KINDS = ("bullet", "ellipsis")
#: By column, the value that its places give.
VALUES: dict[str, Callable[[str, Places, MeasuredText], float]] = {
    "gopher_hash_ratio": lambda t, f, m: share(len(f.spans), m.words.count),
    "gopher_ellipsis_ratio": lambda t, f, m: share(len(f.spans), m.words.count),
    "gopher_bullet_line_ratio": lambda t, f, m: share(len(f.spans), len(lines(t))),
    "gopher_ellipsis_line_ratio": lambda t, f, m: share(len(f.spans), len(lines(t))),
    "gopher_alpha_word_ratio": lambda t, f, m: share(m.words.count - len(f.spans), m.words.count),
    "gopher_stop_words": lambda t, f, m: different(t, f),
    "dup_para_frac": lambda t, f, m: share(len(f.spans), len(paragraphs(t))),
    "dup_para_char_frac": lambda t, f, m: share(size(t, f), len(t)),
    "dup_line_frac": lambda t, f, m: share(len(f.spans), len(pieces("\n+", t))),
    "dup_line_char_frac": lambda t, f, m: share(size(t, f), len(t)),
    **{f"top_{n}_gram_char_frac": lambda t, f, m, n=n: share(joined(n)(t, f, m), len(t)) for n in (2, 3, 4)},  # type: ignore[misc]
    **{f"dup_{n}_gram_char_frac": lambda t, f, m: share(visible(t, f), len(t)) for n in range(5, 11)},
    "line_punct_ratio": lambda t, f, m: share(len(filled(t)) - len(f.spans), len(filled(t))),
    "short_line_ratio": lambda t, f, m: share(len(f.spans), len(filled(t))),
    "char_dup_ratio": lambda t, f, m: share(size(t, f), len(t) - t.count("\n")),
    "c4_sentences": lambda t, f, m: m.values["c4_sentences"] if len(f.spans) == left_out(t, m) else -1,
    "c4_lorem_ipsum_lines": lambda t, f, m: len(f.spans),
    "c4_curly_bracket_lines": lambda t, f, m: len(f.spans),
    "mc4_paragraphs": lambda t, f, m: len(f.spans),
    **{f"{s}_{k}_line_ratio": lambda t, f, m: share(len(f.spans), len(filled(t))) for s in ("dclm", "nemo") for k in KINDS},
    "nemo_unended_line_ratio": lambda t, f, m: share(len(f.spans), len(filled(t))),
    "different_stop_words": lambda t, f, m: len({t[begin:end].lower() for begin, end in f.spans}),
    "stop_word_share": lambda t, f, m: share(len(f.spans), len(re.findall(r"\w+", t))),
    **{f"{kind}_char_ratio": lambda t, f, m: share(size(t, f), len(t)) for kind in ("replacement", "control", "private_use", "mojibake")},
}  # fmt: skip


def left_out(text: str, measured: MeasuredText) -> int:
    """The lines with text that c4 leaves out."""
    return sum(bool(line.strip()) for line in text.splitlines()) - int(measured.values["c4_kept_lines"])


def check(name: str, options: dict[str, Any], text: str, word_rule: str = "words") -> set[str]:
    """Compares the places of all rules' columns with their values; returns the columns that have places."""
    measured, seen = again(name, options, text, word_rule), set()
    for column in {rule.column for rule in measured.step.rules} | (set(measured.values) if name == "pii" else set()):
        found = measured.places(column)
        if found is None:
            continue
        value = measured.values[column]
        expected = len(found.spans) if name == "pii" else VALUES[column](text, found, measured)
        assert all(0 <= begin <= end <= len(text) for begin, end in found.spans) and found.spans == sorted(found.spans)
        if value is not None and not math.isnan(value):
            assert expected == pytest.approx(value), (column, text[:2000])
        seen.add(column)
    return seen


@pytest.mark.parametrize("name", STEP_OPTIONS)
def test_places_count_what_the_value_counts(name: str, texts: list[str]) -> None:
    seen: set[str] = set()
    for text in texts:
        seen |= check(name, STEP_OPTIONS[name], text)
    assert seen, name


@pytest.mark.parametrize("word_rule", ["whitespace", "characters", "spacy"])
def test_places_follow_the_word_rule(word_rule: str, texts: list[str]) -> None:
    for text in texts[::8]:
        check("gopher_quality", {}, text, word_rule)
        check("gopher_repetition", {}, text, word_rule)


PARTS = st.sampled_from(
    ["a b c d e", "the cat", "- x", "• y", "end.", "so...", "\n", "\n\n", " ", "\r\n", "#", "…", "{", "1 2", "é漢\U0001f600", "\u2028"]
)


@settings(max_examples=60)
@given(st.lists(PARTS, max_size=40).map("".join), st.sampled_from(["gopher_quality", "gopher_repetition", "fineweb_quality", "c4"]))
def test_places_in_random_texts(text: str, name: str) -> None:
    check(name, {}, text)


def test_repeated_phrases_are_those_of_datatrove(texts: list[str], find_words: Callable) -> None:
    for text in texts[::3]:
        words = find_words(text)
        measured = again("gopher_repetition", {}, text)
        for n in (5, 7, 10):
            found = measured.places(f"dup_{n}_gram_char_frac")
            assert found is not None and visible(text, found) == reference.find_all_duplicate(words, n)
        for n in (2, 4):
            found = measured.places(f"top_{n}_gram_char_frac")
            grams = reference.get_n_grams(words, n)
            assert found is not None and joined(n)(text, found, measured) == (reference.find_top_duplicate(grams) if grams else 0)


@pytest.mark.parametrize(("preset", "language"), [("datatrove-0.10", "en"), ("c4-paper", "en"), ("datatrove-0.10", "zh")])
def test_bad_words_are_those_that_count(preset: str, language: str, tmp_path: Path, texts: list[str]) -> None:
    (tmp_path / language).write_text("the\nthe cat\nof\nes\n漢\n字か\nBig\n")
    options = {"preset": preset, "lists": str(tmp_path), "language": language}
    some = 0
    for text in [*texts[::4], "the of İ the cat", "THE\nof\nΣΑΣ of ", "of", " of "]:
        measured = next(measure_again({"steps": [resolve_step({"bad_words": options})]}, text, {"id": "x", "bad_words_list": language}))
        found = measured.places("bad_words_draw")
        assert found is not None and len(found.spans) == measured.values["bad_words"], text[:500]
        some += len(found.spans)
    assert some


def test_lists_are_not_fetched_and_devices_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.cached_assets_path", lambda **_: tmp_path / "cache")
    monkeypatch.setattr(places, "cache_folder", lambda: tmp_path)
    (tmp_path / "cache").mkdir()
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "en").symlink_to("/dev/zero")
    for step in (
        {"bad_words": {}}, {"bad_words": {"lists": places.PACKAGE}}, {"bad_words": {"lists": str(tmp_path / "lists")}},
        {"bad_words": {"lists": str(tmp_path / "nowhere")}}, {"stop_words": {"lists": "/dev/zero"}},
    ):  # fmt: skip
        assert list(measure_again({"steps": [step], "word_rule": "words"}, "the text", {"bad_words_list": "en"})) == []


def test_the_text_goes_from_step_to_step_and_other_code_is_not_loaded(tmp_path: Path) -> None:
    trap = tmp_path / "trap.py"
    trap.write_text("raise SystemExit('loaded')")
    steps = [
        {"python": {"function": f"{trap}:f"}}, {"c4": {}}, {"gopher_quality": {"preset": "no such"}}, {"bad_words": {"lists": None}},
        {"c4": {"preset": "fineweb"}}, {"pii": {}}, "odd", {"no such step": {}}, {"fineweb_quality": {}},
    ]  # fmt: skip
    text = "Short.\nWrite to anna@firma.de about this line.\nno end mark here"
    found = list(measure_again({"steps": steps[:2] + steps[4:]}, text, {"id": "x"}))
    assert [one.named.name for one in found] == ["c4", "c4_2", "pii", "fineweb_quality"]
    assert found[1].text == found[0].new_text == "Write to anna@firma.de about this line."
    assert found[3].text == "Write to email@example.com about this line." and found[2].values["pii_emails"] == 1
    for odd in ({}, {"steps": "odd"}, {"steps": 5}, {"steps": [{}, None, {"c4": 3}, {"pii": {"kinds": 1}}]}):
        assert list(measure_again(odd, text, {})) == []
    (only,) = measure_again({"steps": [{"c4": 3}, {"fineweb_quality": {}}], "word_rule": "words"}, text, {"list": [1], "none": None})
    assert only.named.name == "fineweb_quality"
    assert set(STEP_OPTIONS) <= set(STEPS)
