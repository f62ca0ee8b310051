# mypy: disallow-untyped-defs=False
"""How likely each block is main text: boosted trees over `features`, evaluated in a kernel.

The trees lie in `scorer.json`, which `benchmarks/fit_extraction.py` makes from pages whose main text is known.
"""

import json
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from corpusmill.ingest.page.features import NAMES, features
from corpusmill.pipeline.errors import CorpusmillError
from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.buffers import borrowed

MODEL = Path(__file__).with_name("scorer.json")

#: So many blocks are judged at a time: their features take 1 kB each.
AT_A_TIME = 4096
#: Levels of every tree. The trees are symmetric, as CatBoost makes them: all nodes of a level ask the same question, so a block's leaf
#: is a number of LEVELS bits, and the questions are asked of all blocks at once.
LEVELS = 6

#: `feature` int32 and `cut` float32 of shape (trees, LEVELS): bit i is set where the value is greater than the i-th cut; `values` float64
#: of shape (trees, 2**LEVELS), log-odds.
Trees = tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float64]]


@cache
def load_trees(path: Path = MODEL) -> Trees:
    """The trees of a model file. Raises CorpusmillError where it was made for other features."""
    model = json.loads(path.read_text())
    if model["features"] != list(NAMES):
        raise CorpusmillError(f"{path}: it was made for other features; make it anew with benchmarks/fit_extraction.py.")
    feature, cut, values = (np.array(model["trees"][name]) for name in ("feature", "cut", "values"))
    return feature.astype(np.int32), cut.astype(np.float32), values.astype(np.float64)


@kernel
def scores_of(page, context, trees):
    """The probability of each block of a page to be main text, float64."""
    scores = np.empty(len(page.blocks))
    for first in range(0, len(scores), AT_A_TIME):
        last = min(first + AT_A_TIME, len(scores))
        scores[first:last] = score(features(page, context, first, last), trees)
    return scores


@kernel
def score(columns, trees):
    """Probabilities, float64 of length n, for `columns` of shape (features, n) float32."""
    odds = np.zeros(columns.shape[1])
    leaves = np.empty(columns.shape[1], np.int32)
    _add_trees(columns, trees, leaves, odds)
    for row in range(len(odds)):
        odds[row] = 1.0 / (1.0 + np.exp(-odds[row]))
    return odds


@kernel
def _add_trees(columns, trees, leaves, odds):
    feature, cut, values = borrowed(trees[0]), borrowed(trees[1]), borrowed(trees[2])
    columns, leaves, odds = borrowed(columns), borrowed(leaves), borrowed(odds)
    for tree in range(len(feature)):
        leaves[:] = 0
        for level in range(LEVELS):
            column, limit = columns[feature[tree, level]], cut[tree, level]
            for row in range(len(leaves)):
                leaves[row] |= np.int32(column[row] > limit) << np.int32(level)
        for row in range(len(leaves)):
            odds[row] += values[tree, leaves[row]]
