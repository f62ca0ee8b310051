# mypy: disallow-untyped-defs=False
"""The net that scores the blocks of a page and finds its type.

A block is seen in the row of all blocks: two layers read the page forwards and backwards, and each carries a state from block to block
(minGRU, arXiv 2410.01201, table 1). One more layer reads what all of them say:

    page  = relu(W p + b)                         p: the page's values; types = softmax(W page + b)
    first = relu(W x + b + page)                  x: a block's features
    second = first + scan(first), then + W mean(second) + b over all blocks
    third = second + scan(second)
    score = sigmoid(w relu(W [first, second, third] + b) + b)

A scan has units in each direction: `state = (1 - z) state + z c`, with `z = gate(W x + b)` and `c = W x + b`. The gate is
(1 + x / (1 + |x|)) / 2, which needs no exponential function, so all sums and products up to the last line round alike on every processor.
`benchmarks/fit_extraction.py` makes the weights.
"""

from collections import namedtuple
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from corpusmill.ingest.html.features import NAMES, features
from corpusmill.ingest.html.page_type import PAGE_NAMES, page_values
from corpusmill.pipeline.errors import CorpusmillError
from corpusmill.pipeline.kernel import kernel
from corpusmill.text.buffers import borrowed

MODEL = Path(__file__).with_name("scorer.npz")

#: The weights, float32: of shape (outputs, inputs) and (outputs,). `block_mean` to `page_scale` bring features to a common scale.
Net = namedtuple(
    "Net",
    "block_mean block_scale page_mean page_scale first first_bias page page_bias types types_bias scan scan_bias mean mean_bias "
    "scan2 scan2_bias last last_bias out out_bias",
)
#: Blocks that are read in one row. A longer page is read in parts, so that its memory is bounded: a block takes 2 kB.
AT_A_TIME = 4096
#: Features are limited to this many standard deviations.
FAR = np.float32(6)
ZERO, HALF, ONE = np.float32(0), np.float32(0.5), np.float32(1)


@cache
def load_net(path: Path = MODEL) -> Net:
    """Loads the weights from an .npz. Raises CorpusmillError if they were made for other features."""
    with np.load(path) as arrays:
        if list(arrays["block_names"]) != list(NAMES) or list(arrays["page_names"]) != list(PAGE_NAMES):
            raise CorpusmillError(f"{path}: it was made for other features; make it anew with benchmarks/fit_extraction.py.")
        return net_of(arrays)


def net_of(arrays: Mapping[str, Any]) -> Net:
    return Net(*(np.ascontiguousarray(arrays[name], np.float32) for name in Net._fields))


@kernel
def read_page(page, context, stated, net):
    """Returns the probability that a block is main text, for each block of a page, and the probabilities of the page's types, float64.

    `stated`: see `page_type.stated_values`. The page must have blocks.
    """
    values = page_values(page, context, stated)
    whole, types = page_types(values, net)
    scores = np.empty(len(page.blocks))
    for first in range(0, len(scores), AT_A_TIME):
        last = min(first + AT_A_TIME, len(scores))
        scores[first:last] = score(features(page, context, first, last), whole, net)
    return scores, types


@kernel
def page_types(values, net):
    """Returns what the net makes of a page's values PAGE_NAMES (float32, one for each unit), and the probabilities of TYPES, float64."""
    scaled = values.copy().reshape(len(values), 1)
    _scale(scaled, net.page_mean, net.page_scale)
    whole = np.empty((len(net.page), 1), np.float32)
    _linear(scaled, net.page, net.page_bias, whole)
    _relu(whole)
    odds = np.empty((len(net.types), 1), np.float32)
    _linear(whole, net.types, net.types_bias, odds)
    shares = np.exp((odds - odds.max())[:, 0].astype(np.float64))
    return whole[:, 0].copy(), shares / shares.sum()


