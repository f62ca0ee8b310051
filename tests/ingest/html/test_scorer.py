"""Tests the net's kernels against torch, and the net that ships."""

from pathlib import Path

import numpy as np
import pytest
import torch
from page_blocks import walked
from torch import Tensor
from torch.nn.functional import linear, relu, softsign

from corpusmill.ingest.html.features import NAMES, context_of, features
from corpusmill.ingest.html.page_type import PAGE_NAMES, STATED, TYPES, page_values
from corpusmill.ingest.html.scorer import AT_A_TIME, FAR, MODEL, Net, load_net, page_types, read_page, score
from corpusmill.pipeline.errors import CorpusmillError


def scaled(values: np.ndarray, mean: Tensor, scale: Tensor) -> Tensor:
    given = torch.from_numpy(values)
    return ((given.sign() * given.abs().sqrt() - mean) * scale).clamp(-float(FAR), float(FAR))


def scanned(before: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
    gate, new = linear(before, weights, bias).chunk(2, dim=-1)
    gate, half = 0.5 + 0.5 * softsign(gate), before.shape[1] // 2
    states = torch.zeros_like(before)
    for units, order in ((slice(0, half), range(len(before))), (slice(half, None), range(len(before) - 1, -1, -1))):
        state = torch.zeros(half)
        for block in order:
            state = (1 - gate[block, units]) * state + gate[block, units] * new[block, units]
            states[block, units] = state
    return states


def slowly(columns: np.ndarray, values: np.ndarray, net: Net) -> tuple[Tensor, Tensor]:
    """Returns the probabilities of blocks and of types, as the formulas in `scorer.py` say."""
    net = Net(*map(torch.from_numpy, net))
    page = relu(linear(scaled(values, net.page_mean, net.page_scale), net.page, net.page_bias))
    first = relu(linear(scaled(columns.T, net.block_mean, net.block_scale), net.first, net.first_bias) + page)
    second = first + scanned(first, net.scan, net.scan_bias)
    second = second + linear(second.mean(0), net.mean, net.mean_bias)
    third = second + scanned(second, net.scan2, net.scan2_bias)
    last = relu(linear(torch.cat([first, second, third], dim=-1), net.last, net.last_bias))
    return linear(last, net.out, net.out_bias).sigmoid()[:, 0], linear(page, net.types, net.types_bias).softmax(0)


@pytest.mark.parametrize("count", [1, 2, 7, 300])
def test_the_kernels_are_the_formulas(count: int) -> None:
    net, random = load_net(), np.random.default_rng(count)
    columns = random.normal(0, 4, (len(NAMES), count)).astype(np.float32)
    values = random.exponential(2, len(PAGE_NAMES)).astype(np.float32)
    scores, types = slowly(columns, values, net)
    whole, found = page_types(values, net)
    assert found == pytest.approx(types.numpy(), abs=1e-5) and found.shape == (len(TYPES),)
    assert score(columns, whole, net) == pytest.approx(scores.numpy(), abs=1e-5)


def test_a_page_that_is_longer_than_a_row_is_read_in_parts() -> None:
    page = walked("<nav><ul><li>Home</ul></nav>" + "".join(f"<p>Paragraph {n} of <a>many</a>.</p>" for n in range(AT_A_TIME)))
    count, net, stated = len(page.blocks), load_net(), np.zeros(len(STATED), np.float32)
    context = context_of(page)
    scores, types = read_page(page, context, stated, net)
    assert count > AT_A_TIME and types.sum() == pytest.approx(1)
    whole, _ = page_types(page_values(page, context, stated), net)
    rest = score(features(page, context, AT_A_TIME, count), whole, net)
    assert len(scores) == count and np.array_equal(scores[AT_A_TIME:], rest)


def test_a_model_for_other_features_is_refused(tmp_path: Path) -> None:
    with np.load(MODEL) as arrays:
        np.savez(tmp_path / "scorer.npz", **{**arrays, "block_names": arrays["block_names"][::-1]})
    with pytest.raises(CorpusmillError, match="other features"):
        load_net(tmp_path / "scorer.npz")
