"""Evaluating labelled files: the numbers of scikit-learn over fastText's own scores, and what has been seen before."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from fasttext import load_model
from sklearn.metrics import f1_score, roc_auc_score
from trained_classifier import make_posts, write_classifier, write_jsonl

from corpusmill.filters.classifier.card import YES, read_classifier
from corpusmill.filters.classifier.evaluate import evaluate_files
from corpusmill.filters.classifier.forms import write_form
from corpusmill.filters.classifier.score import TRAINING_HASHES, in_training
from corpusmill.filters.classifier.spec import ExampleSource as Source
from corpusmill.pipeline.errors import InputError

OLD, NEW = make_posts(1, 400), make_posts(2, 300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classifier(tmp_path_factory.mktemp("classifier") / "posts", OLD)


def source(path: Path, rows: list[dict], **options) -> Source:
    return Source(name=path.stem, files=(str(write_jsonl(path, rows)),), **{"label_columns": {"rude": "rude", "spam": "spam"}, **options})


def test_the_numbers_are_those_of_fasttext_and_scikit_learn(folder: Path, tmp_path: Path) -> None:
    evaluation = evaluate_files(folder, [source(tmp_path / "new.jsonl", NEW)], resamples=50)
    head = read_classifier(folder).heads[1]
    model = load_model(str(folder / head.file))
    lines = write_form("words", pa.array([post["text"] for post in NEW])).to_pylist()
    scores = head.calibration.apply([min(1.0, dict(zip(*model.predict(line, k=-1))).get(YES, 0.0)) for line in lines])
    answers = np.array([post["spam"] for post in NEW])
    np.testing.assert_allclose(evaluation.scores["spam"], scores, atol=1e-5)
    found = evaluation.result["labels"]["spam"]
    assert found["roc_auc"]["value"] == pytest.approx(roc_auc_score(answers, scores), abs=1e-4)
    assert found["at_threshold"]["f1"]["value"] == pytest.approx(f1_score(answers, scores >= 0.4), abs=1e-9)
    assert found["roc_auc"]["value"] > 0.9
    assert evaluation.result["texts"] == 300 and evaluation.result["in_training"]["texts"] == 0
    assert set(found["by_length"]) <= {"0 to 49", "50 to 99", "100 to 499"}
    json.dumps(evaluation.result, allow_nan=False)


def test_texts_that_it_has_learned_from_are_counted_and_can_be_left_out(folder: Path, tmp_path: Path) -> None:
    same = [{**post, "text": post["text"].upper() + "  "} for post in OLD[:30]]  # equal in the form `words`
    sources = [source(tmp_path / "new.jsonl", NEW), source(tmp_path / "old.jsonl", same)]
    evaluation = evaluate_files(folder, sources, resamples=10)
    assert evaluation.result["in_training"] == {"texts": 30, "of": 330, "by_source": {"old": 30}}
    left = evaluate_files(folder, sources, unseen=True, resamples=10)
    assert left.result["texts"] == 300 and left.result["left_out"] == 30
    assert set(left.result["labels"]["rude"]["by_source"]) == {"new"}
    with pytest.raises(InputError, match="has learned from all 30 texts"):
        evaluate_files(folder, sources[1:], unseen=True)


def test_a_classifier_that_does_not_say_what_it_has_seen(tmp_path: Path) -> None:
    folder = write_classifier(tmp_path / "posts", OLD[:80], hashes=False)
    one = source(tmp_path / "new.jsonl", NEW[:40])
    assert evaluate_files(folder, [one], resamples=10).result["in_training"] is None
    with pytest.raises(InputError, match="does not say what it has learned from"):
        evaluate_files(folder, [one], unseen=True)


@pytest.mark.parametrize("content", [b"123", (5).to_bytes(8, "little") + (4).to_bytes(8, "little")])
def test_damaged_hashes_are_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / TRAINING_HASHES).write_bytes(content)
    with pytest.raises(InputError, match=r"training\.hashes: "):
        in_training(tmp_path, "plain", pa.array(["a"], pa.large_string()))


def test_partial_answers(folder: Path, tmp_path: Path) -> None:
    rows = [{**post, "spam": None if number % 2 else post["spam"]} for number, post in enumerate(NEW)]
    found = evaluate_files(folder, [source(tmp_path / "half.jsonl", rows)], resamples=10).result["labels"]
    assert found["rude"]["unknown"] == 0 and found["rude"]["examples"] == 300
    assert found["spam"]["unknown"] == 150 and found["spam"]["examples"] == 150
    only = evaluate_files(folder, [source(tmp_path / "rude.jsonl", NEW, label_columns={"rude": "rude"})], resamples=10).result
    assert list(only["labels"]) == ["rude"] and only["not_asked"] == ["spam"]


def test_a_label_that_the_model_has_not(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"new: .*posts has no label 'nice' \(it has rude, spam\)\.$"):
        evaluate_files(folder, [source(tmp_path / "new.jsonl", NEW, label_columns={"nice": "rude"})])


def test_no_answer_at_all(folder: Path, tmp_path: Path) -> None:
    rows = [{**post, "rude": None, "spam": None} for post in NEW[:5]]
    with pytest.raises(InputError, match="new: no text has an answer to rude or spam"):
        evaluate_files(folder, [source(tmp_path / "new.jsonl", rows)])


def test_a_folder_that_is_no_classifier(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a classifier's folder"):
        evaluate_files(tmp_path, [source(tmp_path / "new.jsonl", NEW)])
