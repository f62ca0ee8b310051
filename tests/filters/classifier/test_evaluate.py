"""Compares measures of a classifier with scikit-learn and SciPy, and tests the evaluation of files."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from fasttext import load_model
from hypothesis import given
from hypothesis import strategies as st
from labelled_texts import write_jsonl
from scipy.stats import bootstrap
from sklearn.calibration import calibration_curve
from sklearn.metrics import average_precision_score, brier_score_loss, f1_score, precision_score, recall_score, roc_auc_score
from trained_classifier import make_posts, write_classifier

from corpusmill.filters.classifier.card import YES, evaluation_text, read_classifier
from corpusmill.filters.classifier.evaluate import (
    BINS,
    MEASURES,
    MOST_SOURCES,
    bin_of,
    evaluate,
    evaluate_files,
    intervals,
    mass_edges,
    measure,
    measures,
    rank,
)
from corpusmill.filters.classifier.forms import write_form
from corpusmill.filters.classifier.score import TRAINING_HASHES, in_training
from corpusmill.filters.classifier.spec import TrainingSpec
from corpusmill.pipeline.errors import InputError

# ---- All measures against scikit-learn, with ties and with the weights of a resample.

#: Few different scores, so that there are many ties.
TIED = st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0]), st.booleans()), min_size=1, max_size=40)


def of_sklearn(score, yes, weight, thresholds):
    found = [roc_auc_score(yes, score, sample_weight=weight), average_precision_score(yes, score, sample_weight=weight)]
    found += [brier_score_loss(yes, score, sample_weight=weight)]
    for threshold in thresholds:
        options = {"sample_weight": weight, "zero_division": np.nan}
        found += [f(yes, score >= threshold, **options) for f in (precision_score, recall_score, f1_score)]
        found += [np.average(score >= threshold, weights=weight)]
    return found


def without_calibration(found):
    return np.delete(found, 3)


@given(TIED, st.randoms(use_true_random=False))
def test_measures_are_those_of_scikit_learn_with_ties_and_weights(examples, random):
    score, yes = np.array([s for s, _ in examples]), np.array([y for _, y in examples])
    draws = np.array([random.randrange(len(yes)) for _ in yes])
    weight = np.bincount(draws, minlength=len(yes))
    drawn = yes[draws]
    thresholds = (0.0, 0.25, 0.3, 1.0)
    ranking = rank(score, yes, thresholds)
    order = np.argsort(-score, kind="stable")
    places = np.argsort(order)[draws]
    found = measure(places[None, :], *ranking)[0]
    if drawn.all() or not drawn.any():
        assert np.isnan(found[0])
        return
    np.testing.assert_allclose(without_calibration(found), of_sklearn(score, yes, weight, thresholds), atol=1e-12)


def test_the_calibration_error_comes_from_the_bins_of_scikit_learn():
    random = np.random.default_rng(5)
    score = np.round(random.beta(0.5, 2, 5000), 2)
    yes = random.random(5000) < score**1.5
    places = bin_of(score, mass_edges(score))
    counts = np.bincount(places, minlength=BINS)
    share, mean = calibration_curve(yes, score, n_bins=BINS, strategy="quantile")
    expected = np.sum(counts[counts > 0] / len(score) * np.abs(share - mean))
    assert measures(rank(score, yes))[MEASURES.index("calibration_error")] == pytest.approx(expected, rel=1e-10)


def test_one_answer_alone_has_no_auc_and_no_crash():
    only_yes, only_no, none = (measures(rank(s, y, (0.5,))) for s, y in (([0.2, 0.8], [1, 1]), ([0.2, 0.8], [0, 0]), ([], [])))
    assert np.isnan(only_yes[0])
    assert only_yes[1] == 1 and only_yes[2] == pytest.approx((0.64 + 0.04) / 2)
    np.testing.assert_allclose(only_yes[4:], [1, 0.5, 2 / 3, 0.5])
    assert np.isnan(only_no[[0, 1]]).all()
    np.testing.assert_array_equal(only_no[4:], [0, np.nan, 0, 0.5])
    assert np.isnan(none).all()


# ---- Intervals: equal to scipy.stats.bootstrap's for a statistic computed by scikit-learn.


def examples(n, seed):
    random = np.random.default_rng(seed)
    score = random.random(n)
    return score, random.random(n) < score


def test_the_interval_of_the_auc_is_scipys_with_scikit_learns_auc():
    score, yes = examples(300, 1)
    order = np.argsort(-score, kind="stable")

    def auc(draws):
        return roc_auc_score(yes[order][draws.astype(int)], score[order][draws.astype(int)])

    expected = bootstrap((np.arange(300),), auc, n_resamples=200, method="percentile", rng=np.random.Generator(np.random.Philox(7)))
    low, high = intervals(rank(score, yes), 200, 0.95, 7)
    np.testing.assert_allclose([low[0], high[0]], expected.confidence_interval, rtol=1e-12)


def test_the_interval_of_a_calibration_error_reaches_down_to_none():
    """Scores that are probabilities have no error but chance; percentiles of resamples even exceed the measured error."""
    score, yes = examples(600, 4)
    low, high = intervals(rank(score, yes), 300, 0.95, 0)
    value = measures(rank(score, yes))[3]
    assert low[3] == 0 and 0.02 < value <= high[3] < 1.5 * value


# ---- Evaluation by source and length, and of examples that can't be judged.


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


def test_unknown_answers_and_texts_without_a_score_are_counted(found):
    assert found[-1]["unknown"] == 50
    assert found[-1]["without_score"] == 10
    assert found[-1]["examples"] == 850


def test_of_many_sources_the_largest_are_measured():
    names = [f"site{number % 60}" for number in range(600)] + ["site59"] * 3
    result = evaluate(np.full(603, 0.5), np.arange(603) % 2, names, np.full(603, 9), 0.5, seed=0, resamples=10)
    assert len(result["by_source"]) == MOST_SOURCES
    assert result["sources_left_out"] == 10
    assert "site59" in result["by_source"]


def test_the_text_has_the_numbers_and_no_name_that_controls_a_terminal(found):
    hostile = "<b onmouseover=alert(1)>\x1b[31mred\u202e|"
    measured = {**found[-1], "by_source": {hostile: found[-1]["by_source"]["pages"], "tweets": found[-1]["by_source"]["tweets"]}}
    result = {"classifier": hostile, "texts": 900, "left_out": 7, "not_asked": [hostile], "labels": {"rude": measured}}
    text = evaluation_text(result, {"rude": ["Look again."]})
    assert not set("\x1b\u202e<") & set(text.replace("\\<", "")) and "7 that it has learned from are left out" in text
    auc = measured["roc_auc"]
    assert f"| all | {measured['yes']:,} | {measured['no']:,} | {auc['value']:.3f} ({auc['low']:.3f} to {auc['high']:.3f}) |" in text
    assert "yes from 0.6 on" in text and "| 0.9 | " in text and "50 unknown" in text and "**Warning:** Look again." in text


def test_no_known_answer_at_all():
    result = evaluate([0.5, 0.2], [-1, -1], ["a", "a"], [3, 4], 0.5, seed=0)
    assert result["examples"] == 0 and result["unknown"] == 2
    assert result["roc_auc"] is result["brier"] is None
    assert result["by_source"] == result["by_length"] == {} and result["reliability"] == []


# ---- Evaluation of labelled files: scikit-learn's numbers over fastText's own scores, and overlap with training examples.

OLD, NEW = make_posts(1, 400), make_posts(2, 300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classifier(tmp_path_factory.mktemp("classifier") / "posts", OLD)


def spec_of(folder: Path, labels: tuple[str, ...] = ("rude", "spam"), **rows: list[dict]) -> TrainingSpec:
    """Returns the spec of a file for each name and its rows, with a column for each label."""
    columns = {label: label for label in labels}
    sources = [
        {"name": name, "files": [str(write_jsonl(folder / f"{name}.jsonl", each))], "label_columns": columns} for name, each in rows.items()
    ]
    return TrainingSpec.model_validate({"name": "posts", "labels": labels, "sources": sources})


def test_the_numbers_are_those_of_fasttext_and_scikit_learn(folder: Path, tmp_path: Path) -> None:
    evaluation = evaluate_files(folder, spec_of(tmp_path, new=NEW))
    head = read_classifier(folder).heads[1]
    model = load_model(str(folder / head.file))
    lines = write_form("words", pa.array([post["text"] for post in NEW])).to_pylist()
    scores = head.calibration.apply([min(1.0, dict(zip(*model.predict(line, k=-1))).get(YES, 0.0)) for line in lines])
    answers = np.array([post["spam"] for post in NEW])
    found = evaluation["labels"]["spam"]
    assert found["brier"]["value"] == pytest.approx(brier_score_loss(answers, scores), abs=1e-5)
    assert found["roc_auc"]["value"] == pytest.approx(roc_auc_score(answers, scores), abs=1e-4)
    assert found["at_threshold"]["f1"]["value"] == pytest.approx(f1_score(answers, scores >= 0.4), abs=1e-9)
    assert found["roc_auc"]["value"] > 0.9
    assert evaluation["texts"] == 300 and evaluation["left_out"] == 0
    assert set(found["by_length"]) <= {"0 to 49", "50 to 99", "100 to 499"}
    json.dumps(evaluation, allow_nan=False)


def test_texts_that_it_has_learned_from_are_left_out(folder: Path, tmp_path: Path) -> None:
    same = [{**post, "text": post["text"].upper() + "  "} for post in OLD[:30]]  # equal in the form `words`
    found = evaluate_files(folder, spec_of(tmp_path, new=NEW, old=same))
    assert found["texts"] == 300 and found["left_out"] == 30
    assert set(found["labels"]["rude"]["by_source"]) == {"new"}
    with pytest.raises(InputError, match="all 30 texts were training data"):
        evaluate_files(folder, spec_of(tmp_path, old=same))
    silent = write_classifier(tmp_path / "posts", OLD[:80], hashes=False)
    assert evaluate_files(silent, spec_of(tmp_path, old=same))["left_out"] is None


@pytest.mark.parametrize("content", [b"123", (5).to_bytes(8, "little") + (4).to_bytes(8, "little")])
def test_damaged_hashes_are_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / TRAINING_HASHES).write_bytes(content)
    with pytest.raises(InputError, match=r"training\.hashes: "):
        in_training(tmp_path, "plain", pa.array(["a"], pa.large_string()))
