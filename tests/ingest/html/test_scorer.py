"""Tests the trees' kernel against a walk in plain Python, and the model that ships."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from page_blocks import walked

from corpusmill.ingest.html.features import NAMES, context_of, features
from corpusmill.ingest.html.main_text import AT_A_TIME, LEVELS, MODEL, load_trees, score, scores_of
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


def test_a_page_that_is_scored_in_parts_has_the_same_scores() -> None:
    page = walked("<nav><ul><li>Home</ul></nav>" + "".join(f"<p>Paragraph {n} of <a>many</a>.</p>" for n in range(AT_A_TIME)))
    assert len(page.blocks) > AT_A_TIME
    whole = score(features(page, context_of(page), 0, len(page.blocks)), load_trees())
    assert np.array_equal(scores_of(page, context_of(page), load_trees()), whole)


def test_a_model_for_other_features_is_refused(tmp_path: Path) -> None:
    model = json.loads(MODEL.read_text())
    path = tmp_path / "scorer.json"
    path.write_text(json.dumps({**model, "features": model["features"][::-1]}))
    with pytest.raises(CorpusmillError, match="other features"):
        load_trees(path)
