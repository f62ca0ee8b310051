import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from corpusmill.filters.quality import NEEDS, features, model, score
from corpusmill.filters.statistics import measure


def test_the_model_is_complete_and_finite(hard_texts: list[str]) -> None:
    inputs = features(measure(pa.array(hard_texts, pa.large_string()), "words", NEEDS))
    fitted = model()
    assert set(fitted["features"]) == set(inputs)
    scores = score(inputs, fitted)
    assert np.isfinite(scores).all() and (scores >= 0).all() and (scores <= 1).all()


def test_score_is_the_logistic_function_of_the_weighted_sum() -> None:
    fitted = {"intercept": 0.5, "features": {"a": {"mean": 1.0, "scale": 2.0, "coefficient": -3.0}}}
    assert score({"a": np.array([1.0, 3.0])}, fitted).tolist() == pytest.approx([1 / (1 + np.exp(-0.5)), 1 / (1 + np.exp(2.5))])


def test_good_pages_score_above_bad_ones(shared_data: Path, measure_step) -> None:
    """On the data that it was fitted to; what to expect of others stands in the model as cross_validated_auc."""
    rows = [json.loads(line) for line in (shared_data / "quality/dclm_human.jsonl").open()]
    columns, _ = measure_step("quality", {}, [row["text"] for row in rows])
    scores, labels = np.array(columns["quality"]), np.array([row["label"] for row in rows])
    auc = (scores[labels == 1][:, None] > scores[labels == 0][None, :]).mean()
    assert auc > model()["cross_validated_auc"] > 0.8
