"""Tests an evaluation on the terminal and as a page: the measured numbers, and no name that controls a terminal or a page."""

import html
import json
import re
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
from printing import printed
from sklearn.metrics import roc_auc_score

from corpusmill.filters.classifier.evaluate import Evaluation, evaluate
from corpusmill.pipeline.errors import InputError
from corpusmill.report.classifier_evaluation import render, show_evaluation, warnings, write_page

HOSTILE = "<b onmouseover=alert(1)>\x1b[31mred\u202e</script><script>alert(2)</script>"


def evaluation(source: list[str], unseen: int = 0, seen: int = 12) -> Evaluation:
    random = np.random.default_rng(2)
    count = len(source)
    score = np.round(random.random(count), 3)
    answer = (random.random(count) < score).astype(np.int8)
    answer[-5:] = -1
    found = evaluate(score, answer, source, random.integers(5, 3000, count), 0.55, 1, resamples=50)
    result = {
        "classifier": f"name {HOSTILE}", "digest": "d" * 64, "texts": count, "left_out": unseen, "not_asked": ["other"],
        "sources": [{"name": name, "files": [], "rows": 9, "examples": 9, "answers": {}} for name in dict.fromkeys(source)],
        "in_training": {"texts": seen, "of": count, "by_source": {source[0]: seen}}, "labels": {"rude": found},
    }  # fmt: skip
    return Evaluation(result, {"rude": score}, {"rude": answer}, source)


EVERY = evaluation([HOSTILE] * 150 + ["pages"] * 150 + ["only two"] * 2)


def shown(one: Evaluation, width: int = 80) -> str:
    return printed(show_evaluation, one.result, width=width)


def test_the_terminal_has_the_numbers_within_80_columns() -> None:
    text, found = shown(EVERY), EVERY.result["labels"]["rude"]
    assert max(len(line) for line in text.splitlines()) <= 80 and not set("\x1b\u202e") & set(text)
    auc = found["roc_auc"]
    assert re.search(rf"all +297 +{auc['value']:.3f} \({auc['low']:.3f}–{auc['high']:.3f}\)", text)
    pages = found["by_source"]["pages"]["at_threshold"]
    assert re.search(rf"pages .*{pages['precision']['value']:.3f} +{pages['recall']['value']:.3f} +{pages['f1']['value']:.3f}", text)
    assert re.search(r"0\.55 ◂ own", text) and re.search(r"^0\.9 ", text, re.M)
    assert "5 without an answer" in text
    assert "12 of 302 texts were in the training data" in " ".join(text.split())


def test_warnings_say_what_to_doubt() -> None:
    found = " ".join(warnings(EVERY.result))
    assert "no text has an answer to other" in found and "--unseen leaves them out" in found
    few = evaluation(["a"] * 40, seen=0)
    assert any("few examples" in sentence for sentence in warnings(few.result))
    few.result["in_training"] = None
    assert "may have seen these texts before" in warnings(few.result)[0]
    random = np.random.default_rng(0)
    guess = evaluate(random.random(1000), random.random(1000) < 0.1, ["a"] * 1000, np.ones(1000), 0.5, 0, resamples=50)
    sentences = " ".join(warnings({**few.result, "labels": {"rude": guess}}))
    assert (
        "tells yes from no poorly" in sentences and "are not calibrated" in sentences and "most of its yes answers are wrong" in sentences
    )


@pytest.fixture(scope="module")
def page() -> str:
    return render(EVERY)


def figures(page: str) -> list[dict]:
    return json.loads(re.search(r'<script type="application/json" id="figures">(.*?)</script>', page, re.S)[1])


def test_the_charts_have_the_measured_numbers(page: str) -> None:
    every = figures(page)
    for figure in every:
        go.Figure(figure)  # raises where it is no plotly figure
    known = EVERY.answers["rude"] >= 0
    roc = next(f["data"][0] for f in every if f["layout"]["xaxis"].get("title", {}).get("text") == "no that are taken for yes")
    auc = roc_auc_score(EVERY.answers["rude"][known], EVERY.scores["rude"][known])
    assert np.trapezoid(roc["y"], roc["x"]) == pytest.approx(auc, abs=0.005) and len(roc["x"]) <= 300
    histogram = next(f for f in every if [t.get("type") for t in f["data"]] == ["bar", "bar"])
    assert sum(map(sum, (trace["customdata"] for trace in histogram["data"]))) == 297
    numbers = [int(number) for number in re.findall(r'data-figure="(\d+)"', page)]
    assert sorted(numbers) == list(range(len(every)))


def test_nothing_of_the_data_is_obeyed_by_the_page(page: str) -> None:
    own = re.sub(r"<script>.*?</script>|<style.*?</style>", "", page, flags=re.S)
    assert "<b onmouseover" not in page and "<script>alert" not in page
    assert not set("\x1b\u202e") & set(own)
    assert "&lt;b onmouseover=alert(1)&gt;red" in own
    assert html.unescape(re.search(r"<h1>(.*?)</h1>", own)[1]).startswith("Evaluation of <bdi>name <b")
    names = [trace["name"] for figure in figures(page) for trace in figure["data"] if "name" in trace]
    assert names and not any("<" in name for name in names)


def test_equal_evaluations_give_equal_pages(page: str, tmp_path: Path) -> None:
    write_page(EVERY, tmp_path / "new/page.html")
    assert (tmp_path / "new/page.html").read_text() == page
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="can't be written"):
        write_page(EVERY, tmp_path / "file/page.html")


def test_a_source_with_one_answer_has_no_curve_but_a_histogram() -> None:
    found = evaluate([0.1, 0.2, 0.9], [1, 1, 1], ["a", "b", "b"], [1, 1, 1], 0.5, 0, resamples=10)
    one = Evaluation(
        {**EVERY.result, "labels": {"rude": found}},
        {"rude": np.array([0.1, 0.2, 0.9])},
        {"rude": np.ones(3, np.int8)},
        ["a", "b", "b"],
    )
    titles = re.findall(r"<figcaption><b>(.*?)</b>", render(one))
    assert titles == ["Reliability", "Thresholds", "Scores: all", "Scores: a", "Scores: b"]
    assert "all examples have the answer yes" in shown(one, 200)
