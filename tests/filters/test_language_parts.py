"""Tests shares of languages within a text on sentences whose languages are known, and that `cut` removes whole paragraphs alone."""

import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from corpusmill.filters.language import LanguageConfig
from corpusmill.filters.language_parts import LEAST, MOST, split
from corpusmill.filters.step import build_steps

LANGUAGES = ("ar", "de", "el", "en", "es", "fr", "hi", "ja", "ko", "ru", "th", "zh")
ENGLISH = "The ferry to the island leaves at nine every morning.\nIt returns before the evening, if the sea is calm enough.\n"
GERMAN = "Die Fähre zur Insel fährt jeden Morgen um neun Uhr ab.\n"


@pytest.fixture(scope="module")
def sentences(shared_data: Path) -> dict[str, list[str]]:
    return {name: (shared_data / "lid" / f"{name}.txt").read_text().splitlines() for name in LANGUAGES}


@pytest.mark.parametrize("between", ["\n\n", " "])
def test_shares_are_within_five_points(sentences: dict[str, list[str]], measure_step: Callable, between: str) -> None:
    draw = random.Random(3)
    texts, truths = [], []
    for _ in range(80):
        blocks = {name: draw.choices(sentences[name], k=draw.randint(2, 8)) for name in draw.sample(LANGUAGES, draw.randint(1, 3))}
        sizes = {name: len("".join("".join(block).split())) for name, block in blocks.items()}
        texts.append(between.join(" ".join(block) for block in blocks.values()))
        truths.append({name: size / sum(sizes.values()) for name, size in sizes.items()})
    columns, _ = measure_step("language", {"mixed": True, "keep": ["de"]}, texts)
    found = [dict(zip(*row)) for row in zip(columns["language_parts"], columns["language_part_shares"])]
    right = [all(abs(shares.get(name, 0) - truth.get(name, 0)) <= 0.05 for name in shares | truth) for shares, truth in zip(found, truths)]
    assert np.mean(right) >= 0.9
    german = [shares.get("de", 0) for shares in found]
    assert columns["language_share"] == pytest.approx(german, abs=0.03)  # the list has no languages of less than 1%


def test_paragraphs_in_other_languages_are_cut(measure_step: Callable) -> None:
    texts = [ENGLISH + GERMAN + ENGLISH, GERMAN * 2, "404", ""]
    columns, output = measure_step("language", {"mixed": True, "keep": ["en"], "cut": True}, texts)
    assert output == [ENGLISH * 2, "", "404", ""]
    german = len("".join(GERMAN.split()))
    assert columns["language_cut"] == [german, 2 * german, 0, 0]
    assert columns["language_share"][:2] == [pytest.approx(1 - german / len("".join(texts[0].split()))), 0]
    assert columns["language_parts"] == [["en", "de"], ["de"], [], []]
    columns, output = measure_step("language", {"mixed": True, "cut": True}, [GERMAN + ENGLISH])  # nothing is wanted: the largest stays
    assert output == [ENGLISH]


@given(st.lists(st.text(st.sampled_from("ab \n.。\u3000é字"), max_size=200), max_size=3))
@example(["x" * 1_000_000, "a. " * 500_000])
def test_parts_are_the_text_and_few(texts: list[str]) -> None:
    data = np.frombuffer("".join(texts).encode(), np.uint8)
    offsets = np.cumsum([0, *(len(text.encode()) for text in texts)])
    parts = split(data, offsets)
    for number, text in enumerate(texts):
        own = slice(parts.first[number], parts.first[number + 1])
        bounds = parts.bounds[own.start : own.stop + 1]
        assert own.stop - own.start <= min(MOST, len(text.encode()) // LEAST) + 1
        assert not text or b"".join(data[a:b].tobytes() for a, b in pairwise(bounds)).decode() == text
        assert parts.sizes[own].sum() == len("".join(text.split()))
        assert (np.diff(parts.paragraphs[own]) >= 0).all()


def test_rule_and_options() -> None:
    (step,) = build_steps([{"language": {"mixed": True, "keep": ["en"], "min_share": 0.8}}])
    assert [(rule.rule.name, rule.rule.threshold) for rule in step.rules][2:] == [("language_mixed", 0.8)]
    with pytest.raises(ValidationError, match="min_share and cut ask for `mixed: true`"):
        LanguageConfig(cut=True)
