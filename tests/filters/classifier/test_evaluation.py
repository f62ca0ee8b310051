"""What an evaluation says of each source and length, and of examples that can't be judged."""

import json

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from corpusmill.filters.classifier.evaluate import MOST_SOURCES, THRESHOLDS, evaluate


@pytest.fixture(scope="module")
def found():
    random = np.random.default_rng(1)
    score = np.round(random.random(900), 2)
    answer = (random.random(900) < score).astype(np.int8)
    answer[:50] = -1
    answer[300:600] = 1
    score[50:60] = np.nan
    source = np.repeat(["tweets", "<b>only yes", "pages"], 300)
    length = np.tile([0, 49, 50, 20_000, 99, 600], 150)
    return score, answer, source, length, evaluate(score, answer, source.tolist(), length, 0.6, seed=3, resamples=100)


def test_slices_are_measured_as_if_alone(found):
    score, answer, source, length, result = found
    known = answer >= 0
    filled = np.nan_to_num(score)
    for rows, of in (
        (known, result),
        (known & (source == "tweets"), result["by_source"]["tweets"]),
        (known & (length >= 10_000), result["by_length"]["10,000 and more"]),
        (known & (length < 50), result["by_length"]["0 to 49"]),
    ):
        assert of["examples"] == rows.sum() and of["yes"] == answer[rows].sum()
        assert of["roc_auc"]["value"] == pytest.approx(roc_auc_score(answer[rows], filled[rows]))
        assert of["roc_auc"]["low"] < of["roc_auc"]["value"] < of["roc_auc"]["high"]
        assert of["at_threshold"]["f1"]["value"] == pytest.approx(f1_score(answer[rows], filled[rows] >= 0.6))
        assert of["at_threshold"]["kept"]["value"] == pytest.approx((filled[rows] >= 0.6).mean())
    assert list(result["by_length"]) == ["0 to 49", "50 to 99", "500 to 1,999", "10,000 and more"]
    assert list(result["by_source"]) == ["<b>only yes", "pages", "tweets"]


def test_a_source_with_one_answer_has_no_auc(found):
    one = found[-1]["by_source"]["<b>only yes"]
    assert one["roc_auc"] is None
    assert one["no"] == 0 and one["at_threshold"]["precision"]["value"] == 1


def test_unknown_answers_and_texts_without_a_score_are_counted(found):
    assert found[-1]["unknown"] == 50
    assert found[-1]["without_score"] == 10
    assert found[-1]["examples"] == 850


def test_the_table_has_all_thresholds_and_falls_in_recall(found):
    table = found[-1]["thresholds"]
    assert tuple(row["threshold"] for row in table) == THRESHOLDS
    recall = [row["recall"]["value"] for row in table]
    assert recall == sorted(recall, reverse=True)


def test_the_reliability_curve_covers_all_examples(found):
    for name in ("reliability", "reliability_equal_width"):
        bins = found[-1][name]
        assert sum(b["examples"] for b in bins) == 850
        assert all(b["low"] <= b["yes"] <= b["high"] for b in bins)
        assert [b["score"] for b in bins] == sorted(b["score"] for b in bins)
    total = sum(b["examples"] * abs(b["score"] - b["yes"]) for b in found[-1]["reliability"]) / 850
    assert found[-1]["calibration_error"]["value"] == pytest.approx(total)


def test_it_is_json_and_the_same_each_time(found):
    score, answer, source, length, result = found
    again = evaluate(score, answer, pa.chunked_array([source[:10].tolist(), source[10:].tolist()]), length, 0.6, seed=3, resamples=100)
    assert json.dumps(again, allow_nan=False) == json.dumps(result, allow_nan=False)


def test_no_known_answer_at_all():
    result = evaluate([0.5, 0.2], [-1, -1], ["a", "a"], [3, 4], 0.5, seed=0)
    assert result["examples"] == 0 and result["unknown"] == 2
    assert result["roc_auc"] is result["brier"] is None
    assert result["by_source"] == result["by_length"] == {} and result["reliability"] == []


def test_of_many_sources_the_largest_are_measured():
    names = [f"site{number % 60}" for number in range(600)] + ["site59"] * 3
    result = evaluate(np.full(603, 0.5), np.arange(603) % 2, names, np.full(603, 9), 0.5, seed=0, resamples=10)
    assert len(result["by_source"]) == MOST_SOURCES
    assert result["sources_left_out"] == 10
    assert "site59" in result["by_source"]


def test_examples_without_a_source_are_a_source():
    result = evaluate([0.5, 0.2], [1, 0], pa.array([None, "a"]), [3, 4], 0.5, seed=0, resamples=10)
    assert set(result["by_source"]) == {"(no source)", "a"}
