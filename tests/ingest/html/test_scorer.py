"""Tests the trees' kernel against a walk in plain Python, and the model that ships."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from corpusmill.ingest.html.features import NAMES
from corpusmill.ingest.html.main_text import LEVELS, MODEL, load_trees, score
from corpusmill.pipeline.errors import CorpusmillError


def slowly(column: list[float], trees: dict[str, list]) -> float:
    odds = 0.0
    for feature, cut, values in zip(trees["feature"], trees["cut"], trees["values"]):
        leaf = sum(2**level for level in range(len(feature)) if column[feature[level]] > cut[level])
        odds += values[leaf]
    return 1 / (1 + math.exp(-odds))


def test_the_kernel_walks_the_trees() -> None:
    trees = json.loads(MODEL.read_text())["trees"]
    assert all(len(row) == LEVELS for row in trees["feature"]) and all(len(row) == 2**LEVELS for row in trees["values"])
    columns = np.random.default_rng(5).exponential(2, (len(NAMES), 50)).astype(np.float32).round(1)
    expected = [slowly(columns[:, row].tolist(), trees) for row in range(50)]
    assert score(columns, load_trees()) == pytest.approx(expected, abs=1e-12)
    assert score(columns[:, :0], load_trees()).shape == (0,)


def test_a_model_for_other_features_is_refused(tmp_path: Path) -> None:
    model = json.loads(MODEL.read_text())
    path = tmp_path / "scorer.json"
    path.write_text(json.dumps({**model, "features": model["features"][::-1]}))
    with pytest.raises(CorpusmillError, match="other features"):
        load_trees(path)
