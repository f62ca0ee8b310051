"""The sentences that teach a classifier what negation and counter speech are, and the cases that measure it: none is in both."""

import json
import re
import sys
from pathlib import Path

import pytest

from corpusmill.filters.classifier import corpora as contrasts

ROOT = Path(__file__).resolve().parents[3]
WORDS = ("xylo", "quux", "zorb")  # in place of listed words


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    monkeypatch.setattr(contrasts, "sure_and_unsure", lambda: (frozenset(WORDS), frozenset()))
    return list(contrasts._contrasts())


@pytest.fixture
def functional(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    sys.modules.pop("functional_toxicity", None)
    import functional_toxicity

    return functional_toxicity


def plain(text: str) -> str:
    return " ".join(re.findall(r"[\w']+", text.lower()))


def test_sentences_are_filled_and_both_answers_come(rows) -> None:
    lists = json.loads(Path(contrasts.__file__).with_name("contrasts.json").read_bytes())
    assert len(rows) == sum(part["sentences"] for part in lists["templates"]) and rows == list(contrasts._contrasts())
    assert not [row for row in rows if "{" in row["text"] or "}" in row["text"]]
    for word in ("not", "never", WORDS[0]):  # no word that gives the answer away by itself
        assert {row["toxic"] for row in rows if word in plain(row["text"]).replace("s ", " ").split()} == {0, 1}
    assert all(f"{{{name}}}" in str(lists) for name in (*lists["slots"], "word"))


def test_no_functional_case_is_taught(rows, functional) -> None:
    """Neither whole nor in a run of five words, whatever group or slur stands in it."""
    taught = {run for row in rows for run in runs(plain(row["text"]))}
    cases = functional.cases(list(WORDS))
    assert len(cases) > 300 and {case.toxic for case in cases} == {0, 1}
    whole = {plain(row["text"]) for row in rows}
    found = [case.text for case in cases if plain(case.text) in whole or runs(plain(case.text)) & taught]
    assert found == []


def runs(text: str, length: int = 5) -> set[str]:
    words = text.split()
    return {" ".join(words[at : at + length]) for at in range(len(words) - length + 1)}
