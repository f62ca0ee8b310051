"""Tests an evaluation on the terminal: the measured numbers, and no name that controls a terminal."""

import re
from typing import Any

import numpy as np
from printing import printed

from corpusmill.filters.classifier.evaluate import evaluate
from corpusmill.report.classifier_evaluation import show_evaluation, warnings

HOSTILE = "<b onmouseover=alert(1)>\x1b[31mred\u202e</script><script>alert(2)</script>"


def evaluation(source: list[str], left_out: int = 12) -> dict[str, Any]:
    random = np.random.default_rng(2)
    count = len(source)
    score = np.round(random.random(count), 3)
    answer = (random.random(count) < score).astype(np.int8)
    answer[-5:] = -1
    found = evaluate(score, answer, source, random.integers(5, 3000, count), 0.55, 1, resamples=50)
    result = {
        "classifier": f"name {HOSTILE}", "digest": "d" * 64, "texts": count, "left_out": left_out, "not_asked": ["other"],
        "sources": [{"name": name, "files": [], "rows": 9, "examples": 9, "answers": {}} for name in dict.fromkeys(source)],
        "labels": {"rude": found},
    }  # fmt: skip
    return result


EVERY = evaluation([HOSTILE] * 150 + ["pages"] * 150 + ["only two"] * 2)


def shown(one: dict[str, Any], width: int = 80) -> str:
    return printed(show_evaluation, one, width=width)


def test_the_terminal_has_the_numbers_within_80_columns() -> None:
    text, found = shown(EVERY), EVERY["labels"]["rude"]
    assert max(len(line) for line in text.splitlines()) <= 80 and not set("\x1b\u202e") & set(text)
    auc = found["roc_auc"]
    assert re.search(rf"all +297 +{auc['value']:.3f} \({auc['low']:.3f}–{auc['high']:.3f}\)", text)
    pages = found["by_source"]["pages"]["at_threshold"]
    assert re.search(rf"pages .*{pages['precision']['value']:.3f} +{pages['recall']['value']:.3f} +{pages['f1']['value']:.3f}", text)
    assert re.search(r"0\.55 ◂ own", text) and re.search(r"^0\.9 ", text, re.M)
    assert "5 without an answer" in text
    assert "12 that it has learned from are left out" in " ".join(text.split())


def test_warnings_say_what_to_doubt() -> None:
    found = " ".join(warnings(EVERY))
    assert "no text has an answer to other" in found
    few = evaluation(["a"] * 40)
    assert any("few examples" in sentence for sentence in warnings(few))
    few["left_out"] = None
    assert "may have seen these texts before" in warnings(few)[0]
    random = np.random.default_rng(0)
    guess = evaluate(random.random(1000), random.random(1000) < 0.1, ["a"] * 1000, np.ones(1000), 0.5, 0, resamples=50)
    sentences = " ".join(warnings({**few, "labels": {"rude": guess}}))
    assert (
        "tells yes from no poorly" in sentences and "are not calibrated" in sentences and "most of its yes answers are wrong" in sentences
    )
