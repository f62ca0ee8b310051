"""The figures of docs/classifiers.md, README.md and the built-in's card are those that benchmarks/classifiers.py printed."""

import re
from pathlib import Path

import pytest

from corpusmill.filters.classifier.builtin import builtin_spec

ROOT = Path(__file__).resolve().parents[3]
PRINTED = ROOT / "benchmarks/classifiers.txt"


def printed() -> set[tuple[str, str, str]]:
    """AUCs with the ends of their intervals, as the documentation writes them."""
    rows = re.findall(r" (0\.\d{3}) \[(0\.\d{3}) (0\.\d{3})\]", PRINTED.read_text("utf-8"))
    return {tuple(number.removeprefix("0") for number in row) for row in rows}


def section(title: str) -> str:
    text = (ROOT / "docs/classifiers.md").read_text("utf-8")
    return text[text.index(f"\n{title}\n") :].split("\n### Windows")[0]


@pytest.mark.parametrize("title", ["## The built-in classifier", "### Toxicity from judged text"])
def test_the_documentation(title: str) -> None:
    found = re.findall(r"(?<!\d)(\.\d{3}) \((\.\d{3}) to (\.\d{3})\)", section(title))
    assert len(found) >= 2 and [each for each in found if each not in printed()] == []


def test_the_card_of_quality() -> None:
    (row,) = re.findall(r"quality: DCLM's human labels .*? (0\.\d{3}) \[(0\.\d{3}) (0\.\d{3})\]", PRINTED.read_text("utf-8"))
    auc, low, high = (f"{float(number):.2f}".removeprefix("0") for number in row)
    said = f"{auc} ({low} to {high})"
    assert said in " ".join(builtin_spec("quality").limits) and said in (ROOT / "README.md").read_text("utf-8")