@kernel
def score(columns, whole, net):
    """Returns the probabilities that n blocks are main text, float64. `columns`: their features, float32 of shape (len(NAMES), n), which
    are scaled in place. `whole`: what the net makes of the page."""
    units, count = len(whole), columns.shape[1]
    _scale(columns, net.block_mean, net.block_scale)
    states, gates = np.empty((3 * units, count), np.float32), np.empty((2 * units, count), np.float32)
    first, second, third = states[:units], states[units : 2 * units], states[2 * units :]
    _linear(columns, net.first, net.first_bias + whole, first)
    _relu(first)
    _linear(first, net.scan, net.scan_bias, gates)
    _scan(first, gates, second)
    means = np.empty((units, 1), np.float32)
    for unit in range(units):
        means[unit, 0] = second[unit].sum() / np.float32(count)
    added = np.empty((units, 1), np.float32)
    _linear(means, net.mean, net.mean_bias, added)
    second += added
    _linear(second, net.scan2, net.scan2_bias, gates)
    _scan(second, gates, third)
    mixed, odds = gates[:units], np.empty((1, count), np.float32)
    _linear(states, net.last, net.last_bias, mixed)
    _relu(mixed)
    _linear(mixed, net.out, net.out_bias, odds)
    return 1.0 / (1.0 + np.exp(-odds[0].astype(np.float64)))


@kernel
def _scale(columns, means, scales):
    """Takes the root of the sizes of all values, and brings these to mean 0 and deviation 1, within FAR."""
    columns = borrowed(columns)
    for row in range(len(columns)):
        mean, scale = means[row], scales[row]
        for column in range(columns.shape[1]):
            value = columns[row, column]
            root = np.sqrt(abs(value))
            value = ((root if value >= ZERO else -root) - mean) * scale
            columns[row, column] = min(max(value, -FAR), FAR)


@kernel
def _linear(columns, weights, bias, out):
    """Writes `weights @ columns + bias` to `out`. This takes most of the time: so it reads four rows for each two that it writes."""
    columns, weights, out = borrowed(columns), borrowed(weights), borrowed(out)
    inputs, whole = len(columns), len(columns) & ~3
    for row in range(0, len(out) & ~1, 2):
        line, other, upper, lower = out[row], out[row + 1], weights[row], weights[row + 1]
        line[:], other[:] = bias[row], bias[row + 1]
        for at in range(0, whole, 4):
            a0, a1, a2, a3 = upper[at], upper[at + 1], upper[at + 2], upper[at + 3]
            b0, b1, b2, b3 = lower[at], lower[at + 1], lower[at + 2], lower[at + 3]
            c0, c1, c2, c3 = columns[at], columns[at + 1], columns[at + 2], columns[at + 3]
            for column in range(len(line)):
                x0, x1, x2, x3 = c0[column], c1[column], c2[column], c3[column]
                line[column] += a0 * x0 + a1 * x1 + a2 * x2 + a3 * x3
                other[column] += b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3
        for at in range(whole, inputs):
            _add(columns[at], upper[at], line)
            _add(columns[at], lower[at], other)
    if len(out) & 1:
        line = out[len(out) - 1]
        line[:] = bias[len(out) - 1]
        for at in range(inputs):
            _add(columns[at], weights[len(out) - 1, at], line)


@kernel(inline="always")
def _add(values, weight, line):
    for column in range(len(line)):
        line[column] += weight * values[column]


@kernel
def _relu(values):
    values = borrowed(values)
    for row in range(len(values)):
        for column in range(values.shape[1]):
            values[row, column] = max(values[row, column], ZERO)


@kernel
def _scan(before, gates, out):
    """Writes `before` and the states to `out`: the first half of the units reads the blocks forwards, the other half backwards.

    `gates`: first the gates of all units, then what would be the new states."""
    before, gates, out = borrowed(before), borrowed(gates), borrowed(out)
    units, count = before.shape
    for unit in range(units):
        for column in range(count):
            value = gates[unit, column]
            gates[unit, column] = HALF + HALF * (value / (ONE + abs(value)))
    for ahead in range(units // 2):  # two rows of states at a time, as each waits for its last one
        behind = ahead + units // 2
        state = other = ZERO
        for column in range(count):
            gate = gates[ahead, column]
            state = (ONE - gate) * state + gate * gates[units + ahead, column]
            out[ahead, column] = before[ahead, column] + state
            last = count - 1 - column
            gate = gates[behind, last]
            other = (ONE - gate) * other + gate * gates[units + behind, last]
            out[behind, last] = before[behind, last] + other
