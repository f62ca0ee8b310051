"""Tests the trees' kernel against a walk in plain Python, and the model that ships."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from page_blocks import walked

from corpusmill.ingest.html.features import around_of, context_of, features, second_features
from corpusmill.ingest.html.main_text import AT_A_TIME, COLUMNS, LEVELS, MODEL, load_model, score, scores_of, trees_of
from corpusmill.ingest.html.page_type import TYPES, type_probabilities
from corpusmill.pipeline.errors import CorpusmillError


def slowly(column: list[float], trees: dict[str, list]) -> float:
    odds = 0.0
    for feature, cut, values in zip(trees["feature"], trees["cut"], trees["values"]):
        leaf = sum(2**level for level in range(len(feature)) if column[feature[level]] > np.float32(cut[level]))
        odds += float(np.float32(values[leaf]))  # as the kernels hold them
    return odds


@pytest.mark.parametrize("name", COLUMNS)
def test_the_kernels_walk_the_trees(name: str) -> None:
    trees = json.loads(MODEL.read_text())[name]
    columns = np.random.default_rng(5).exponential(2, (len(COLUMNS[name]), 50)).astype(np.float32).round(1)
    if name == "types":
        for row in columns.T:
            odds = [slowly(row.tolist(), {**trees, "values": np.array(trees["values"])[:, :, number]}) for number in range(len(TYPES))]
            expected = [math.exp(each) for each in odds]
            assert type_probabilities(row, trees_of(trees)) == pytest.approx([each / sum(expected) for each in expected])
        return
    assert all(len(row) == LEVELS for row in trees["feature"]) and all(len(row) == 2**LEVELS for row in trees["values"])
    expected = [1 / (1 + math.exp(-slowly(columns[:, row].tolist(), trees))) for row in range(50)]
    assert score(columns, trees_of(trees)) == pytest.approx(expected, abs=1e-12)
    assert score(columns[:, :0], trees_of(trees)).shape == (0,)


def test_a_page_that_is_scored_in_parts_has_the_same_scores() -> None:
    page = walked("<nav><ul><li>Home</ul></nav>" + "".join(f"<p>Paragraph {n} of <a>many</a>.</p>" for n in range(AT_A_TIME)))
    count = len(page.blocks)
    assert count > AT_A_TIME
    model, context, types = load_model(), context_of(page), np.full(len(TYPES), 1 / len(TYPES))
    whole = features(page, context, types, 0, count)
    around = second_features(page, context, around_of(page, context, score(whole, model.first)), 0, count)
    assert np.array_equal(scores_of(page, context, types, model), score(np.vstack([whole, around]), model.second))


def test_a_model_for_other_features_is_refused(tmp_path: Path) -> None:
    model = json.loads(MODEL.read_text())
    path = tmp_path / "scorer.json"
    path.write_text(json.dumps({**model, "first": {**model["first"], "columns": model["first"]["columns"][::-1]}}))
    with pytest.raises(CorpusmillError, match="other features"):
        load_model(path)
